"""Settings of the program dpo."""

from dataclasses import dataclass

from training.learner.runtime.config.base import Training
from training.learner.runtime.fields import setting
from training.learner.runtime.jobdir import BadInput


@dataclass(frozen=True)
class DpoConfig(Training):
    """Settings of `dpo`: learn a policy from rankings directly, without a reward model."""

    program = "dpo"

    reference_model: str = setting(
        "", help="Model that log-ratios and KL are measured from. Empty: the initial `model`."
    )

    # Loss
    loss: str = setting(
        "dpo",
        choices=("dpo", "ipo", "simpo", "plackett_luce"),
        label="Loss",
        help="dpo, ipo, simpo: loss of all pairs of a ranking; simpo needs no reference. plackett_luce: DPO's loss of "
        "the whole ranking, best first.",
    )
    beta: float = setting(
        0.1,
        above=0,
        label="Reward per nat (β)",
        help="β: implicit reward per nat of log-ratio; ipo: its τ; simpo: reward per nat of mean log-prob, "
        "where 2 to 10 are usual.",
    )
    simpo_margin: float = setting(
        0.5, low=0, label="SimPO margin (γ)", help="simpo: γ, nats that the better one must lead by."
    )
    label_smoothing: float = setting(
        0.0,
        low=0,
        below=0.5,
        label="Label smoothing",
        help="Probability that a pair is labelled the wrong way round (conservative DPO).",
    )
    tie_model: str = setting(
        "davidson",
        choices=("rao_kupper", "davidson", "bradley_terry", "none"),
        label="Ties",
        help="Likelihood of ties. bradley_terry: half a win and half a loss; none: ties are left out. ipo: a tie has "
        "the target 0 unless none. plackett_luce: davidson only.",
    )
    tie_share: float = setting(
        0.0,
        low=0,
        below=1,
        label="Share of ties",
        help="Probability that equally good completions are tied. 0: learned.",
    )
    margin: float = setting(
        0.0,
        low=0,
        label="Margin per strength",
        help="dpo, simpo: margin in nats per level of strength that the better one must lead by.",
    )

    # Sizes
    epochs: int = setting(1, low=1, label="Passes over the rankings", help="Passes over the rankings.")
    batch_rankings: int = setting(
        32, low=1, label="Rankings per step", help="Average number of rankings in a step over all processes."
    )
    eval_prompts: int = setting(
        64,
        low=0,
        label="Prompts for the KL",
        help="Maximum prompts whose sampled completions measure the KL from the reference. 0: no KL.",
    )
    eval_samples: int = setting(
        4,
        low=0,
        label="Samples kept per evaluation",
        help="Maximum prompts whose completions at the start and at each evaluation go to samples_at_steps.jsonl. "
        "0: none.",
    )

    @property
    def needs_reference(self) -> bool:
        """True if the loss depends on the reference."""
        return self.loss != "simpo"

    @property
    def learns_ties(self) -> bool:
        """Return whether two completions of the same rank are learned from."""
        return self.tie_model != "none"

    def check(self) -> None:
        super().check()
        if self.loss == "plackett_luce" and self.tie_model != "davidson":
            raise BadInput(
                f'loss plackett_luce has one model of ties: set tie_model to davidson, not "{self.tie_model}"'
            )
        if self.loss == "plackett_luce" and self.label_smoothing:
            raise BadInput("label_smoothing is the error rate of a pair: set it to 0 for the loss plackett_luce")
        if self.margin and self.loss in ("ipo", "plackett_luce"):
            raise BadInput(f"the loss {self.loss} has no margin: set margin to 0, or loss to dpo or simpo")
