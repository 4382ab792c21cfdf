"""The settings of the four programs: one frozen dataclass each, read from config.json and checked in one place.

Unknown keys, values of a wrong type or out of range, and sizes that do not divide are refused with one sentence
(`BadInput`). Standard library only: the web process fills and checks these before a program ever starts.
"""
# ruff: noqa: RUF009 (setting() only makes a dataclasses.field)

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from training.learner.runtime.jobdir import BadInput

# Reward terms that compare a text with references: those of text_metrics.py, which web processes do not import.
# By name: the settings of their own, each with its type or its choices.
REFERENCE_METRICS: dict[str, dict[str, Any]] = {
    "bleu": {"tokenize": ("13a", "intl", "zh", "char", "none")},
    "exact_match": {},
    "rouge_l": {"use_stemmer": bool},
    "similarity": {},
    "token_f1": {},
}
# All reward terms: these, and those of rewards.py.
TERMS = REFERENCE_METRICS | {
    "length": {"target": float},
    "missing_end": {},
    "python": {"function": str},
    "reward_model": {},
}
DTYPES = ("float32", "bfloat16")
# Of full fine-tuning, for models of fewer weights than this. From a billion on: Huang et al. 2024, whose policies,
# critics and reward models of 1 to 6.9 billion weights learn at 3e-6. The rate of small models is our demo's, and the
# two between are steps from one to the other.
LEARNING_RATES = ((30e6, 1e-4), (300e6, 3e-5), (1e9, 1e-5), (math.inf, 3e-6))
LORA_FACTOR = 10  # Schulman et al. 2025, "LoRA Without Regret": the best rate is about ten times that without adapters
SMALL_MODEL = 30e6  # weights
EVALUATIONS = 10  # of a run on held-out data, unless somebody says how often
EVALUATED_SHARE = 0.25  # ppo: completions of these evaluations, as a share of those learned from, at most
HEAD_LEARNING_RATE = 3e-3  # of a critic that is a linear layer on fixed states: its problem is convex, and small


def setting(default: Any, **limits: Any) -> Any:
    """A field with its default and limits: `low`/`high` (inclusive), `above`/`below` (exclusive), `choices`."""
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=limits)
    return dataclasses.field(default=default, metadata=limits)


@dataclass(frozen=True)
class Settings:
    """What all programs have in common."""

    program: ClassVar[str]

    model: str = ""  # a Hugging Face folder or hub id to start from
    seed: int = setting(0, low=0, high=2**63 - 1)  # of every random choice
    dtype: str = setting("float32", choices=DTYPES)  # of the computation; weights that learn stay float32
    max_prompt_tokens: int = setting(512, low=1)  # tokens of a rendered prompt
    max_completion_tokens: int = setting(256, low=1)  # tokens of a completion, its end token included
    overlong_prompts: str = setting("truncate", choices=("truncate", "refuse"))  # from the left; counted either way
    micro_batch_tokens: int = setting(4096, low=1)  # tokens that attention holds in one forward
    # pass of one process, copies of a prompt beside its completions and padding included; never less than a row

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Settings from config.json's object. Raises BadInput with one sentence."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise BadInput(f"unknown setting {unknown[0]!r} for {cls.program}")
        kinds = typing.get_type_hints(cls)
        return cls(**{name: as_kind(name, value, kinds[name]) for name, value in values.items()})

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_limits(field.name, getattr(self, field.name), field.metadata)
        self.check()

    def check(self) -> None:
        """What must hold between settings. Raises BadInput."""
        if not self.model:
            raise BadInput("set model, the folder or hub id to start from")


@dataclass(frozen=True)
class Training(Settings):
    """What the three programs that learn have in common."""

    learning_rate: float = setting(0.0, low=0)  # Adam's step size at its highest; 0: by the model's number of weights,
    # 1e-4 below 30 million, 3e-5 below 300 million, 1e-5 below a billion, 3e-6 from there on; ten times that with
    # lora_rank; 1e-4 for a model that learns from nothing
    warmup_fraction: float = setting(0.0, low=0, high=1)  # of all steps, in which the learning rate rises from 0
    final_learning_rate_fraction: float = setting(0.0, low=0, high=1)  # what the linear decay ends at; 1: no decay
    weight_decay: float = setting(0.0, low=0)  # AdamW's, on matrices only
    lora_rank: int = setting(0, low=0)  # of low-rank adapters on a frozen base, which learn in its place; 0: none; all
    # linear layers have one, fused experts of a mixture do not and stay frozen: log and result.json name both
    lora_alpha: float = setting(16.0, above=0)  # what an adapter's product is multiplied by, times its rank
    max_gradient_norm: float = setting(1.0, above=0)  # the gradient is scaled down to this 2-norm
    save_every: int = setting(50, low=1)  # steps between saved states; a stop saves one too
    eval_every: int = setting(0, low=0)  # steps between evaluations on held-out data; 0: ten a run, by ppo on fewer
    # prompts than eval_prompts in a run so short that they would cost more than a quarter of its sampling

    def is_evaluated_after(self, step: int, steps: int) -> bool:
        """Whether a run of so many steps looks at held-out data after this one."""
        return step % self.steps_between_evaluations(steps) == 0

    def steps_between_evaluations(self, steps: int) -> int:
        return self.eval_every or math.ceil(steps / EVALUATIONS)


