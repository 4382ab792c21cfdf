"""Recipe best_of_n: a reward model from the rankings, then the policy imitates the best of n answers of its own.

With enough demonstrations the round begins with their imitation. With reward terms that need no reward model, none is
trained.
"""

from django.utils.translation import gettext_lazy as _

from training.rounds.recipes.description import (
    PROMPTS_TO_LEARN_FROM,
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
    SFT_DEFAULTS,
    SPEED_CURVE,
    optional_reward,
    optional_sft,
    reference,
    sample_jobs,
)


def jobs(settings: Sections, counts: Counts) -> tuple[Job, ...]:
    """Return the jobs: sft with enough demonstrations, reward if a term uses it, policy, samples, baseline, guards."""
    sft, start = optional_sft(settings, counts)
    reward, reward_model = optional_reward(settings, RECIPE.reward_terms(settings), start)
    samples = sample_jobs(settings, "policy", reward_model, "best_of_n")
    return (*sft, *reward, policy_job(settings, start, reward_model), *samples)


def policy_job(settings: Sections, start: str, reward_model: str) -> Job:
    """Return the job of the program best_of_n."""
    return Job(
        "policy",
        POLICY,
        "best_of_n",
        inputs={"prompts.jsonl": PROMPTS_TO_LEARN_FROM},
        models={"model": start, "reward_model": reward_model, "reference_model": reference(settings)},
        curves=(
            Curve(_("Reward while sampling"), "reward picked_reward", (_("all answers"), _("the best of n"))),
            Curve(_("Imitation: loss"), "loss"),
            Curve(_("Reward on the evaluation prompts"), "eval_reward"),
            Curve(_("KL from the reference"), "eval_kl"),
            SPEED_CURVE,
            *MACHINE_CURVES,
        ),
        facts=(
            Fact("sampled_reward", _("Mean reward of all answers"), _("in the last iteration")),
            Fact("picked_reward", _("Mean reward of the best of n"), _("in the last iteration")),
            Fact("imitated_picks", _("Answers imitated"), _("in the last iteration; others are below the threshold")),
            Fact(
                "kl_bound",
                _("Upper bound of the KL"),
                _("nats, for exact best of n; more passes over the picks can exceed it"),
            ),
        ),
    )


RECIPE = Recipe(
    name="best_of_n",
    label=_("Best of n"),
    help=_("A reward model learns from the rankings, and the policy imitates the best of several answers of its own."),
    programs=("sft", "reward", "best_of_n", "sample", "guards"),
    jobs=jobs,
    fields=(FormField("best_of_n", "iterations"),),
    defaults={"sft": SFT_DEFAULTS},
    rewards_section="best_of_n",
)
