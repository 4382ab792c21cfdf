"""Recipe kto: learn from single labels, good or bad, that follow from flags, ratings and ranks. No reward model."""

from django.utils.translation import gettext_lazy as _

from training.rounds.recipes.description import NONE, RANKINGS, Counts, Curve, Fact, FormField, Job, Recipe, Sections
from training.rounds.recipes.parts import (
    MACHINE_CURVES,
    POLICY,
    SFT_DEFAULTS,
    SPEED_CURVE,
    TRAINING_AND_HELD_OUT,
    optional_sft,
    sample_jobs,
)


def jobs(settings: Sections, counts: Counts) -> tuple[Job, ...]:
    """Return the jobs: sft, with enough demonstrations; policy; samples, baseline and guards."""
    sft, start = optional_sft(settings, counts)
    policy = Job(
        "policy",
        POLICY,
        "kto",
        inputs={"rankings.jsonl": RANKINGS},
        models={"model": start, "reference_model": NONE},
        curves=(
            Curve(_("Labels: loss"), "loss held_out_loss", TRAINING_AND_HELD_OUT),
            Curve(_("Implicit reward"), "desirable_reward undesirable_reward", (_("good"), _("bad"))),
            Curve(_("Reference point"), "reference_point"),
            SPEED_CURVE,
            *MACHINE_CURVES,
        ),
        facts=(
            Fact("desirable_labels", _("Good answers"), _("labels of training prompts")),
            Fact("undesirable_labels", _("Bad answers"), _("labels of training prompts")),
            Fact("unlabelled_completions", _("Answers without a label"), _("in the middle of their ranking")),
            Fact(
                "held_out_separation",
                _("Good above bad"),
                _("share of pairs of held-out answers; 0.5 by chance"),
            ),
        ),
    )
    return (*sft, policy, *sample_jobs(settings, "policy", NONE))


RECIPE = Recipe(
    name="kto",
    label=_("KTO"),
    help=_("The model learns which answers are good and which are bad, each by itself, from flags, ratings and ranks."),
    programs=("sft", "kto", "sample", "guards"),
    jobs=jobs,
    fields=(FormField("kto", "epochs"),),
    defaults={"sft": SFT_DEFAULTS},
)
