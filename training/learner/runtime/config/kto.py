"""Settings of the program kto."""

from dataclasses import dataclass

from training.learner.runtime.config.base import Training
from training.learner.runtime.fields import setting


@dataclass(frozen=True)
class KtoConfig(Training):
    """Settings of `kto`: learn a policy from single labels, desirable or undesirable."""

    program = "kto"

    reference_model: str = setting("", help="Model that log-ratios are measured from. Empty: the initial `model`.")

    # Labels
    labels_from: str = setting(
        "auto",
        choices=("auto", "flags", "ratings", "ranks"),
        label="Labels from",
        help='Source of the labels in rankings. flags: "all good" and "all bad" label all completions of a ranking. '
        "ratings: a completion is desirable if the mean of its ratings is above rating_midpoint, undesirable below. "
        "ranks: see ranks_as_labels. auto: the first of these three that labels the completion, because a "
        "judgement of the completion alone is better evidence of its quality than a comparison.",
    )
    ranks_as_labels: str = setting(
        "extremes",
        choices=("extremes", "halves"),
        label="Ranks as labels",
        help="extremes: the first rank is desirable, the last is undesirable, and those between have no label. halves: "
        "ranks above the middle of first and last are desirable, those below are undesirable. All tied: no label.",
    )
    rating_midpoint: float = setting(
        3.0, label="Neutral rating", help="Rating that is neither good nor bad; the product's go from 1 to 5."
    )

    # Loss
    beta: float = setting(
        0.1, above=0, label="Saturation (β)", help="β: rate at which the value of a log-ratio saturates, per nat."
    )
    desirable_weight: float = setting(
        1.0, above=0, label="Weight of good answers", help="λ_D: weight of desirable completions."
    )
    undesirable_weight: float = setting(
        1.0, above=0, label="Weight of bad answers", help="λ_U: weight of undesirable completions."
    )
    balance_labels: bool = setting(
        True,
        label="Balance good and bad",
        help="Multiply the weight of the rarer kind of label, so that both kinds weigh the same in total.",
    )

    # Sizes
    epochs: int = setting(1, low=1, label="Passes over the labels", help="Passes over the labels.")
    batch_labels: int = setting(
        32,
        low=2,
        label="Labels per step",
        help="Average number of labelled completions in a step over all processes; those of a prompt together.",
    )
    eval_samples: int = setting(
        4,
        low=0,
        label="Samples kept per evaluation",
        help="Maximum prompts whose completions at the start and at each evaluation go to samples_at_steps.jsonl. "
        "0: none.",
    )
