"""Stages and jobs that several recipes share."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from training.learner.environments import SINGLE_TURN
from training.learner.reward_terms import use_reward_model
from training.rounds.recipes.description import (
    BASE,
    CHECKPOINT,
    CONTINUED_REWARD_MODEL,
    DEMONSTRATIONS,
    ENDPOINT,
    GUARD_PROMPTS,
    GUARD_TEXTS,
    NONE,
    PROMPTS_TO_ANSWER,
    PROMPTS_TO_COMPARE,
    RANKINGS,
    RATINGS,
    REWARD_MODEL_OF_BASE,
    ROOT,
    Counts,
    Curve,
    Fact,
    FormField,
    Job,
    Sections,
    Stage,
)
from training.rounds.sources import NEW, MixedSource, most_of, read_sources

# The first stage of a round and the last one, which is RESULT if it writes no completions to rank. They have no job.
SNAPSHOT = Stage("snapshot", _("Snapshot"))
COMPARISONS = Stage("comparisons", _("Comparisons"))
RESULT = Stage("result", _("Result"))
SFT = Stage("sft", _("Imitation"))
REWARD = Stage("reward", _("Reward"))
POLICY = Stage("policy", _("Policy"))
SAMPLES = Stage("samples", _("Samples"))
GUARDS = Stage("guards", _("Guards"))

SEEDS_BETWEEN = 1_000_003  # between the seeds of the sources of one round

TRAINING_AND_HELD_OUT = (_("training"), _("held out"))

# Curves of the machine on which a job ran (training/learner/runtime/machine.py).
SPEED_CURVE = Curve(_("Tokens per second"), "tokens_per_second")
MACHINE_CURVES = (
    Curve(_("Processor and GPU in use, share"), "cpu_share gpu_share", (_("processor"), _("GPU"))),
    Curve(_("Memory, GB"), "memory_gb gpu_memory_gb", (_("process"), _("GPU"))),
)

SFT_FIELDS = (FormField("sft", "epochs"),)
# A step of 16,384 tokens, the program's default, would be the only one with some dozens of demonstrations.
SFT_DEFAULTS = {"epochs": 3, "batch_tokens": 2048}


def sft_job() -> Job:
    """Return the imitation of the demonstrations by the base."""
    per_token = _("nats per token, held-out demonstrations")
    return Job(
        "sft",
        SFT,
        "sft",
        inputs={"demonstrations.jsonl": DEMONSTRATIONS},
        models={"model": BASE},
        curves=(Curve(_("Imitation: loss"), "loss held_out_loss", TRAINING_AND_HELD_OUT),),
        facts=(
            Fact("held_out_loss_before", _("Imitation loss before"), per_token),
            Fact("held_out_loss", _("Imitation loss"), per_token),
        ),
    )


def begins_with_sft(settings: Sections, counts: Counts) -> bool:
    """Return whether a round of a recipe that may begin with sft does so."""
    first, enough = settings["round"]["sft_first"], settings["round"]["min_demonstrations"]
    return first == "always" or (first == "auto" and counts.demonstrations >= enough)


def optional_sft(settings: Sections, counts: Counts) -> tuple[tuple[Job, ...], str]:
    """Return the job of sft, if the round begins with it, and the model that the next jobs start from."""
    return ((sft_job(),), "sft") if begins_with_sft(settings, counts) else ((), BASE)


def reward_job(settings: Sections, start: str = BASE) -> Job:
    """Return the training of a reward model on the rankings, and of its attribute heads on the ratings."""
    last = CONTINUED_REWARD_MODEL if settings["round"].get("reward_start") == "last" else NONE
    return Job(
        "reward",
        REWARD,
        "reward",
        inputs={"rankings.jsonl": RANKINGS, "ratings.jsonl": RATINGS},
        models={"model": start, "last_reward_model": last},
        curves=(
            Curve(_("Reward model: loss"), "loss held_out_loss", TRAINING_AND_HELD_OUT),
            Curve(_("Reward model: accuracy"), "accuracy held_out_accuracy", TRAINING_AND_HELD_OUT),
        ),
        facts=(
            Fact("annotator_agreement", _("Agreement of annotators"), _("of two annotators, on held-out prompts")),
            Fact("best_possible_accuracy", _("Best possible accuracy"), _("of any model, at this agreement")),
            Fact("marks_left_out", _("Marks left out"), _("in turns of the user, which the policy does not write")),
        ),
    )


def optional_reward(settings: Sections, terms: Sequence[str], start: str = BASE) -> tuple[tuple[Job, ...], str]:
    """Return the job of a reward model, if one of these reward terms uses it, and the origin of that model."""
    return ((reward_job(settings, start),), "reward") if use_reward_model(terms) else ((), NONE)


def sample_jobs(settings: Sections, policy: str, reward_model: str, rewards_section: str = "") -> tuple[Job, ...]:
    """Return the jobs after the policy's, of every recipe that learns.

    The new policy answers prompts, to be ranked; the base answers some of them too; and the guards compare the two.
    """
    scored = {"rewards": settings[rewards_section]["rewards"]} if rewards_section else {}
    scored |= dialogues_of(settings)
    samples = Job(
        "samples",
        SAMPLES,
        "sample",
        inputs={"prompts.jsonl": PROMPTS_TO_ANSWER},
        models={"model": policy, "reward_model": reward_model},
        settings=scored,
        facts=() if rewards_section else score_facts(settings),
    )
    baseline = Job(
        "baseline",
        SAMPLES,
        "sample",
        inputs={"prompts.jsonl": PROMPTS_TO_COMPARE},
        models={"model": BASE, "reward_model": reward_model},
        settings={**scored, "completions_per_prompt": 1},  # the side-by-side page shows one
    )
    written = mixed_jobs(settings, samples)
    answered = (*written, baseline) if settings["round"]["shown_prompts"] else written
    return (*answered, *guards_jobs(settings, policy))


def guards_jobs(settings: Sections, policy: str) -> tuple[Job, ...]:
    """Return the job that measures the new policy and the base on the same held-out prompts and texts, if wanted."""
    if not settings["round"].get("guard_prompts"):
        return ()
    environment = settings.get("sample", {}).get("environment", SINGLE_TURN)
    return (
        Job(
            "guards",
            GUARDS,
            "guards",
            inputs={"prompts.jsonl": GUARD_PROMPTS, "guard_texts.jsonl": GUARD_TEXTS},
            models={"model": policy, "base_model": BASE, "root_model": ROOT},
            settings={"environment": environment} | dialogues_of(settings),
        ),
    )


def score_facts(settings: Sections) -> tuple[Fact, ...]:
    """Return the mean score of the samples, if reward terms score them alone."""
    label, note = (
        _("Mean score of the samples"),
        _("by the rewards of the section sample, which the policy does not learn"),
    )
    return (Fact("score_mean", label, note),) if settings["sample"].get("rewards") else ()


def reference(settings: Sections) -> str:
    """Return the origin of a policy's reference; NONE: the model that the program starts from."""
    return ROOT if settings["round"].get("reference") == "root" else NONE


