"""Recipe dpo: the policy learns from the rankings directly, without a reward model.

`loss` of the section "dpo" chooses the method: dpo, ipo, simpo, or plackett_luce for whole rankings. With enough
demonstrations the round begins with their imitation. New completions have no scores, since nothing scores them.
"""

from django.utils.translation import gettext_lazy as _

from training.rounds.recipes.description import NONE, RANKINGS, Counts, Curve, Fact, FormField, Job, Recipe, Sections
from training.rounds.recipes.parts import (
    MACHINE_CURVES,
    POLICY,
    SFT_DEFAULTS,
    SPEED_CURVE,
    TRAINING_AND_HELD_OUT,
    optional_sft,
    reference,
    sample_jobs,
)


def jobs(settings: Sections, counts: Counts) -> tuple[Job, ...]:
    """Return the jobs: sft with enough demonstrations, policy, samples, baseline, guards."""
    sft, start = optional_sft(settings, counts)
    return (*sft, policy_job(settings, start), *sample_jobs(settings, "policy", NONE))


def policy_job(settings: Sections, start: str) -> Job:
    """Return the job of the program dpo."""
    held_out = _("held-out prompts, from log-ratios to the reference")
    return Job(
        "policy",
        POLICY,
        "dpo",
        inputs={"rankings.jsonl": RANKINGS},
        models={"model": start, "reference_model": reference(settings)},
        curves=(
            Curve(_("Preferences: loss"), "loss held_out_loss", TRAINING_AND_HELD_OUT),
            Curve(_("Preferences: accuracy"), "accuracy held_out_accuracy", TRAINING_AND_HELD_OUT),
            Curve(_("Preferences: reward margin"), "reward_margin held_out_reward_margin", TRAINING_AND_HELD_OUT),
            Curve(_("KL from the reference"), "kl"),
            SPEED_CURVE,
            *MACHINE_CURVES,
        ),
        facts=(
            Fact("held_out_accuracy", _("Preference accuracy"), held_out),
            Fact("annotator_agreement", _("Agreement of annotators"), _("of two annotators, on held-out prompts")),
            Fact("held_out_reward_margin", _("Reward margin"), _("nats, mean of preferred minus rejected")),
            Fact(
                "preferred_log_ratio", _("Log-ratio of preferred answers"), _("nats; below 0: less likely than before")
            ),
            Fact("rejected_log_ratio", _("Log-ratio of rejected answers"), _("nats; below 0: less likely than before")),
        ),
    )


RECIPE = Recipe(
    name="dpo",
    label=_("DPO"),
    help=_("The model learns from the rankings directly, without a reward model."),
    programs=("sft", "dpo", "sample", "guards"),
    jobs=jobs,
    fields=(FormField("dpo", "epochs"),),
    defaults={"sft": SFT_DEFAULTS},
)
