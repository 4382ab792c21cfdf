"""Settings of the program sft."""
# ruff: noqa: RUF009 (setting() only makes a dataclasses.field)

from dataclasses import dataclass
from typing import Any

from training.learner.runtime.config.base import Training
from training.learner.runtime.fields import setting
from training.learner.runtime.jobdir import BadInput


@dataclass(frozen=True)
class SftConfig(Training):
    """Settings of `sft`: imitate demonstrations, or train a small model on them from scratch."""

    program = "sft"

    architecture: dict[str, Any] = setting({}, help="Without model: a transformers config with its model_type.")
    vocabulary_size: int = setting(2048, low=261, help="Without model: size of the byte-level BPE vocabulary.")
    epochs: int = setting(1, low=1, label="Passes over the demonstrations", help="Passes over the demonstrations.")
    batch_tokens: int = setting(
        16384, low=1, label="Tokens per step", help="Tokens of a step over all processes, prompts included."
    )
    prompt_loss_weight: float = setting(
        0.0,
        low=0,
        high=1,
        label="Weight of prompt tokens",
        help="Loss weight of prompt tokens; completion tokens have weight 1.",
    )
    held_out_fraction: float = setting(
        0.0, low=0, below=1, label="Share held out", help="Share of prompts held out for evaluation."
    )
    eval_samples: int = setting(
        4,
        low=0,
        label="Samples kept per evaluation",
        help="Maximum prompts whose completions at the start and at each evaluation go to samples_at_steps.jsonl. "
        "0: none.",
    )

    def check(self) -> None:
        if bool(self.model) == bool(self.architecture):
            raise BadInput("set either model, to fine-tune it, or architecture, to train from scratch")
        if self.architecture and not isinstance(self.architecture.get("model_type"), str):
            raise BadInput("architecture must have a model_type, for example llama")
        if self.architecture and self.lora_rank:
            raise BadInput("a model trained from scratch cannot use adapters: set lora_rank to 0")