def measured_root(settings: Sections, section: str) -> str:
    """Return the origin of the model of `kl_from_root`; NONE if completions are not of the whole distribution.

    section: that of the program that writes them.
    """
    sample = settings.get(section, {})
    is_whole = sample.get("top_p", 1) == 1 and sample.get("temperature", 1) != 0
    return ROOT if is_whole else NONE


def dialogues_of(settings: Sections) -> dict[str, Any]:
    """Return the setting of `sample` that lets it write dialogues as the policy plays them; none for single turns."""
    environment = settings.get("ppo", {}).get("environment", SINGLE_TURN)
    return {} if environment == SINGLE_TURN else {"environment": environment}


def sampling_only(settings: Sections) -> tuple[Job, ...]:
    """Return the jobs of a round without training: the base writes completions to rank."""
    samples = Job(
        "samples",
        SAMPLES,
        "sample",
        inputs={"prompts.jsonl": PROMPTS_TO_ANSWER},
        models={"model": BASE, "reward_model": REWARD_MODEL_OF_BASE},
        settings=dialogues_of(settings),
    )
    return mixed_jobs(settings, samples)


def mixed_jobs(settings: Sections, samples: Job) -> tuple[Job, ...]:
    """Return the jobs whose completions are compared: `samples` alone, or one for each source of the mixture."""
    chosen = settings.get("round", {})
    sources = read_sources(chosen.get("sources", {}))
    size, spare = chosen.get("comparison_size", 2), chosen.get("spare_completions", 0)
    jobs = []
    for number, source in enumerate(sources):
        values: dict[str, Any] = {**samples.settings, "completions_per_prompt": most_of(source, sources, size) + spare}
        if source.temperature is not None:
            values["temperature"] = source.temperature
        if source.key == NEW:
            jobs.append(replace(samples, settings=values, source=source.key))
        elif source.endpoint:
            values["endpoint"] = source.endpoint
            jobs.append(_source_job(number, source, samples, ENDPOINT, {}, values))
        else:
            # Other random numbers than the new checkpoint's: two models that are alike would write the same texts.
            seed = settings.get("sample", {}).get("seed", 0)
            values["seed"] = (seed if isinstance(seed, int) else 0) // 2 + SEEDS_BETWEEN * number
            models = {**samples.models, "model": f"{CHECKPOINT}{source.checkpoint}"}
            jobs.append(_source_job(number, source, samples, "sample", models, values))
    return tuple(jobs) or (samples,)


def _source_job(
    number: int, source: MixedSource, samples: Job, program: str, models: dict[str, str], values: dict[str, Any]
) -> Job:
    facts = endpoint_facts(source.endpoint) if source.endpoint else ()
    return Job(
        f"source_{number}",
        SAMPLES,
        program,
        inputs=samples.inputs,
        models=models,
        settings=values,
        facts=facts,
        source=source.key,
    )


def endpoint_facts(name: str) -> tuple[Fact, ...]:
    """Return the figures of an endpoint's completions: what they cost, and how many it did not write."""
    return (
        Fact("cost", format_lazy(_("Cost of {name}"), name=name), _("at the prices of that time")),
        Fact("failed", format_lazy(_("Failed requests to {name}"), name=name), _("their comparisons are smaller")),
    )
