"""Amount of work of a job: rows that its program reads in all passes, or completions that it writes or learns from.

Two jobs of the same program take times in the ratio of their amounts, if they are arranged alike. A forward pass over a
completion counts as much as writing it.
"""

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q

from feedback.models import Completion, Project, Prompt
from training.learner.runtime.config import PpoConfig
from training.models import Round
from training.rounds.continued_reward import reward_model_to_continue
from training.rounds.recipes.description import (
    GUARD_PROMPTS,
    LOGGED_COMPLETIONS,
    NONE,
    PROMPTS_TO_ANSWER,
    PROMPTS_TO_COMPARE,
    PROMPTS_TO_EVALUATE,
    PROMPTS_TO_TRY,
    Job,
)

# The setting that limits the prompts of a kind of input file, and whether only held-out prompts are in it.
LIMITS = {
    PROMPTS_TO_ANSWER: ("prompts", False),
    PROMPTS_TO_COMPARE: ("shown_prompts", False),
    PROMPTS_TO_TRY: ("trial_prompts", False),
    PROMPTS_TO_EVALUATE: ("evaluation_prompts", True),
    GUARD_PROMPTS: ("guard_prompts", True),
}


@dataclass(frozen=True)
class Amounts:
    """Numbers of rows that a round can read."""

    prompts: int
    held_out_prompts: int
    completions: int


def amounts_of(project: Project, jobs: tuple[Job, ...]) -> Amounts:
    """Return the present amounts of a project. Completions are counted only if a job learns from all of them."""
    prompts = Prompt.objects.filter(project=project).aggregate(
        all=Count("pk"), held_out=Count("pk", filter=Q(split=Prompt.Split.HELD_OUT))
    )
    is_logged = any(LOGGED_COMPLETIONS in job.inputs.values() for job in jobs)
    completions = Completion.objects.filter(prompt__project=project).count() if is_logged else 0
    return Amounts(prompts["all"], prompts["held_out"], completions)


def work_of(round_: Round, job: Job, amounts: Amounts) -> float:
    """Return the amount of work of a job of a round that starts now."""
    values = settings_of(round_, job)
    if job.program == "ppo":
        return _ppo_work(job, values)
    if job.program == "best_of_n":
        picks = values["iterations"] * values["prompts_per_iteration"]
        return picks * (values["completions_per_prompt"] + values["epochs"]) + values["eval_prompts"]
    if job.program == "q":
        return (values["value_epochs"] + values["policy_epochs"]) * amounts.completions + values["eval_prompts"]
    if job.program == "sft":
        return values["epochs"] * round_.demonstration_count
    if job.program == "reward":
        return passes_of(round_, values) * values["averaged_runs"] * round_.ranking_count
    if job.program in ("dpo", "kto"):
        return values["epochs"] * round_.ranking_count
    written = _prompts_of(round_, job, amounts) * values["completions_per_prompt"]
    return 2 * written if job.program == "guards" else written  # guards: the policy's and the base's


def settings_of(round_: Round, job: Job) -> dict[str, Any]:
    """Return the settings of a job's program, without models."""
    return {**round_.settings[job.section], **job.settings}


def passes_of(round_: Round, values: dict[str, Any]) -> int:
    """Return the passes of the reward model's training over the rankings."""
    return values["continued_epochs"] if reward_model_to_continue(round_) else values["epochs"]


def arrangement_of(round_: Round, job: Job) -> list[Any]:
    """Return what must be equal for the times and the memory of two jobs to be compared."""
    values = settings_of(round_, job)
    models = sorted(name for name, source in job.models.items() if source != NONE)
    if job.program == "reward" and not reward_model_to_continue(round_):
        models = [name for name in models if name != "last_reward_model"]
    kinds = [values.get("algorithm"), values.get("critic"), values.get("loss"), values["dtype"]]
    return [
        job.name,
        job.program,
        models,
        *kinds,
        values.get("lora_rank", 0) > 0,
        round_.settings["round"]["processes"],
    ]


def _ppo_work(job: Job, values: dict[str, Any]) -> float:
    models = {name: "" if source == NONE else "model" for name, source in job.models.items()}
    config = PpoConfig.from_json({**values, **models})
    evaluations = config.steps // config.steps_between_evaluations(config.steps)
    learned = config.steps * config.batch_episodes * (1 + config.epochs)
    evaluated = evaluations * config.curve_prompts() + 2 * config.eval_prompts
    return learned + evaluated + config.optimum_prompts * config.optimum_samples


def _prompts_of(round_: Round, job: Job, amounts: Amounts) -> int:
    kind = next(kind for kind in job.inputs.values() if kind in LIMITS)
    name, is_held_out = LIMITS[kind]
    return min(round_.settings["round"][name], amounts.held_out_prompts if is_held_out else amounts.prompts)
