"""Settings that all programs have, and those of all programs that train."""

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from training.learner.reward_terms import with_current_name
from training.learner.runtime.fields import as_kind, check_fields, setting
from training.learner.runtime.jobdir import BadInput

DTYPES = ("float32", "bfloat16")
# (number of weights below which it holds, learning rate) of full fine-tuning. From a billion weights on: Huang et al.
# 2024, whose policies, critics and reward models of 1 to 6.9 billion weights learn at 3e-6. The rate of small models is
# that of the demo; the two rates between interpolate.
LEARNING_RATES = ((30e6, 1e-4), (300e6, 3e-5), (1e9, 1e-5), (math.inf, 3e-6))
LORA_FACTOR = 10  # Schulman et al. 2025, "LoRA Without Regret": the best rate is about ten times that of full training
SMALL_MODEL = 30e6  # weights
EVALUATIONS = 10  # default number of evaluations on held-out data in a run
RENAMED = {"missing_end_penalty": "missing_eos_penalty"}  # former name to name


def current_names(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings and reward terms under their current names. Raises BadInput if both names of one are there."""
    for former, name in RENAMED.items():
        if former in values and name in values:
            raise BadInput(f"{former} is the former name of {name}: set only {name}")
    renamed = {RENAMED.get(name, name): value for name, value in values.items()}
    if isinstance(renamed.get("rewards"), list):
        renamed["rewards"] = [with_current_name(term) for term in renamed["rewards"]]
    return renamed


@dataclass(frozen=True)
class Settings:
    """Settings of all programs."""

    program: ClassVar[str]

    model: str = setting("", help="Hugging Face folder or hub id to start from.")
    seed: int = setting(0, low=0, high=2**63 - 1, label="Seed", help="Seed of every random choice.")
    dtype: str = setting(
        "float32",
        choices=DTYPES,
        label="Computing dtype",
        help="Computing dtype. Weights that are trained stay float32.",
    )
    max_prompt_tokens: int = setting(
        512, low=1, label="Maximum prompt length", help="Maximum tokens of a rendered prompt."
    )
    max_completion_tokens: int = setting(
        256, low=1, label="Maximum completion length", help="Maximum tokens of a completion with its EOS token."
    )
    overlong_prompts: str = setting(
        "truncate",
        choices=("truncate", "refuse"),
        label="Prompts that are too long",
        help="Longer prompts lose their beginning (result.json counts them), or end the program.",
    )
    micro_batch_tokens: int = setting(
        4096,
        low=1,
        label="Size of a forward pass",
        help="Attention slots of one forward pass of one process: tokens with padding and copies of prompts. "
        "A single longer row is still computed.",
    )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return the settings of config.json. Raises BadInput with one sentence."""
        values = current_names(values)
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise BadInput(f"unknown setting {unknown[0]!r} for {cls.program}")
        kinds = typing.get_type_hints(cls)
        return cls(**{name: as_kind(name, value, kinds[name]) for name, value in values.items()})

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def __post_init__(self) -> None:
        check_fields(self)
        self.check()

    def check(self) -> None:
        """Raise BadInput if settings contradict one another."""
        if not self.model:
            raise BadInput("set model, the folder or hub id to start from")


@dataclass(frozen=True)
class Training(Settings):
    """Settings of the programs that train."""

    learning_rate: float = setting(
        0.0,
        low=0,
        label="Learning rate",
        help="Peak learning rate of AdamW. 0: by the number of weights: 1e-4 below 30 million, 3e-5 below 300 million, "
        "1e-5 below a billion, 3e-6 above; ten times that with lora_rank; 1e-4 for a model trained from scratch.",
    )
    warmup_fraction: float = setting(
        0.0, low=0, high=1, label="Warm-up", help="Share of all steps in which the learning rate rises from 0."
    )
    final_learning_rate_fraction: float = setting(
        0.0,
        low=0,
        high=1,
        label="Final learning rate",
        help="Share of the peak learning rate at the end of the linear decay. 1: no decay.",
    )
    weight_decay: float = setting(0.0, low=0, label="Weight decay", help="Weight decay of AdamW, on matrices only.")
    lora_rank: int = setting(
        0,
        low=0,
        label="LoRA rank",
        help="Rank of LoRA adapters, which are trained on a frozen base. 0: full training. All linear layers get one; "
        "fused experts of a mixture do not and stay frozen. Log and result.json name both.",
    )
    lora_alpha: float = setting(
        16.0, above=0, label="LoRA alpha", help="LoRA alpha: the adapter's product is scaled by alpha / rank."
    )
    gradient_checkpointing: bool = setting(
        False,
        label="Gradient checkpointing",
        help="Keep the input of each layer alone for the gradient, and compute layers again: less memory for the same "
        "results, at up to a third more time.",
    )
    max_gradient_norm: float = setting(
        1.0, above=0, label="Gradient clipping", help="Gradient clipping by global norm."
    )
    save_every: int = setting(
        50, low=1, label="Steps between saved states", help="Steps between saved states. A stop saves one too."
    )
    eval_every: int = setting(
        0,
        low=0,
        label="Steps between evaluations",
        help="Steps between evaluations on held-out data. 0: ten per run; ppo uses fewer prompts than eval_prompts in "
        "runs so short that the evaluations would cost more than a quarter of the sampling.",
    )

    def is_evaluated_after(self, step: int, steps: int) -> bool:
        """Return whether a run of `steps` steps evaluates after `step`."""
        return step % self.steps_between_evaluations(steps) == 0

    def steps_between_evaluations(self, steps: int) -> int:
        return self.eval_every or math.ceil(steps / EVALUATIONS)