@dataclass(frozen=True)
class SftConfig(Training):
    """`sft`: imitate demonstrations, or learn a small model from nothing but them."""

    program = "sft"

    architecture: dict[str, Any] = setting({})  # without `model`: a transformers config with its model_type
    vocabulary_size: int = setting(2048, low=261)  # without `model`: of the byte-level BPE learned from the data
    epochs: int = setting(1, low=1)  # passes over the demonstrations
    batch_tokens: int = setting(16384, low=1)  # tokens in a step, prompts included, over all processes
    prompt_loss_weight: float = setting(0.0, low=0, high=1)  # of prompt tokens beside completion tokens (weight 1)
    held_out_fraction: float = setting(0.0, low=0, below=1)  # of demonstrations, by prompt, kept for evaluation

    def check(self) -> None:
        if bool(self.model) == bool(self.architecture):
            raise BadInput("set either model, to fine-tune it, or architecture, to train one from nothing")
        if self.architecture and not isinstance(self.architecture.get("model_type"), str):
            raise BadInput("architecture must name its model_type, for example llama")
        if self.architecture and self.lora_rank:
            raise BadInput("a model that learns from nothing cannot learn by adapters: set lora_rank to 0")


@dataclass(frozen=True)
class RewardConfig(Training):
    """`reward`: a Bradley–Terry reward model from rankings with ties."""

    program = "reward"

    epochs: int = setting(4, low=1)  # passes over the rankings
    batch_rankings: int = setting(32, low=1)  # rankings in a step, on average, over all processes
    tie_model: str = setting("rao_kupper", choices=("rao_kupper", "davidson", "bradley_terry", "none"))  # how ties
    # enter the loss; bradley_terry: as half a win and half a loss; none: they are left out
    tie_share: float = setting(0.0, low=0, below=1)  # of equally good completions called a tie; 0: learned
    strict_orders: str = setting("pairs", choices=("pairs", "plackett_luce"))  # how rankings without ties enter it
    margin: float = setting(0.0, low=0)  # nats by which the better of a pair must lead, per level of strength
    contrast: float = setting(1.0, low=0)  # weight of preferring completions under their own prompt to under another
    averaged_runs: int = setting(1, low=1)  # trainings from one start whose weights are averaged in the end
    ensemble_heads: int = setting(8, low=0)  # bootstrapped heads that say how sure a score is; 0 or 1: none
    prior_scale: float = setting(1.0, low=0)  # of their fixed random priors

    def check(self) -> None:
        super().check()
        if self.averaged_runs > 1 and self.lora_rank:
            raise BadInput("averaged_runs must be 1 with lora_rank: the mean of two adapters' factors is no adapter")


