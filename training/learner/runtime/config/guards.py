"""Settings of the program guards."""
# ruff: noqa: RUF009 (setting() only makes a dataclasses.field)

from dataclasses import dataclass
from typing import Any

from training.learner.reward_terms import METRICS, check_metrics
from training.learner.runtime.config.sample import Sampling
from training.learner.runtime.fields import setting
from training.learner.runtime.jobdir import BadInput

GUARD_METRICS = ("exact_match", "token_f1", "rouge_l", "bleu")


@dataclass(frozen=True)
class GuardsConfig(Sampling):
    """Settings of `guards`: figures of a policy and of the checkpoint that it was trained from, compared by prompt."""

    program = "guards"

    base_model: str = setting("", help="Checkpoint that the policy was trained from, which answers the prompts too.")
    metrics: list[dict[str, Any]] = setting(
        [{"name": name} for name in GUARD_METRICS],
        label="Text metrics",
        names=tuple(METRICS),
        help="Text metrics on prompts with references, each an object with a name and the settings of the metric.",
    )
    max_text_tokens: int = setting(
        1024, low=2, label="Tokens of a guard text", help="Tokens of a guard text that are read, from its beginning."
    )

    def check(self) -> None:
        super().check()
        check_metrics(self.metrics)
        if self.top_p < 1 or self.temperature == 0:
            raise BadInput(
                "kl_from_base is estimated from samples of the whole distribution: set top_p to 1 and temperature "
                "above 0"
            )
