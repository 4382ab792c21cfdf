"""prompts.jsonl: prompts to learn from, to answer, to compare answers of two checkpoints on, or to evaluate on."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

from django.utils.translation import gettext as _

from feedback.errors import Conflict, Invalid
from feedback.models import Project, Prompt
from training.models import Round
from training.rounds import named_checkpoints
from training.rounds.inputs import needs, rows
from training.rounds.recipes.description import (
    PROMPTS_TO_ANSWER,
    PROMPTS_TO_COMPARE,
    PROMPTS_TO_EVALUATE,
    PROMPTS_TO_LEARN_FROM,
    PROMPTS_TO_TRY,
    Job,
    Recipe,
    Sections,
)
from training.rounds.sources import compositions, read_sources


@rows(PROMPTS_TO_LEARN_FROM)
def to_learn_from(round_: Round, job: Job, counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield training prompts, and the held-out prompts of the program's evaluations."""
    with_references = round_.compares_with_references
    evaluated = round_.settings[job.program].get("eval_prompts", 0)
    for count, split in ((round_.settings["round"]["policy_prompts"], "train"), (evaluated, "held_out")):
        yield from prompt_rows(chosen(round_, count, split, with_references=with_references))


@rows(PROMPTS_TO_ANSWER)
def to_answer(round_: Round, job: Job, counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield the prompts whose completions are to be ranked next.

    In a mixture of sources a job gets those of which it writes some, with the number that is compared ("compared").
    """
    ids = chosen(round_, round_.settings["round"]["prompts"])
    if not job.source:
        yield from prompt_rows(ids)
        return
    settings = round_.settings["round"]
    made = compositions(ids, read_sources(settings["sources"]), settings["comparison_size"], settings["seed"])
    counts_by_id = {pk: made[pk][job.source] for pk in ids}
    mine = [pk for pk in ids if counts_by_id[pk]] or ids[:1]  # a program needs a prompt
    for row in prompt_rows(mine):
        yield row | {"compared": counts_by_id[row["prompt_id"]]}


@rows(PROMPTS_TO_COMPARE)
def to_compare(round_: Round, job: Job, counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield the prompts that the base answers too, for the side-by-side page."""
    yield from prompt_rows(compared(round_))


@rows(PROMPTS_TO_EVALUATE)
def to_evaluate(round_: Round, job: Job, counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield held-out prompts in an order that depends on the seed of the evaluation, not on the round.

    So another round evaluates on the same prompts. A new prompt moves no other one, except out of the first ones.
    """
    seed = round_.settings[job.program]["seed"]
    held_out = Prompt.objects.filter(
        project=round_.project, split=Prompt.Split.HELD_OUT, created_at__lte=round_.created_at
    )
    ids = sorted(held_out.values_list("pk", flat=True), key=lambda pk: hashlib.sha256(f"{seed}/{pk}".encode()).digest())
    yield from prompt_rows(ids[: round_.settings["round"]["evaluation_prompts"]])


@rows(PROMPTS_TO_TRY)
def to_try(round_: Round, job: Job, counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield the prompts that all checkpoints of a trial answer: held-out ones, then training prompts if they are few.

    Rankings of held-out prompts train nothing, so nothing is lost by using them up.
    """
    count = round_.settings["round"]["trial_prompts"]
    held_out = chosen(round_, count, "held_out")
    yield from prompt_rows(held_out + chosen(round_, count - len(held_out), "train"))


@needs(PROMPTS_TO_LEARN_FROM)
def check_references(project: Project, recipe: Recipe, settings: Sections) -> None:
    """Raise Invalid if a reward term needs reference answers and no training prompt has any."""
    check_prompts(project, recipe, settings)
    terms = recipe.comparing_terms(settings)
    prompts = Prompt.objects.filter(project=project, split=Prompt.Split.TRAIN)
    if terms and not prompts.exclude(references=[]).exists():
        raise Invalid(
            _('No training prompt has reference answers, which the reward term "%(term)s" needs: add some.')
            % {"term": terms[0]}
        )


@needs(PROMPTS_TO_ANSWER)
def check_prompts(project: Project, recipe: Recipe, settings: Sections) -> None:
    """Raise Invalid if there is no prompt."""
    if not Prompt.objects.filter(project=project).exists():
        raise Invalid(_("There are no prompts to answer yet: add some first."))


@needs(PROMPTS_TO_TRY)
def check_trial(project: Project, recipe: Recipe, settings: Sections) -> None:
    """Raise Conflict if a trial is open, and Invalid if there is no prompt, or fewer than two usable checkpoints."""
    check_prompts(project, recipe, settings)
    if trial := project.trials.filter(ended_at__isnull=True).first():
        raise Conflict(_("Trial %(number)s is open: end it before the next one starts.") % {"number": trial.number})
    if len(named_checkpoints.usable_names(project)) < named_checkpoints.FEWEST:
        raise Invalid(_("A trial needs two usable checkpoints: let a round make one, or import one, first."))


@needs(PROMPTS_TO_EVALUATE)
def check_held_out_prompts(project: Project, recipe: Recipe, settings: Sections) -> None:
    """Raise Invalid if there is no held-out prompt."""
    if not Prompt.objects.filter(project=project, split=Prompt.Split.HELD_OUT).exists():
        raise Invalid(_("There are no held-out prompts to evaluate on: add prompts, of which a share is held out."))


def chosen(round_: Round, count: int, split: str | None = None, with_references: bool = False) -> list[int]:
    """Return the ids of at most `count` random prompts: each round has another seed, and a repeat gets the same ids.

    Prompts that were added after the start of the round are left out, because they would change the choice of a resumed
    round. with_references: only prompts with reference answers, which reward terms such as BLEU need.
    """
    prompts = Prompt.objects.filter(project=round_.project, created_at__lte=round_.created_at)
    if split is not None:
        prompts = prompts.filter(split=split)
    if with_references:
        prompts = prompts.exclude(references=[])
    ids = list(prompts.order_by("pk").values_list("pk", flat=True))
    random.Random(round_.settings["round"]["seed"]).shuffle(ids)
    return ids[:count]


def compared(round_: Round) -> list[int]:
    """Return the ids of prompts that the new checkpoint and the base both answer, held-out prompts first.

    If the reward compares with reference answers, prompts that have some come before all others.
    """
    ids = chosen(round_, round_.settings["round"]["prompts"])
    prompts = Prompt.objects.filter(pk__in=ids)
    held_out = set(prompts.filter(split=Prompt.Split.HELD_OUT).values_list("pk", flat=True))
    scored = set(
        prompts.exclude(references=[]).values_list("pk", flat=True) if round_.compares_with_references else ids
    )
    ids.sort(key=lambda pk: (pk not in scored, pk not in held_out))
    return ids[: round_.settings["round"]["shown_prompts"]]


def prompt_rows(ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield rows of prompts.jsonl for these ids, in this order; deleted prompts are left out.

    The lines of a simulated user are those of the prompt's metadata, "user_turns", if it has some.
    """
    for begin in range(0, len(ids), 1000):
        batch = ids[begin : begin + 1000]
        prompts_by_id = Prompt.objects.in_bulk(batch)
        for prompt in (prompts_by_id[pk] for pk in batch if pk in prompts_by_id):
            row = {"prompt_id": prompt.pk, "messages": prompt.messages, "split": prompt.split}
            if prompt.references:
                row["references"] = prompt.references
            if "user_turns" in prompt.metadata:
                row["user_turns"] = prompt.metadata["user_turns"]
            yield row