@dataclass(frozen=True)
class PpoConfig(Training):
    """`ppo`: improve a policy against rewards while it stays close to a reference."""

    program = "ppo"

    algorithm: str = setting("ppo", choices=("ppo", "rloo", "grpo", "reinforce"))  # where advantages come from

    # the models
    reference_model: str = ""  # what KL is measured from; empty: `model` as it was at the start
    reward_model: str = ""  # folder of a reward model; empty: the other reward terms only
    critic_model: str = ""  # ppo: what the critic starts from; empty: the reward model, or else `model`

    critic: str = setting("separate", choices=("separate", "shared", "reward_model"))  # ppo: a model of its own; a head
    # on the policy's trunk; or one on the reward model's, which does not learn, so that a critic costs next to nothing

    # the reward of a completion
    rewards: list[dict[str, Any]] = setting([{"name": "reward_model"}])  # terms: each a name, a weight (1), and
    # settings of its own; reward_model, exact_match, token_f1, rouge_l, bleu, similarity, length, missing_end, python
    missing_end_penalty: float = setting(1.0, low=0)  # taken from the reward of a completion that was cut off
    score_clip: float = setting(0.0, low=0)  # the summed terms are cut to ± this; 0: not at all
    whiten_rewards: bool = False  # ppo: divide rewards by their deviation in the batch, keeping their mean

    # the KL divergence to the reference
    kl_coefficient: float = setting(0.05, low=0)  # beta: reward given up per nat
    kl_placement: str = setting("reward", choices=("reward", "loss"))  # log-ratios in the reward, or k3 in the loss
    kl_target: float = setting(0.0, low=0)  # nats a completion that an adaptive coefficient steers to; 0: fixed
    kl_horizon: int = setting(10_000, low=1)  # episodes over which the adaptive coefficient moves

    # advantages and losses
    gamma: float = setting(1.0, above=0, high=1)  # ppo: discount a token
    gae_lambda: float = setting(0.95, low=0, high=1)  # ppo; 0: one-step advantages, 1: returns minus values
    clip_ratio: float = setting(0.2, above=0)  # the policy's ratio earns nothing outside 1 ± this
    dual_clip: float = setting(0.0, low=0)  # lower bound c > 1 of a bad token's objective, as c·advantage; 0: none
    baseline_decay: float = setting(0.0, low=0, below=1)  # reinforce: of its moving baseline; 0: the batch's mean
    clip_value: float = setting(0.2, low=0)  # ppo: how far a value may move from the old one unpunished; 0: no limit
    entropy_coefficient: float = setting(0.0, low=0)  # bonus a nat of the policy's entropy
    max_update_kl: float = setting(0.0, low=0)  # nats a token away from the old policy end a batch's updates; 0: none
    value_coefficient: float = setting(0.1, above=0)  # ppo: weight of a shared critic's loss beside the policy's
    critic_learning_rate: float = setting(0.0, low=0)  # ppo: at its highest; 0: learning_rate (by the critic's own
    # weights where that is 0), or 0.003 for a head on the reward model's trunk
    adam_epsilon: float = setting(0.0, low=0)  # 0: 1e-5 below 30 million weights, as in the original code, and 1e-8, as
    # in PyTorch, for larger models, whose gradients of single weights are smaller

    # sizes
    steps: int = setting(100, low=1)  # batches of episodes, each sampled from the newest policy
    batch_episodes: int = setting(64, low=1)  # completions in a batch, over all processes
    completions_per_prompt: int = setting(1, low=1)  # of them for one prompt; divides batch_episodes
    epochs: int = setting(4, low=1)  # passes over a batch
    minibatches: int = setting(1, low=1)  # optimiser steps in a pass; divides batch_episodes
    temperature: float = setting(1.0, above=0)  # divides the logits when sampling, training and comparing alike
    eval_prompts: int = setting(64, low=0)  # held-out prompts in an evaluation at most; 0: no evaluation
    optimum_samples: int = setting(16, low=0)  # of the reference for a prompt, to estimate the best attainable; 0: none
    optimum_prompts: int = setting(16, low=1)  # of those evaluated on, in that estimate at most

    def curve_prompts(self) -> int:
        """Return how many prompts an evaluation between two steps takes, at most; the last one takes eval_prompts.

        Unless eval_every is set, their completions are no more than a quarter of those sampled to learn from.
        """
        if self.eval_every:
            return self.eval_prompts
        sampled = self.steps_between_evaluations(self.steps) * self.batch_episodes
        return min(self.eval_prompts, max(int(sampled * EVALUATED_SHARE), 1))

    def check(self) -> None:
        super().check()
        exact_division(self.batch_episodes, self.minibatches, "batch_episodes", "minibatches")
        exact_division(self.batch_episodes, self.completions_per_prompt, "batch_episodes", "completions_per_prompt")
        if self.algorithm in ("rloo", "grpo") and self.completions_per_prompt < 2:
            raise BadInput(
                f"{self.algorithm} compares completions of one prompt: set completions_per_prompt to 2 or more"
            )
        if self.critic != "separate" and self.critic_model:
            raise BadInput("only a separate critic starts from critic_model: leave it out, or set critic to separate")
        if self.algorithm == "ppo" and self.critic == "reward_model" and not self.reward_model:
            raise BadInput("there is no reward model for the critic to be a head on: set critic to separate or shared")
        check_rewards(self.rewards, self.reward_model)
        if self.kl_target and not self.kl_coefficient:
            raise BadInput("kl_target multiplies kl_coefficient, and 0 stays 0: set kl_coefficient above 0")
        if self.dual_clip and self.dual_clip <= 1:
            raise BadInput("dual_clip must be above 1, or 0 for none")
        if self.optimum_samples == 1:
            raise BadInput("optimum_samples must be 2 or more, for an interval, or 0 for no estimate")


