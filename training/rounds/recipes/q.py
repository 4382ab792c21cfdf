"""Recipe q: values of tokens, and a policy that prefers the better ones, from all completions written so far.

With reward terms that need no reward model, no reward model is trained.
"""

from django.utils.translation import gettext_lazy as _

from training.rounds.recipes.description import (
    BASE,
    LOGGED_COMPLETIONS,
    Counts,
    Curve,
    Fact,
    FormField,
    Job,
    Recipe,
    Sections,
)
from training.rounds.recipes.parts import (
    MACHINE_CURVES,
    POLICY,
    SPEED_CURVE,
    TRAINING_AND_HELD_OUT,
    optional_reward,
    sample_jobs,
)


def jobs(settings: Sections, counts: Counts) -> tuple[Job, ...]:
    """Return the jobs: reward, if a reward term uses it; policy; samples, baseline and guards."""
    reward, reward_model = optional_reward(settings, RECIPE.reward_terms(settings))
    return (*reward, policy_job(reward_model), *sample_jobs(settings, "policy", reward_model, "q"))


def policy_job(reward_model: str) -> Job:
    """Return the job of the program q."""
    return Job(
        "policy",
        POLICY,
        "q",
        inputs={"completions.jsonl": LOGGED_COMPLETIONS},
        models={"model": BASE, "reward_model": reward_model},
        curves=(
            Curve(_("Values: loss of Q"), "td_loss held_out_td_loss", TRAINING_AND_HELD_OUT),
            Curve(_("Values: mean of Q and V"), "q_mean value_mean", (_("Q"), _("V"))),
            Curve(_("Policy: weighted loss"), "policy_loss held_out_policy_loss", TRAINING_AND_HELD_OUT),
            SPEED_CURVE,
            *MACHINE_CURVES,
        ),
        facts=(
            Fact("train_completions", _("Completions learned from"), _("all that were written before the round")),
            Fact("data_reward", _("Mean reward of these completions")),
            Fact(
                "effective_tokens", _("Effective share of their tokens"), _("low: few tokens have most of the weight")
            ),
        ),
    )


RECIPE = Recipe(
    name="q",
    label=_("Q-learning"),
    help=_("Values of tokens are learned from all completions written so far, and the policy prefers the better ones."),
    programs=("reward", "q", "sample", "guards"),
    jobs=jobs,
    fields=(FormField("q", "policy_epochs"),),
    rewards_section="q",
)
