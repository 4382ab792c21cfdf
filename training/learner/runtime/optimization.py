"""Adam, its learning rate, and the step it takes; and what a program resumes from."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from training.learner.runtime.config import LEARNING_RATES, LORA_FACTOR, SMALL_MODEL, PpoConfig, Training
from training.learner.runtime.jobdir import BadInput, JobDirectory, TrainingFailed


def adamw(model: nn.Module, weight_decay: float, epsilon: float = 1e-8) -> AdamW:
    """AdamW on all that learns; the decay falls on matrices only (not on norms and biases). Its rate is set a step."""
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=0.0, eps=epsilon, fused=True)


def weights_of(model: Any) -> int:
    """How many weights the model has, frozen ones too; of a role, those of the model that it is on."""
    base = getattr(model, "base", None)
    return sum(parameter.numel() for parameter in (model if base is None else base.model).parameters())


def highest_learning_rate(settings: Training, model: Any) -> float:
    """The learning rate as set, or else by the size of the model that learns (see config.LEARNING_RATES)."""
    if settings.learning_rate:
        return settings.learning_rate
    if not settings.model:  # from nothing
        return LEARNING_RATES[0][1]
    weights = weights_of(model)
    rate = next(rate for limit, rate in LEARNING_RATES if weights < limit)
    return rate * LORA_FACTOR if settings.lora_rank else rate


def adam_epsilon(settings: PpoConfig, model: Any) -> float:
    """Adam's epsilon as set, or else by the size of the model that learns."""
    return settings.adam_epsilon or (1e-5 if weights_of(model) < SMALL_MODEL else 1e-8)


def learning_rate_factor(step: int, total: int, settings: Training) -> float:
    """What the highest learning rate is multiplied by in step 1 … total: a linear rise, then a linear fall.

    The rise takes warmup = ceil(warmup_fraction * total) steps and reaches 1 in the last of them; the fall starts from
    1 in the step after and would reach final_learning_rate_fraction in step total + 1 (Huang et al. 2024: annealed
    linearly, never quite to its end).
    """
    warmup = math.ceil(settings.warmup_fraction * total)
    if step <= warmup:
        return step / warmup
    gone = (step - 1 - warmup) / (total - warmup)
    return 1.0 - (1.0 - settings.final_learning_rate_fraction) * gone


def take_step(
    optimizer: Optimizer,
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    max_norm: float,
    step: int,
    norm_name: str = "the gradient's norm",
) -> float:
    """Clips the gradients' global 2-norm, steps, forgets the gradients; gives the norm before clipping.

    Raises TrainingFailed, with nothing changed, if the norm is not finite.
    """
    norm = float(nn.utils.clip_grad_norm_(list(parameters), max_norm))
    check_finite(norm_name, norm, step)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def check_finite(name: str, value: float, step: int) -> None:
    """Raises TrainingFailed with a sentence when the value is NaN or infinite."""
    if not math.isfinite(value):
        raise TrainingFailed(f"{name} is {value} at step {step}; the last saved state is kept")


def save_state(job: JobDirectory, step: int, parts: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    """Saves `state/`: the step, each part's state_dict (models, optimisers) and plain values, replaced as a whole."""
    everything = {"step": step, "extra": dict(extra)}
    everything["parts"] = {name: part.state_dict() for name, part in parts.items()}
    job.save_folder("state", lambda folder: torch.save(everything, folder / "training.pt"))


def load_state(folder: Path, parts: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Loads each part from `state/`; gives the last finished step and the plain values.

    Raises BadInput where the file is damaged, or its parts are not those that the settings make.
    """
    try:
        saved = torch.load(folder / "training.pt", map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved["parts"][name])
    except (OSError, EOFError, UnpicklingError, RuntimeError, ValueError, KeyError) as error:
        raise BadInput(f"{folder} is damaged or of other settings; without it the job would start anew") from error
    return int(saved["step"]), saved["extra"]