@dataclass(frozen=True)
class SampleConfig(Settings):
    """`sample`: completions of given prompts, scored."""

    program = "sample"

    reward_model: str = ""  # folder of a reward model that scores each completion
    rewards: list[dict[str, Any]] = setting([])  # terms whose weighted sum is the score, as ppo has them; none: the
    # reward model alone, and without it there are no scores
    completions_per_prompt: int = setting(1, low=1)  # that are told apart by their index
    temperature: float = setting(1.0, low=0)  # divides the logits; 0: the likeliest token always
    top_p: float = setting(1.0, above=0, high=1)  # sample among the likeliest tokens that hold this probability
    batch_completions: int = setting(64, low=1)  # completions written at once by one process

    def check(self) -> None:
        super().check()
        if self.rewards:
            check_rewards(self.rewards, self.reward_model)


def as_kind(name: str, value: Any, kind: Any) -> Any:
    """The value as the field's type: an int stands for a float, nothing else is converted. Raises BadInput."""
    origin = typing.get_origin(kind) or kind
    if origin is types.UnionType:
        origin = typing.get_args(kind)
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, origin) or (isinstance(value, bool) and origin is not bool):
        raise BadInput(f"{name} must be {KIND_NAMES.get(origin, 'of another type')}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{name} must be finite, not {value!r}")
    return value


KIND_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", list: "a list",
              dict: "an object"}  # fmt: skip


def check_limits(name: str, value: Any, limits: typing.Mapping[str, Any]) -> None:
    """Raises BadInput when the value is outside the field's limits."""
    if "choices" in limits and value not in limits["choices"]:
        raise BadInput(f"{name} must be one of {', '.join(limits['choices'])}, not {value!r}")
    if "low" in limits and value < limits["low"]:
        raise BadInput(f"{name} must be at least {limits['low']}, not {value!r}")
    if "above" in limits and value <= limits["above"]:
        raise BadInput(f"{name} must be above {limits['above']}, not {value!r}")
    if "high" in limits and value > limits["high"]:
        raise BadInput(f"{name} must be at most {limits['high']}, not {value!r}")
    if "below" in limits and value >= limits["below"]:
        raise BadInput(f"{name} must be below {limits['below']}, not {value!r}")


def comparing(terms: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the reward terms among these that compare a text with references."""
    return [term["name"] for term in terms if term["name"] in REFERENCE_METRICS]


def check_rewards(terms: list[Any], reward_model: str) -> None:
    """Raises BadInput unless each term is one that there is, with settings of its own, and perhaps a weight.

    A reward model is set if and only if a term names it.
    """
    if not terms:
        raise BadInput("rewards must hold at least one term")
    for term in terms:
        if not isinstance(term, dict) or not isinstance(term.get("name"), str):
            raise BadInput(f"a reward term must be an object with a name, not {term!r}")
        weight = term.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise BadInput(f"the weight of the reward term {term['name']} must be a number, not {weight!r}")
        check_term(term["name"], {name: value for name, value in term.items() if name not in ("name", "weight")})
    named = any(term["name"] == "reward_model" for term in terms)
    if named != bool(reward_model):
        raise BadInput("set reward_model when, and only when, rewards has the term reward_model")


def check_term(name: str, options: dict[str, Any]) -> None:
    """Raises BadInput for a reward term that is not known, or whose settings are not its own."""
    if name not in TERMS:
        raise BadInput(f"there is no reward term {name!r}; there are {', '.join(sorted(TERMS))}")
    for option, value in options.items():
        if option not in TERMS[name]:
            raise BadInput(f"the reward term {name} has no setting {option!r}")
        kind, where = TERMS[name][option], f"{option} of the reward term {name}"
        if isinstance(kind, tuple):
            check_limits(where, value, {"choices": kind})
        else:
            as_kind(where, value, kind)
    if name == "length":
        target = options.get("target", 0)
        if target <= 0:
            raise BadInput(f"the reward term length needs a target above 0, in tokens, not {target!r}")


def exact_division(whole: int, part: int, whole_name: str, part_name: str) -> int:
    """whole / part, or BadInput when it leaves a remainder."""
    if whole % part:
        raise BadInput(f"{whole_name} ({whole}) must be a multiple of {part_name} ({part})")
    return whole // part


CONFIGS: dict[str, type[Settings]] = {kind.program: kind for kind in (SftConfig, RewardConfig, PpoConfig, SampleConfig)}
