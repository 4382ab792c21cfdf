"""Settings of the four programs: one frozen dataclass each, read from config.json and checked in one place.

Unknown keys, values of a wrong type or out of range, and sizes that do not divide are refused with one sentence
(`BadInput`). A former name of a setting is accepted for one release. Standard library only: web processes fill and
check these before a program starts.
"""
# ruff: noqa: RUF009 (setting() only makes a dataclasses.field)

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from training.learner.estimators import ALGORITHMS
from training.learner.reward_terms import TERMS, check_terms, with_current_name
from training.learner.runtime.fields import as_kind, check_fields, exact_division, setting
from training.learner.runtime.jobdir import BadInput

DTYPES = ("float32", "bfloat16")
# (number of weights below which it holds, learning rate) of full fine-tuning. From a billion weights on: Huang et al.
# 2024, whose policies, critics and reward models of 1 to 6.9 billion weights learn at 3e-6. The rate of small models is
# that of the demo; the two rates between interpolate.
LEARNING_RATES = ((30e6, 1e-4), (300e6, 3e-5), (1e9, 1e-5), (math.inf, 3e-6))
LORA_FACTOR = 10  # Schulman et al. 2025, "LoRA Without Regret": the best rate is about ten times that of full training
SMALL_MODEL = 30e6  # weights
EVALUATIONS = 10  # default number of evaluations on held-out data in a run
MAX_EVALUATION_SHARE = 0.25  # ppo: completions of these evaluations, as a share of those trained on
HEAD_LEARNING_RATE = 3e-3  # of a critic that is a linear layer on frozen states: a small, convex problem
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
    seed: int = setting(0, low=0, high=2**63 - 1, help="Seed of every random choice.")
    dtype: str = setting("float32", choices=DTYPES, help="Computing dtype. Weights that are trained stay float32.")
    max_prompt_tokens: int = setting(512, low=1, help="Maximum tokens of a rendered prompt.")
    max_completion_tokens: int = setting(256, low=1, help="Maximum tokens of a completion with its EOS token.")
    overlong_prompts: str = setting(
        "truncate",
        choices=("truncate", "refuse"),
        help="Longer prompts lose their beginning (result.json counts them), or end the program.",
    )
    micro_batch_tokens: int = setting(
        4096,
        low=1,
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
    """Settings of the programs that train: sft, reward, ppo."""

    learning_rate: float = setting(
        0.0,
        low=0,
        help="Peak learning rate of AdamW. 0: by the number of weights: 1e-4 below 30 million, 3e-5 below 300 million, "
        "1e-5 below a billion, 3e-6 above; ten times that with lora_rank; 1e-4 for a model trained from scratch.",
    )
    warmup_fraction: float = setting(
        0.0, low=0, high=1, help="Share of all steps in which the learning rate rises from 0."
    )
    final_learning_rate_fraction: float = setting(
        0.0, low=0, high=1, help="Share of the peak learning rate at the end of the linear decay. 1: no decay."
    )
    weight_decay: float = setting(0.0, low=0, help="Weight decay of AdamW, on matrices only.")
    lora_rank: int = setting(
        0,
        low=0,
        help="Rank of LoRA adapters, which are trained on a frozen base. 0: full training. All linear layers get one; "
        "fused experts of a mixture do not and stay frozen. Log and result.json name both.",
    )
    lora_alpha: float = setting(16.0, above=0, help="LoRA alpha: the adapter's product is scaled by alpha / rank.")
    max_gradient_norm: float = setting(1.0, above=0, help="Gradient clipping by global norm.")
    save_every: int = setting(50, low=1, help="Steps between saved states. A stop saves one too.")
    eval_every: int = setting(
        0,
        low=0,
        help="Steps between evaluations on held-out data. 0: ten per run; ppo uses fewer prompts than eval_prompts in "
        "runs so short that the evaluations would cost more than a quarter of the sampling.",
    )

    def is_evaluated_after(self, step: int, steps: int) -> bool:
        """Return whether a run of `steps` steps evaluates after `step`."""
        return step % self.steps_between_evaluations(steps) == 0

    def steps_between_evaluations(self, steps: int) -> int:
        return self.eval_every or math.ceil(steps / EVALUATIONS)


@dataclass(frozen=True)
class SftConfig(Training):
    """Settings of `sft`: imitate demonstrations, or train a small model on them from scratch."""

    program = "sft"

    architecture: dict[str, Any] = setting({}, help="Without model: a transformers config with its model_type.")
    vocabulary_size: int = setting(2048, low=261, help="Without model: size of the byte-level BPE vocabulary.")
    epochs: int = setting(1, low=1, help="Passes over the demonstrations.")
    batch_tokens: int = setting(16384, low=1, help="Tokens of a step over all processes, prompts included.")
    prompt_loss_weight: float = setting(
        0.0, low=0, high=1, help="Loss weight of prompt tokens; completion tokens have weight 1."
    )
    held_out_fraction: float = setting(0.0, low=0, below=1, help="Share of prompts held out for evaluation.")

    def check(self) -> None:
        if bool(self.model) == bool(self.architecture):
            raise BadInput("set either model, to fine-tune it, or architecture, to train from scratch")
        if self.architecture and not isinstance(self.architecture.get("model_type"), str):
            raise BadInput("architecture must have a model_type, for example llama")
        if self.architecture and self.lora_rank:
            raise BadInput("a model trained from scratch cannot use adapters: set lora_rank to 0")


@dataclass(frozen=True)
class RewardConfig(Training):
    """Settings of `reward`: a Bradley–Terry reward model from rankings with ties."""

    program = "reward"

    epochs: int = setting(4, low=1, help="Passes over the rankings.")
    batch_rankings: int = setting(32, low=1, help="Average number of rankings in a step over all processes.")
    tie_model: str = setting(
        "rao_kupper",
        choices=("rao_kupper", "davidson", "bradley_terry", "none"),
        help="Likelihood of ties. bradley_terry: half a win and half a loss; none: ties are left out.",
    )
    tie_share: float = setting(
        0.0, low=0, below=1, help="Probability that equally good completions are tied. 0: learned."
    )
    strict_orders: str = setting(
        "pairs", choices=("pairs", "plackett_luce"), help="Loss of rankings without ties: of pairs, or of the order."
    )
    margin: float = setting(0.0, low=0, help="Margin in nats per level of strength that the better one must lead by.")
    contrast: float = setting(
        1.0, low=0, help="Weight of preferring completions under their own prompt to the same under another prompt."
    )
    averaged_runs: int = setting(1, low=1, help="Number of trainings from one start whose weights are averaged.")
    ensemble_heads: int = setting(8, low=0, help="Bootstrapped heads that estimate uncertainty. 0 or 1: none.")
    prior_scale: float = setting(1.0, low=0, help="Scale of the fixed random priors of these heads.")

    def check(self) -> None:
        super().check()
        if self.averaged_runs > 1 and self.lora_rank:
            raise BadInput("averaged_runs must be 1 with lora_rank: averaged LoRA factors are not an average adapter")


@dataclass(frozen=True)
class PpoConfig(Training):
    """Settings of `ppo`: improve a policy against rewards while it stays close to a reference."""

    program = "ppo"

    algorithm: str = setting(
        "ppo",
        choices=tuple(ALGORITHMS),
        help="Advantage estimator: "
        + "; ".join(f"{name}: {algorithm.help}" for name, algorithm in ALGORITHMS.items())
        + ".",
    )

    # Models
    reference_model: str = setting("", help="Model that KL is measured from. Empty: the initial `model`.")
    reward_model: str = setting("", help="Folder of a reward model. Empty: the other reward terms only.")
    critic_model: str = setting("", help="ppo: initial critic. Empty: the reward model, else `model`.")
    critic: str = setting(
        "separate",
        choices=("separate", "shared", "reward_model"),
        help="ppo: separate: a model of its own. shared: a head on the policy's trunk. reward_model: a head on the "
        "reward model's frozen trunk, which costs almost nothing.",
    )

    # Reward of a completion
    rewards: list[dict[str, Any]] = setting(
        [{"name": "reward_model"}],
        help=f"Reward terms: objects with name, weight (1) and the term's settings. Terms: {', '.join(sorted(TERMS))}.",
    )
    missing_eos_penalty: float = setting(1.0, low=0, help="Subtracted from the reward of a truncated completion.")
    score_clip: float = setting(0.0, low=0, help="The summed terms are clipped to ± this. 0: no clipping.")
    whiten_rewards: bool = setting(False, help="ppo: divide rewards by their batch deviation, keeping the mean.")

    # KL divergence from the reference
    kl_coefficient: float = setting(0.05, low=0, help="KL coefficient β: reward per nat.")
    kl_placement: str = setting(
        "reward", choices=("reward", "loss"), help="KL as log-ratios in the reward, or as k3 in the loss."
    )
    kl_target: float = setting(0.0, low=0, help="Target of an adaptive KL coefficient, nats per completion. 0: fixed.")
    kl_horizon: int = setting(10_000, low=1, help="Horizon of the adaptive KL coefficient in episodes.")

    # Advantages and losses
    gamma: float = setting(1.0, above=0, high=1, help="ppo: discount γ per token.")
    gae_lambda: float = setting(0.95, low=0, high=1, help="ppo: GAE λ. 0: one-step advantages, 1: returns − values.")
    clip_ratio: float = setting(0.2, above=0, help="PPO clip range ε: the probability ratio is clipped to 1 ± ε.")
    dual_clip: float = setting(
        0.0, low=0, help="Dual-clip c > 1: the objective of a negative advantage is at least c·advantage. 0: none."
    )
    baseline_decay: float = setting(
        0.0, low=0, below=1, help="reinforce: decay of the moving baseline. 0: the batch mean."
    )
    clip_value: float = setting(
        0.2, low=0, help="ppo: clip range of values around the old values in the value loss. 0: no clipping."
    )
    entropy_coefficient: float = setting(0.0, low=0, help="Entropy bonus per nat.")
    max_update_kl: float = setting(
        0.0, low=0, help="KL from the sampling policy, nats per token, that ends the updates of a batch. 0: no limit."
    )
    value_coefficient: float = setting(0.1, above=0, help="ppo: weight of the value loss of a shared critic.")
    critic_learning_rate: float = setting(
        0.0,
        low=0,
        help="ppo: peak learning rate of the critic. 0: learning_rate (by the critic's own number of weights if that "
        "is 0), or 0.003 for a head on the reward model's trunk.",
    )
    adam_epsilon: float = setting(
        0.0,
        low=0,
        help="Adam ε. 0: 1e-5 below 30 million weights, as in the original implementation, 1e-8 above, as in PyTorch.",
    )

    # Sizes
    steps: int = setting(100, low=1, help="Number of batches, each sampled from the newest policy.")
    batch_episodes: int = setting(64, low=1, help="Completions of a batch over all processes.")
    completions_per_prompt: int = setting(1, low=1, help="Completions of one prompt; divides batch_episodes.")
    epochs: int = setting(4, low=1, help="Passes over a batch.")
    minibatches: int = setting(1, low=1, help="Optimizer steps of a pass; divides batch_episodes.")
    temperature: float = setting(1.0, above=0, help="Divides the logits in sampling, training and the KL alike.")
    eval_prompts: int = setting(64, low=0, help="Maximum held-out prompts of an evaluation. 0: no evaluation.")
    optimum_samples: int = setting(
        16, low=0, help="Reference samples per prompt for the estimate of the best attainable objective. 0: none."
    )
    optimum_prompts: int = setting(16, low=1, help="Maximum evaluation prompts of that estimate.")

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
        if self.critic != "separate" and self.critic_model:
            raise BadInput("only a separate critic starts from critic_model: leave it out, or set critic to separate")
        if algorithm.needs_critic and self.critic == "reward_model" and not self.reward_model:
            raise BadInput("critic is reward_model, but there is no reward_model: set critic to separate or shared")
        check_terms(self.rewards, self.reward_model)
        if self.kl_target and not self.kl_coefficient:
            raise BadInput("kl_target multiplies kl_coefficient, and 0 stays 0: set kl_coefficient above 0")
        if self.dual_clip and self.dual_clip <= 1:
            raise BadInput("dual_clip must be above 1, or 0 for none")
        if self.optimum_samples == 1:
            raise BadInput("optimum_samples must be 2 or more, for an interval, or 0 for no estimate")


@dataclass(frozen=True)
class SampleConfig(Settings):
    """Settings of `sample`: completions of given prompts, with scores."""

    program = "sample"

    reward_model: str = setting("", help="Folder of a reward model that scores each completion.")
    rewards: list[dict[str, Any]] = setting(
        [], help="Reward terms of the score, as in ppo. Empty: the reward model alone, or no scores without one."
    )
    completions_per_prompt: int = setting(1, low=1, help="Completions of each prompt.")
    temperature: float = setting(1.0, low=0, help="Divides the logits. 0: greedy decoding.")
    top_p: float = setting(1.0, above=0, high=1, help="Nucleus sampling: the most likely tokens of this probability.")
    batch_completions: int = setting(64, low=1, help="Completions that one process decodes together.")

    def check(self) -> None:
        super().check()
        if self.rewards:
            check_terms(self.rewards, self.reward_model)


CONFIGS: dict[str, type[Settings]] = {kind.program: kind for kind in (SftConfig, RewardConfig, PpoConfig, SampleConfig)}
