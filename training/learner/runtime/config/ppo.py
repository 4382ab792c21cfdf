"""Settings of the program ppo."""
# ruff: noqa: RUF009 (setting() only makes a dataclasses.field)

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.learner.environments import ENVIRONMENTS, HELP, SINGLE_TURN, check_environment
from training.learner.estimators import ALGORITHMS
from training.learner.reward_terms import TERMS, check_terms
from training.learner.runtime.config.base import Training
from training.learner.runtime.fields import exact_division, setting
from training.learner.runtime.jobdir import BadInput

MAX_EVALUATION_SHARE = 0.25  # completions of evaluations during training, as a share of those trained on
HEAD_LEARNING_RATE = 3e-3  # of a critic that is a linear layer on frozen states: a small, convex problem


@dataclass(frozen=True)
class PpoConfig(Training):
    """Settings of `ppo`: improve a policy against rewards while it stays close to a reference."""

    program = "ppo"

    algorithm: str = setting(
        "ppo",
        choices=tuple(ALGORITHMS),
        label="Algorithm",
        help="Estimator of the advantages.",
        meanings={name: algorithm.help for name, algorithm in ALGORITHMS.items()},
    )

    # Models
    reference_model: str = setting("", help="Model that KL is measured from. Empty: the initial `model`.")
    reward_model: str = setting("", help="Folder of a reward model. Empty: the other reward terms only.")
    critic_model: str = setting(
        "",
        help="ppo: initial critic. separate: a model, such as the `critic` of an earlier run or a reward model; empty: "
        "the reward model, else `model`. shared: the `critic` of an earlier run; empty: values are 0 at first.",
    )
    critic: str = setting(
        "separate",
        choices=("separate", "shared", "reward_model"),
        label="Critic",
        help="ppo: separate: a model of its own. shared: a head on the policy's trunk. reward_model: a head on the "
        "reward model's frozen trunk, which costs almost nothing.",
    )
    keep_critic: bool = setting(
        False, help="ppo: whether a separate or shared critic is written to `critic`, for critic_model of a later run."
    )

    # Episodes
    environment: dict[str, Any] = setting(
        SINGLE_TURN,
        label="Environment",
        help=HELP,
        names=sorted(ENVIRONMENTS),
    )

    # Reward of a completion
    rewards: list[dict[str, Any]] = setting(
        [{"name": "reward_model"}],
        label="Reward terms",
        help="Terms of a completion's reward: objects with name, weight (1) and the term's settings.",
        names=sorted(TERMS),
    )
    pessimism: float = setting(
        0.0,
        low=0,
        label="Pessimism",
        help="λ of the reward model's term, which is mean − λ·deviation over the heads of its ensemble. 0: the mean.",
    )
    missing_eos_penalty: float = setting(
        1.0,
        low=0,
        label="Penalty for cut-off completions",
        help="Subtracted from the reward of a truncated completion.",
    )
    score_clip: float = setting(
        0.0, low=0, label="Reward clipping", help="The summed terms are clipped to ± this. 0: no clipping."
    )
    whiten_rewards: bool = setting(
        False,
        label="Divide rewards by their deviation",
        help="ppo: divide rewards by their batch deviation, keeping the mean.",
    )

    # KL divergence from the reference
    kl_coefficient: float = setting(0.05, low=0, label="KL penalty", help="KL coefficient β: reward per nat.")
    kl_placement: str = setting(
        "reward",
        choices=("reward", "loss"),
        label="Place of the KL penalty",
        help="KL as log-ratios in the reward, or as k3 in the loss.",
    )
    kl_target: float = setting(
        0.0, low=0, label="KL target", help="Target of an adaptive KL coefficient, nats per completion. 0: fixed."
    )
    kl_horizon: int = setting(
        10_000, low=1, label="KL horizon", help="Horizon of the adaptive KL coefficient in episodes."
    )

    # Advantages and losses
    gamma: float = setting(1.0, above=0, high=1, label="Discount (γ)", help="ppo: discount γ per token.")
    gae_lambda: float = setting(
        0.95, low=0, high=1, label="GAE λ", help="ppo: GAE λ. 0: one-step advantages, 1: returns − values."
    )
    clip_ratio: float = setting(
        0.2, above=0, label="Clip range (ε)", help="PPO clip range ε: the probability ratio is clipped to 1 ± ε."
    )
    clip_ratio_high: float = setting(
        0.0,
        low=0,
        label="Upper clip range",
        help="Clip-higher: the ratio is clipped to 1 + this above, which lets unlikely tokens become likelier. 0: ε.",
    )
    dual_clip: float = setting(
        0.0,
        low=0,
        label="Dual clip",
        help="Dual-clip c > 1: the objective of a negative advantage is at least c·advantage. 0: none.",
    )
    baseline_decay: float = setting(
        0.0,
        low=0,
        below=1,
        label="Decay of the baseline",
        help="reinforce: decay of the moving baseline. 0: the batch mean.",
    )
    clip_value: float = setting(
        0.2,
        low=0,
        label="Clip range of values",
        help="ppo: clip range of values around the old values in the value loss. 0: no clipping.",
    )
    entropy_coefficient: float = setting(0.0, low=0, label="Entropy bonus", help="Entropy bonus per nat.")
    ptx_coefficient: float = setting(
        0.0,
        low=0,
        label="Weight of imitation",
        help="Weight of imitation in the policy's loss (PPO-ptx): every optimizer step adds this times the mean loss, "
        "nats per token, of as many rows of demonstrations.jsonl as it has episodes. 0: none.",
    )
    max_update_kl: float = setting(
        0.0,
        low=0,
        label="Maximum KL of an update",
        help="KL from the sampling policy, nats per token, that ends the updates of a batch. 0: no limit.",
    )
    value_coefficient: float = setting(
        0.1, above=0, label="Weight of the value loss", help="ppo: weight of the value loss of a shared critic."
    )
    critic_learning_rate: float = setting(
        0.0,
        low=0,
        label="Critic learning rate",
        help="ppo: peak learning rate of the critic. 0: learning_rate (by the critic's own number of weights if that "
        "is 0), or 0.003 for a head on the reward model's trunk.",
    )
    adam_epsilon: float = setting(
        0.0,
        low=0,
        label="Adam ε",
        help="Adam ε. 0: 1e-5 below 30 million weights, as in the original implementation, 1e-8 above, as in PyTorch.",
    )

    # Sizes
    steps: int = setting(
        100, low=1, label="Policy steps", help="Number of batches, each sampled from the newest policy."
    )
    batch_episodes: int = setting(
        64, low=1, label="Completions per step", help="Completions of a batch over all processes."
    )
    completions_per_prompt: int = setting(
        1, low=1, label="Completions per prompt", help="Completions of one prompt; divides batch_episodes."
    )
    epochs: int = setting(4, low=1, label="Passes over a batch", help="Passes over a batch.")
    minibatches: int = setting(
        1, low=1, label="Optimizer steps per pass", help="Optimizer steps of a pass; divides batch_episodes."
    )
    temperature: float = setting(
        1.0, above=0, label="Temperature", help="Divides the logits in sampling, training and the KL alike."
    )
    eval_prompts: int = setting(
        64, low=0, label="Evaluation prompts", help="Maximum held-out prompts of an evaluation. 0: no evaluation."
    )
    eval_samples: int = setting(
        4,
        low=0,
        label="Samples kept per evaluation",
        help="Maximum prompts whose completions at the start and at each evaluation go to samples_at_steps.jsonl. "
        "0: none.",
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

    def curve_prompts(self) -> int:
        """Return the maximum number of prompts of an evaluation during training; the last one uses eval_prompts.

        Unless eval_every is set, these evaluations sample at most a quarter of the completions trained on.
        """
        if self.eval_every:
            return self.eval_prompts
        sampled = self.steps_between_evaluations(self.steps) * self.batch_episodes
        return min(self.eval_prompts, max(int(sampled * MAX_EVALUATION_SHARE), 1))

    def check(self) -> None:
        super().check()
        algorithm = ALGORITHMS[self.algorithm]
        exact_division(self.batch_episodes, self.minibatches, "batch_episodes", "minibatches")
        exact_division(self.batch_episodes, self.completions_per_prompt, "batch_episodes", "completions_per_prompt")
        if self.completions_per_prompt < algorithm.min_group_size:
            raise BadInput(
                f"{self.algorithm} compares completions of one prompt: "
                f"set completions_per_prompt to {algorithm.min_group_size} or more"
            )
        if self.critic == "reward_model" and self.critic_model:
            raise BadInput(
                "only a separate or shared critic starts from critic_model: leave it out, or set critic to separate"
            )
        if self.keep_critic:
            check_kept_critic(self.to_json())
        if algorithm.needs_critic and self.critic == "reward_model" and not self.reward_model:
            raise BadInput("critic is reward_model, but there is no reward_model: set critic to separate or shared")
        check_environment(self.environment)
        if self.rewards or self.environment == SINGLE_TURN:
            check_terms(self.rewards, self.reward_model)
        elif self.reward_model:
            raise BadInput("reward_model is set, but rewards is empty: add the term reward_model, or leave it out")
        if self.pessimism and "reward_model" not in [term["name"] for term in self.rewards]:
            raise BadInput("pessimism applies to the reward model, which is not a term of rewards: set pessimism to 0")
        if self.kl_target and not self.kl_coefficient:
            raise BadInput("kl_target multiplies kl_coefficient, and 0 stays 0: set kl_coefficient above 0")
        if self.clip_ratio_high and self.clip_ratio_high < self.clip_ratio:
            raise BadInput(
                "clip_ratio_high is below clip_ratio: set it to clip_ratio or more, or to 0 for the same range"
            )
        if self.dual_clip and self.dual_clip <= 1:
            raise BadInput("dual_clip must be above 1, or 0 for none")
        if self.optimum_samples == 1:
            raise BadInput("optimum_samples must be 2 or more, for an interval, or 0 for no estimate")


def check_kept_critic(values: Mapping[str, Any]) -> None:
    """Raise BadInput unless settings of ppo, which may be unchecked, have a critic that a later run can start from."""
    algorithm = ALGORITHMS.get(str(values["algorithm"]))
    if algorithm is not None and not algorithm.needs_critic:
        raise BadInput(f"the algorithm {values['algorithm']} has no critic that a later run could start from")
    if values["critic"] == "reward_model":
        raise BadInput(
            "a critic on the reward model's trunk is of no use with another reward model: "
            "set critic to separate or shared to keep it for a later run"
        )
    if values["lora_rank"] and values["critic"] == "separate":
        raise BadInput("with lora_rank a separate critic has adapters for this model only: set critic to shared")
