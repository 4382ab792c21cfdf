"""Recipe metric: PPO on text metrics of the answers and their references, or other terms; no reward model."""

from django.utils.translation import gettext_lazy as _

from training.learner.reward_terms import use_reward_model
from training.learner.runtime.jobdir import BadInput
from training.rounds.recipes.description import NONE, Counts, FormField, Job, Recipe, Sections
from training.rounds.recipes.parts import SFT_DEFAULTS, optional_sft, sample_jobs
from training.rounds.recipes.ppo import POLICY_FIELDS, check_critic_start, policy_job


def jobs(settings: Sections, counts: Counts) -> tuple[Job, ...]:
    """Return the jobs: sft, with enough demonstrations; policy; samples, baseline and guards."""
    sft, start = optional_sft(settings, counts)
    return (*sft, policy_job(settings, start, NONE), *sample_jobs(settings, "policy", NONE, "ppo"))


def check(settings: Sections) -> None:
    """Raise BadInput if a reward term uses the reward model, which this recipe does not train, or as ppo does."""
    check_critic_start(settings)
    if use_reward_model(RECIPE.reward_terms(settings)):
        raise BadInput(
            "the recipe metric trains no reward model: set rewards in the section ppo to other terms, or use ppo"
        )


RECIPE = Recipe(
    name="metric",
    label=_("Metric"),
    help=_("The policy learns by trial to write answers that match the reference answers of the prompts."),
    programs=("sft", "ppo", "sample", "guards"),
    jobs=jobs,
    fields=(FormField("ppo", "rewards"), *POLICY_FIELDS),
    defaults={"sft": SFT_DEFAULTS, "ppo": {"rewards": [{"name": "similarity"}]}},
    rewards_section="ppo",
    check=check,
)
