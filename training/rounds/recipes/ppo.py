"""Recipe ppo: a reward model from the rankings, then a policy that earns its reward while it stays close to its start.

With enough demonstrations the round begins with their imitation, as InstructGPT did (Ouyang et al. 2022): reward model
and policy then start from that model. With reward terms that need no reward model, none is trained.
"""

from django.utils.translation import gettext_lazy as _

from training.learner.estimators import ALGORITHMS
from training.learner.runtime.config.ppo import check_kept_critic
from training.rounds.recipes.description import (
    CRITIC_OF_BASE,
    DEMONSTRATIONS,
    PROMPTS_TO_LEARN_FROM,
    Counts,
    Curve,
    Fact,
    FormField,
    Job,
    Recipe,
    Sections,
    Text,
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

POLICY_FIELDS = (FormField("ppo", "steps"),)


def jobs(settings: Sections, counts: Counts) -> tuple[Job, ...]:
    """Return the jobs: sft with enough demonstrations, reward if a term uses it, policy, samples, baseline, guards."""
    sft, start = optional_sft(settings, counts)
    reward, reward_model = optional_reward(settings, RECIPE.reward_terms(settings), start)
    samples = sample_jobs(settings, "policy", reward_model, "ppo")
    return (*sft, *reward, policy_job(settings, start, reward_model), *samples)


def policy_job(settings: Sections, start: str, reward_model: str) -> Job:
    """Return the job of the program ppo. With ptx_coefficient it imitates the demonstrations too.

    A round that continues a critic keeps its own for the next one.
    """
    mixed = {"demonstrations.jsonl": DEMONSTRATIONS} if settings["ppo"]["ptx_coefficient"] else {}
    critic = {"critic_model": CRITIC_OF_BASE} if settings["round"].get("critic_start") == "last" else {}
    training_and_evaluation = (_("training"), _("evaluation"))
    return Job(
        "policy",
        POLICY,
        "ppo",
        inputs={"prompts.jsonl": PROMPTS_TO_LEARN_FROM, **mixed},
        models={"model": start, "reward_model": reward_model, "reference_model": reference(settings), **critic},
        settings={"keep_critic": True} if critic else {},
        curves=(
            Curve(_("Reward"), "reward eval_reward", training_and_evaluation),
            Curve(kl_title(settings), "kl eval_kl", training_and_evaluation),
            Curve(_("Objective: reward − β·KL"), "objective", best="best_objective"),
            Curve(_("Entropy"), "entropy"),
            Curve(_("Share of clipped tokens"), "clip_fraction"),
            Curve(_("Policy: loss"), "policy_loss"),
            *(critic_curves() if has_critic(settings) else ()),
            Curve(_("Tokens per completion"), "completion_tokens"),
            Curve(_("Share of finished completions"), "ended_fraction"),
            SPEED_CURVE,
            *MACHINE_CURVES,
            *((Curve(_("Imitation: loss"), "ptx_loss"),) if mixed else ()),
        ),
        facts=(
            Fact("objective", _("Objective"), _("reward − β·KL, per completion")),
            Fact("best_objective", _("Best attainable objective"), _("of all policies, on the same prompts")),
            Fact(
                "best_objective_at_least",
                _("Best attainable objective, at least"),
                _("a lower bound: samples do not determine the value"),
            ),
        ),
    )


def kl_title(settings: Sections) -> Text:
    """Return the title of the curve of the KL divergence, by the model that it is measured from."""
    if settings["round"].get("reference") == "root":
        return _("KL from the imported model")
    return _("KL from the reference")


def has_critic(settings: Sections) -> bool:
    """Return whether the algorithm of unchecked settings learns values; an unknown one has the curves of a critic."""
    algorithm = ALGORITHMS.get(str(settings["ppo"].get("algorithm")))
    return algorithm is None or algorithm.needs_critic


def critic_curves() -> tuple[Curve, ...]:
    return (Curve(_("Critic: loss"), "value_loss"), Curve(_("Critic: explained variance"), "explained_variance"))


def check_critic_start(settings: Sections) -> None:
    """Raise BadInput if the critic should continue the last one, but has nothing that can be continued."""
    if settings["round"]["critic_start"] == "last":
        check_kept_critic(settings["ppo"])


RECIPE = Recipe(
    name="ppo",
    label=_("PPO"),
    help=_("A reward model learns from the rankings, and the policy learns by trial to earn its reward."),
    programs=("sft", "reward", "ppo", "sample", "guards"),
    jobs=jobs,
    fields=POLICY_FIELDS,
    defaults={"sft": SFT_DEFAULTS},
    rewards_section="ppo",
    check=check_critic_start,
)
