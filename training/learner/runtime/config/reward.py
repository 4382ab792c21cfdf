"""Settings of the program reward."""

from dataclasses import dataclass

from training.learner.runtime.config.base import Training
from training.learner.runtime.fields import setting
from training.learner.runtime.jobdir import BadInput


@dataclass(frozen=True)
class RewardConfig(Training):
    """Settings of `reward`: a Bradley–Terry reward model from rankings with ties."""

    program = "reward"

    epochs: int = setting(4, low=1, label="Passes over the rankings", help="Passes over the rankings.")
    last_reward_model: str = setting(
        "", help="Folder of an earlier reward model to continue. Empty: a full training from `model`."
    )
    continued_epochs: int = setting(
        3, low=1, label="Passes when it continues", help="Passes over the rankings with last_reward_model."
    )
    kept_share: float = setting(
        1.0,
        above=0,
        high=1,
        label="Share kept when it continues",
        help="With last_reward_model the weights start at model + kept_share · (last − model). 1: at the last model's.",
    )
    batch_rankings: int = setting(
        32, low=1, label="Rankings per step", help="Average number of rankings in a step over all processes."
    )
    tie_model: str = setting(
        "rao_kupper",
        choices=("rao_kupper", "davidson", "bradley_terry", "none"),
        label="Ties",
        help="Likelihood of ties. bradley_terry: half a win and half a loss; none: ties are left out.",
    )
    tie_share: float = setting(
        0.0,
        low=0,
        below=1,
        label="Share of ties",
        help="Probability that equally good completions are tied. 0: learned.",
    )
    strict_orders: str = setting(
        "pairs",
        choices=("pairs", "plackett_luce"),
        label="Rankings without ties",
        help="Loss of rankings without ties: of pairs, or of the order.",
    )
    margin: float = setting(
        0.0,
        low=0,
        label="Margin per strength",
        help="Margin in nats per level of strength that the better one must lead by.",
    )
    contrast: float = setting(
        1.0,
        low=0,
        label="Contrast between prompts",
        help="Weight of preferring completions under their own prompt to the same under another prompt.",
    )
    anchor_weight: float = setting(
        1.0,
        low=0,
        label="Weight of the anchor",
        help="Weight of the loss of completions against the anchor, for rankings that have one.",
    )
    attribute_weight: float = setting(
        1.0,
        low=0,
        label="Weight of the ratings",
        help="Weight of the loss of ratings.jsonl: half the mean squared error of a standardised rating. "
        "0: no attribute heads.",
    )
    marks_weight: float = setting(
        0.0,
        low=0,
        label="Weight of the marks",
        help="Weight of the loss of marked spans, nats per token of a completion with marks: which tokens annotators "
        "marked as good, as bad, or not at all. 0: marks are not read.",
    )
    averaged_runs: int = setting(
        1, low=1, label="Averaged runs", help="Number of training runs from the same start whose weights are averaged."
    )
    ensemble_heads: int = setting(
        8, low=0, label="Ensemble heads", help="Bootstrapped heads that estimate uncertainty. 0 or 1: none."
    )
    prior_scale: float = setting(
        0.1,
        low=0,
        label="Scale of the priors",
        help="Scale of the fixed random priors of these heads. After few rankings a scale of 1 hides what they learn.",
    )
    surprise_folds: int = setting(
        5,
        low=0,
        label="Folds for the surprise",
        help="Folds of the prompts for the cross-fitted surprise of the rankings: those most likely to be wrong. It "
        "costs one pass over the completions. 0: none; otherwise at least 3.",
    )
    surprise_comparisons: int = setting(
        20_000,
        low=3,
        label="Comparisons with a surprise",
        help="Maximum comparisons whose rankings get a surprise, chosen at random.",
    )

    @property
    def learns_ties(self) -> bool:
        """Return whether two completions of the same rank are learned from."""
        return self.tie_model != "none"

    def check(self) -> None:
        super().check()
        if self.averaged_runs > 1 and self.lora_rank:
            raise BadInput("averaged_runs must be 1 with lora_rank: averaged LoRA factors are not an average adapter")
        if self.surprise_folds in (1, 2):
            raise BadInput(f"surprise_folds must be 0 or at least 3, not {self.surprise_folds}")
        if self.last_reward_model and self.lora_rank:
            raise BadInput("a reward model with lora_rank cannot continue another one: leave last_reward_model out")

    @property
    def passes(self) -> int:
        """Return the number of passes over the rankings in each run."""
        return self.continued_epochs if self.last_reward_model else self.epochs
