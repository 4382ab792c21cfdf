"""Settings of the program q."""
# ruff: noqa: RUF009 (setting() only makes a dataclasses.field)

from dataclasses import dataclass
from typing import Any

from training.learner.reward_terms import TERMS, check_terms
from training.learner.runtime.config.base import Training
from training.learner.runtime.fields import setting
from training.learner.runtime.jobdir import BadInput


@dataclass(frozen=True)
class QConfig(Training):
    """Settings of `q`: learn the values of tokens, and a policy, from existing completions."""

    program = "q"

    # Reward of a completion
    reward_model: str = setting("", help="Folder of a reward model. Empty: the other reward terms, or given rewards.")
    rewards: list[dict[str, Any]] = setting(
        [{"name": "reward_model"}],
        label="Reward terms",
        help="Reward terms of completions without a reward of their own, as in ppo. Empty: every row has a reward.",
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

    # Replay buffer
    buffer_completions: int = setting(
        0,
        low=0,
        label="Replay buffer",
        help="Maximum training completions in the replay buffer: the last ones of the file are kept. 0: all.",
    )
    batch_completions: int = setting(
        64, low=1, label="Completions per step", help="Completions of a step over all processes."
    )

    # Values
    value_epochs: int = setting(
        20, low=1, label="Passes for the values", help="Passes over the replay buffer to learn the values."
    )
    value_learning_rate: float = setting(
        0.0, low=0, label="Learning rate of the values", help="Peak learning rate of the values. 0: learning_rate."
    )
    gamma: float = setting(1.0, above=0, high=1, label="Discount (γ)", help="Discount γ per token.")
    td_lambda: float = setting(
        0.0,
        low=0,
        high=1,
        label="TD λ",
        help="λ of the target of Q. 0: the value of the next state; 1: the completion's reward; between: a mixture, "
        "which reaches the beginning of a long completion in fewer steps.",
    )
    state_value: str = setting(
        "expectile",
        choices=("expectile", "soft"),
        label="Value of a state",
        help="Value of a state. expectile: of the data's Q. soft: β·log mean exp(Q/β), the value of the policy that is "
        "best for reward − β·KL.",
    )
    expectile: float = setting(
        0.9, above=0, below=1, label="Expectile (τ)", help="τ of the expectile. 0.5: the mean; near 1: the best token."
    )
    bootstrap: str = setting(
        "state_value",
        choices=("state_value", "double_q"),
        label="Value of the next state",
        help="Value of the next state in the target of Q. double_q: Q of the target network for the best token of the "
        "network that learns; this token may not be in the data, see conservative_weight.",
    )
    target_decay: float = setting(
        0.99,
        low=0,
        below=1,
        label="Decay of the target network",
        help="Decay per step of the moving average of weights that is the target network.",
    )
    conservative_weight: float = setting(
        0.001,
        low=0,
        label="Conservative term",
        help="Weight of the conservative term, which lowers Q of tokens that the data does not have.",
    )

    # Policy
    policy_epochs: int = setting(
        2, low=1, label="Passes for the policy", help="Passes over the replay buffer to learn the policy."
    )
    kl_coefficient: float = setting(
        0.1,
        above=0,
        label="KL penalty",
        help="β: the likelihood of a token is weighted by exp(advantage / β). Reward per nat, as in ppo.",
    )
    max_weight: float = setting(20.0, low=1, label="Maximum weight of a token", help="Maximum of these weights.")

    # Evaluation
    eval_prompts: int = setting(
        64, low=0, label="Evaluation prompts", help="Maximum held-out prompts answered at the end. 0: none."
    )
    eval_samples: int = setting(
        4,
        low=0,
        label="Samples kept per evaluation",
        help="Maximum prompts whose completions at the start and at each evaluation of the policy go to "
        "samples_at_steps.jsonl. 0: none.",
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

    def check(self) -> None:
        super().check()
        if self.rewards:
            check_terms(self.rewards, self.reward_model)
        elif self.reward_model:
            raise BadInput("reward_model is set, but rewards has no term that uses it: leave one of them out")
        if self.pessimism and "reward_model" not in [term["name"] for term in self.rewards]:
            raise BadInput("pessimism applies to the reward model, which is not a term of rewards: set pessimism to 0")
        if self.optimum_samples == 1:
            raise BadInput("optimum_samples must be 2 or more, for an interval, or 0 for no estimate")
