"""AdamW, learning-rate schedule, optimizer step with gradient clipping, and saved training state."""

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
    """Return AdamW for all trainable parameters, with weight decay on matrices only. Steps set the learning rate."""
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=0.0, eps=epsilon, fused=True)


def count_parameters(model: Any) -> int:
    """Count the model's weights, frozen ones included; for a LoRA view, those of its base."""
    base = getattr(model, "base", None)  # of a view
    return sum(parameter.numel() for parameter in (model if base is None else base.model).parameters())


def peak_learning_rate(settings: Training, model: Any) -> float:
    """Return the configured peak learning rate, or the default for the model's size (see config.LEARNING_RATES)."""
    if settings.learning_rate:
        return settings.learning_rate
    if not settings.model:  # a new model
        return LEARNING_RATES[0][1]
    weights = count_parameters(model)
    rate = next(rate for limit, rate in LEARNING_RATES if weights < limit)
    return rate * LORA_FACTOR if settings.lora_rank else rate


def adam_epsilon(settings: PpoConfig, model: Any) -> float:
    """Return the configured epsilon of Adam, or the default for the model's size."""
    return settings.adam_epsilon or (1e-5 if count_parameters(model) < SMALL_MODEL else 1e-8)


def learning_rate_factor(step: int, total: int, settings: Training) -> float:
    """Return the factor of the peak learning rate in step 1 … total: linear warmup, then linear decay.

    Warmup takes ceil(warmup_fraction * total) steps and reaches 1 in the last of them. Decay starts from 1 in the next
    step and would reach final_learning_rate_fraction in step total + 1 (Huang et al. 2024).
    """
    warmup = math.ceil(settings.warmup_fraction * total)
    if step <= warmup:
        return step / warmup
    progress = (step - 1 - warmup) / (total - warmup)
    return 1.0 - (1.0 - settings.final_learning_rate_fraction) * progress


def take_step(
    optimizer: Optimizer,
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    max_norm: float,
    step: int,
    norm_name: str = "the gradient's norm",
) -> float:
    """Clip the global gradient norm, take an optimizer step and clear the gradients. Return the norm before clipping.

    Raises TrainingFailed and changes nothing if the norm is not finite.
    """
    norm = float(nn.utils.clip_grad_norm_(list(parameters), max_norm))
    check_finite(norm_name, norm, step)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def check_finite(name: str, value: float, step: int) -> None:
    """Raise TrainingFailed if the value is NaN or infinite."""
    if not math.isfinite(value):
        raise TrainingFailed(f"{name} is {value} at step {step}; the last saved state is kept")


def save_state(job: JobDirectory, step: int, parts: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    """Replace `state/` by the step, the state_dict of each part (model or optimizer) and the values in `extra`."""
    everything = {"step": step, "extra": dict(extra)}
    everything["parts"] = {name: part.state_dict() for name, part in parts.items()}
    job.save_folder("state", lambda folder: torch.save(everything, folder / "training.pt"))


def load_state(folder: Path, parts: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Load each part from `state/` and return the last finished step and the plain values.

    Raises BadInput if the file is damaged or was saved with other settings.
    """
    try:
        saved = torch.load(folder / "training.pt", map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved["parts"][name])
    except (OSError, EOFError, UnpicklingError, RuntimeError, ValueError, KeyError) as error:
        sentence = f"{folder} is damaged or was saved with other settings: delete it to start the job again"
        raise BadInput(sentence) from error
    return int(saved["step"]), saved["extra"]
