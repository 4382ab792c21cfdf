"""Settings of the program evaluate."""
# ruff: noqa: RUF009 (setting() only makes a dataclasses.field)

from dataclasses import dataclass
from typing import Any

from training.learner.reward_terms import METRICS, check_metrics
from training.learner.runtime.config.sample import Sampling
from training.learner.runtime.fields import setting


@dataclass(frozen=True)
class EvaluateConfig(Sampling):
    """Settings of `evaluate`: figures of a policy's completions of given prompts."""

    program = "evaluate"

    metrics: list[dict[str, Any]] = setting(
        [{"name": name} for name in METRICS],
        label="Text metrics",
        help="Text metrics that compare completions with the references of their prompts, each an object with a name "
        "and the settings of the metric.",
        names=tuple(METRICS),
    )

    def check(self) -> None:
        super().check()
        check_metrics(self.metrics)
