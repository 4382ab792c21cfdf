"""Settings of the program best_of_n."""
# ruff: noqa: RUF009 (setting() only makes a dataclasses.field)

from dataclasses import dataclass
from typing import Any

from training.learner.reward_terms import TERMS, check_terms
from training.learner.runtime.config.base import Training
from training.learner.runtime.fields import exact_division, setting
from training.learner.runtime.jobdir import BadInput


@dataclass(frozen=True)
class BestOfNConfig(Training):
    """Settings of `best_of_n`: imitate the best of n completions that the policy wrote itself."""

    program = "best_of_n"

    reference_model: str = setting("", help="Model that KL is measured from. Empty: the initial `model`.")

    # Reward of a completion
    reward_model: str = setting("", help="Folder of a reward model. Empty: the other reward terms only.")
    rewards: list[dict[str, Any]] = setting(
        [{"name": "reward_model"}],
        label="Reward terms",
        help="Terms of a completion's reward: objects with name, weight (1) and the term's settings.",
        names=sorted(TERMS),
    )
    pessimism: float = setting(0.0, low=0, label="Pessimism", help="λ of the reward model's term, as in ppo.")
    missing_eos_penalty: float = setting(
        1.0,
        low=0,
        label="Penalty for cut-off completions",
        help="Subtracted from the reward of a truncated completion.",
    )
    score_clip: float = setting(
        0.0, low=0, label="Reward clipping", help="The summed terms are clipped to ± this. 0: no clipping."
    )

    # Picks
    iterations: int = setting(
        1,
        low=1,
        label="Iterations",
        help="Number of iterations; each samples the newest policy and imitates the best completions.",
    )
    completions_per_prompt: int = setting(
        8,
        low=2,
        label="Answers per prompt (n)",
        help="n: completions per prompt; the one with the highest reward is picked.",
    )
    prompts_per_iteration: int = setting(
        512,
        low=1,
        label="Prompts per iteration",
        help="Picks of an iteration, one per prompt. With fewer prompts, some are sampled again.",
    )
    threshold: str = setting(
        "none",
        choices=("none", "reward", "quantile"),
        label="Threshold",
        help="Picks below the threshold are not imitated. none: all are. reward: those below min_reward are not. "
        "quantile: those below the reward_quantile of the iteration's picks are not.",
    )
    min_reward: float = setting(0.0, label="Lowest reward", help="Threshold with threshold: reward.")
    reward_quantile: float = setting(
        0.25, above=0, below=1, label="Share left out", help="Share of the picks that threshold: quantile leaves out."
    )

    # Sizes
    sampling_prompts: int = setting(
        16,
        low=1,
        label="Prompts per sampling step",
        help="Prompts of a sampling step over all processes; divides prompts_per_iteration.",
    )
    epochs: int = setting(1, low=1, label="Passes over the picks", help="Passes over the picks of an iteration.")
    batch_completions: int = setting(
        32, low=1, label="Picks per step", help="Average number of picks in an imitation step over all processes."
    )

    # Evaluation
    kl_coefficient: float = setting(
        0.05,
        low=0,
        label="KL penalty of the objective",
        help="β of the objective reward − β·KL in result.json, reward per nat. It changes no training.",
    )
    eval_prompts: int = setting(
        64, low=0, label="Evaluation prompts", help="Maximum held-out prompts of an evaluation. 0: no evaluation."
    )
    eval_samples: int = setting(
        4,
        low=0,
        label="Samples kept per evaluation",
        help="Maximum prompts of an evaluation whose completions go to samples_at_steps.jsonl. 0: none.",
    )
    optimum_samples: int = setting(
        16,
        low=0,
        label="Samples for the best objective",
        help="Reference samples per prompt for the estimate of the best attainable objective. 0: none.",
    )
    optimum_prompts: int = setting(
        16, low=1, label="Prompts for the best objective", help="Maximum evaluation prompts of that estimate."
    )

    @property
    def sampling_steps(self) -> int:
        """Return the number of sampling steps of an iteration."""
        return self.prompts_per_iteration // self.sampling_prompts

    def check(self) -> None:
        super().check()
        exact_division(self.prompts_per_iteration, self.sampling_prompts, "prompts_per_iteration", "sampling_prompts")
        check_terms(self.rewards, self.reward_model)
        if self.pessimism and "reward_model" not in [term["name"] for term in self.rewards]:
            raise BadInput("pessimism applies to the reward model, which is not a term of rewards: set pessimism to 0")
        if self.optimum_samples == 1:
            raise BadInput("optimum_samples must be 2 or more, for an interval, or 0 for no estimate")
