"""Settings of the program sample, and those that it shares with evaluate."""
# ruff: noqa: RUF009 (setting() only makes a dataclasses.field)

from dataclasses import dataclass
from typing import Any

from training.learner.environments import ENVIRONMENTS, HELP, SINGLE_TURN, check_environment
from training.learner.reward_terms import TERMS, check_terms
from training.learner.runtime.config.base import Settings
from training.learner.runtime.fields import setting
from training.learner.runtime.jobdir import BadInput


@dataclass(frozen=True)
class Sampling(Settings):
    """Settings of the programs that write completions of given prompts and train nothing."""

    reward_model: str = setting("", help="Folder of a reward model that scores each completion.")
    root_model: str = setting(
        "", help="Imported model that result.json's kl_from_root is measured from, on the samples. Empty: not measured."
    )
    environment: dict[str, Any] = setting(
        SINGLE_TURN,
        label="Environment",
        help=HELP,
        names=sorted(ENVIRONMENTS),
    )
    completions_per_prompt: int = setting(1, low=1, label="Completions per prompt", help="Completions of each prompt.")
    temperature: float = setting(1.0, low=0, label="Temperature", help="Divides the logits. 0: greedy decoding.")
    top_p: float = setting(
        1.0, above=0, high=1, label="Top-p", help="Nucleus sampling: the most likely tokens of this probability."
    )
    batch_completions: int = setting(
        64, low=1, label="Completions decoded together", help="Completions that one process decodes together."
    )

    def check(self) -> None:
        super().check()
        check_environment(self.environment)
        if self.root_model and (self.top_p < 1 or self.temperature == 0):
            raise BadInput(
                "kl_from_root is estimated from samples of the whole distribution: with root_model, set top_p to 1 and "
                "temperature above 0"
            )


@dataclass(frozen=True)
class SampleConfig(Sampling):
    """Settings of `sample`: completions of given prompts, with scores."""

    program = "sample"

    rewards: list[dict[str, Any]] = setting(
        [],
        label="Reward terms",
        names=sorted(TERMS),
        help="Reward terms of the score, as in ppo. Empty: the reward model alone, or no scores without one.",
    )

    def check(self) -> None:
        super().check()
        if self.rewards:
            check_terms(self.rewards, self.reward_model)
