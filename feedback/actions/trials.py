"""Trials: start one from completions of two to four sources, and end it with a decision.

The comparisons of a trial are ordinary ones in a queue of their own (`feedback/queue/claim.py`), with the display
orders of all comparisons, so that no annotator can tell them or their sources apart.

Lock order: the project, then comparisons by id.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Exists, F, OuterRef, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback import audit, imports, validation, webhooks
from feedback.dialogues import visible_key
from feedback.errors import Conflict, Invalid, NotFound
from feedback.models import (
    ComparisonItem,
    Completion,
    Demonstration,
    Project,
    Prompt,
    Source,
    Trial,
    TrialSource,
    User,
)
from feedback.models.trials import MAX_SOURCES
from feedback.queue.worked_on import reasons_to_keep

MIN_SOURCES = 2
HELD_OUT_PRIORITY, TRAIN_PRIORITY = 1, 0
MAX_NOTE_LENGTH = 1000  # characters
DECISIONS = tuple(Trial.Outcome.values)


@dataclass(frozen=True)
class _Groups:
    """Completions of the prompts of a trial, one of each source, by the order of the sources."""

    held_out: list[list[int]]
    train: list[list[int]]
    identical: int  # prompts on which all sources wrote the same text
    partly_identical: int  # prompts on which some of them did


@transaction.atomic
def start_trial(
    project: Project,
    sources: Sequence[Source],
    *,
    completions: Iterable[int] | None = None,
    share: int = 25,
    may_train: bool = True,
    worthwhile_share: float = 0.5,
    actor: User | None = None,
    most_prompts: int | None = None,
) -> Trial:
    """Start a trial of sources[1:], the candidates, against sources[0], such as the source of the served checkpoint.

    It gets one comparison, of one completion of each source, for each prompt that all sources have answered, held-out
    prompts first. Completions of other trials are passed over, and so are withdrawn and discarded demonstrations.

    A prompt on which all sources wrote the same text makes no comparison and counts as a tie. A prompt on which only
    some of three or four sources did is left out: a comparison shows no text twice, and a vote of people who see one
    source less would be missing for that source only. Leaving it out favours no source, since it depends on which
    texts are equal and not on whose they are.

    completions: use these only (ids of completions by the sources). share: percent of everybody's work. may_train:
    whether rounds may learn from the rankings on training prompts. worthwhile_share: a candidate that surely wins fewer
    of the decisive votes is futile. most_prompts: use at most so many prompts, drawn at random.

    Raises Invalid for values out of their range, Conflict if a trial is open, a source is retired, the project is
    archived or no prompt is left to compare on.
    """
    _check(project, sources, share, worthwhile_share, most_prompts)
    locked = _lock_project(project)
    if locked.archived_at is not None:
        raise Conflict(_("This project is archived: no trial can start in it."))
    if (open_trial := Trial.objects.filter(project=locked, ended_at__isnull=True).first()) is not None:
        raise Conflict(
            _("Trial %(number)s is open: end it before the next one starts.") % {"number": open_trial.number}
        )
    # Read after the lock: a source may have been retired since the caller read it.
    if (retired := locked.sources.filter(pk__in=[one.pk for one in sources], is_retired=True).first()) is not None:
        raise Conflict(_("%(name)s is retired: bring it back first, or compare other sources.") % {"name": retired})
    imports.block_undo(locked)
    groups = _groups(_stored(sources, completions), sources, most_prompts)
    last = locked.trials.order_by("-number").values_list("number", flat=True).first()
    trial = Trial.objects.create(
        project=locked,
        number=(last or 0) + 1,
        share=share,
        may_train=may_train,
        worthwhile_share=worthwhile_share,
        identical=groups.identical,
        partly_identical=groups.partly_identical,
        started_by=actor,
    )
    TrialSource.objects.bulk_create(
        TrialSource(trial=trial, source=source, position=position) for position, source in enumerate(sources)
    )
    for part, priority in ((groups.held_out, HELD_OUT_PRIORITY), (groups.train, TRAIN_PRIORITY)):
        imports.add_comparisons(locked, part, wanted_rankings=1, priority=priority, again=True, trial=trial)
    _set_share(project, share)
    values = {"sources": [source.name for source in sources], "share": share, "may_train": may_train}
    audit.record("trial.start", project, trial, after=values, actor=actor)
    return trial


@transaction.atomic
def end_trial(
    trial: Trial, *, decision: str, chosen: Source | None = None, note: str = "", actor: User | None = None
) -> Trial:
    """End an open trial with a decision, and return it.

    Comparisons that nobody has ranked, skipped or holds are deleted. The others stay, and nobody gets them any more; a
    ranking that an annotator is making of one is stored, and is no vote of the trial.

    decision: one of DECISIONS. chosen: the source that it favours, one of the trial's. actor: None if the rule ends it.
    Raises Conflict if the trial has ended, Invalid for another decision or source.
    """
    note = validation.text(note, _("The note"), MAX_NOTE_LENGTH)
    if decision not in DECISIONS:
        raise Invalid(_("The decision must be one of: %(known)s.") % {"known": ", ".join(DECISIONS)})
    if chosen is not None and not trial.trial_sources.filter(source=chosen).exists():
        raise Invalid(_('"%(name)s" is not a source of this trial.') % {"name": chosen.name})
    project = _lock_project(trial.project)
    trial.refresh_from_db()
    if not trial.is_open:
        raise Conflict(_("Trial %(number)s has ended already.") % {"number": trial.number})
    _set_share(project, 0)
    trial.project.trial_percent = 0
    rows = list(reasons_to_keep(trial.comparisons.all(), may_wait=True))
    imports.delete_rows("comparisons", [pk for pk, reason in rows if not reason])
    trial.decision, trial.chosen, trial.decision_note = str(decision), chosen, note
    trial.ended_at, trial.ended_by = timezone.now(), actor
    trial.save(update_fields=["decision", "chosen", "decision_note", "ended_at", "ended_by"])
    values = {"decision": trial.decision, "chosen": chosen.name if chosen else None}
    audit.record("trial.end", project, trial, after=values, actor=actor)
    webhooks.emit(
        project, "trial.decided", f"trial:{trial.number}", {"project": project.slug, "trial": trial.number, **values}
    )
    return trial


def find_trial(project: Project, number: int) -> Trial:
    """Return the project's trial with this number. Raises NotFound."""
    trial = project.trials.select_related("project", "chosen").filter(number=number).first()
    if trial is None:
        raise NotFound(_("There is no trial %(number)s in this project.") % {"number": number})
    return trial


def _lock_project(project: Project) -> Project:
    return Project.objects.select_for_update(no_key=True).get(pk=project.pk)


def _set_share(project: Project, percent: int) -> None:
    project.trial_percent = percent
    Project.objects.filter(pk=project.pk).update(trial_percent=percent)


def _check(
    project: Project, sources: Sequence[Source], share: int, worthwhile_share: float, most_prompts: int | None
) -> None:
    """Raise Invalid for values out of their range."""
    if not MIN_SOURCES <= len(sources) <= MAX_SOURCES or len(set(sources)) < len(sources):
        raise Invalid(_("A trial compares two to four different sources."))
    if any(source.project_id != project.pk for source in sources):
        raise Invalid(_("This source belongs to another project."))
    if not 1 <= share <= 100:
        raise Invalid(_("The share must be between 1 and 100 percent."))
    if not 0.5 <= worthwhile_share < 1:
        raise Invalid(_("worthwhile_share must be at least 0.5 and less than 1."))
    if most_prompts is not None and most_prompts < 1:
        raise Invalid(_("most_prompts must be at least 1."))


def _stored(sources: Sequence[Source], ids: Iterable[int] | None) -> QuerySet[Completion]:
    """Return the completions of the sources that may be compared. Raises Invalid for an id of another source."""
    stored = Completion.objects.filter(source__in=sources)
    if ids is not None:
        wanted = set(ids)
        stored = stored.filter(pk__in=wanted)
        if missing := wanted.difference(stored.values_list("pk", flat=True)):
            raise Invalid(_("The sources have no completion %(min)s.") % {"min": min(missing)})
    in_a_trial = ComparisonItem.objects.filter(completion=OuterRef("pk"), comparison__trial__isnull=False)
    demonstrations = Demonstration.objects.counting_in(sources[0].project)
    taken_back = Demonstration.objects.filter(completion=OuterRef("pk")).exclude(pk__in=demonstrations.values("pk"))
    return stored.exclude(Exists(in_a_trial) | Exists(taken_back))


def _groups(stored: QuerySet[Completion], sources: Sequence[Source], most_prompts: int | None) -> _Groups:
    """Return the completions to compare, of each source the oldest one. Raises Conflict if there are none."""
    by_prompt: dict[int, dict[int, Completion]] = defaultdict(dict)
    held_out: set[int] = set()
    for completion in stored.annotate(split=F("prompt__split")).order_by("pk").iterator(chunk_size=2000):
        by_prompt[completion.prompt_id].setdefault(completion.source_id, completion)
        if completion.split == Prompt.Split.HELD_OUT:
            held_out.add(completion.prompt_id)
    common = [prompt_id for prompt_id, answers in by_prompt.items() if len(answers) == len(sources)]
    if not common:
        raise Conflict(
            _("There is no prompt that all sources have answered with completions that no other trial has used.")
        )
    random.shuffle(common)
    common.sort(key=lambda prompt_id: prompt_id not in held_out)
    parts: dict[bool, list[list[int]]] = {True: [], False: []}  # by whether the prompts are held out
    identical = partly_identical = 0
    for prompt_id in common[:most_prompts]:
        answers = [by_prompt[prompt_id][source.pk] for source in sources]
        texts = len({visible_key(answer.answer) for answer in answers})
        identical += texts == 1
        partly_identical += 1 < texts < len(sources)
        if texts == len(sources):
            parts[prompt_id in held_out].append([answer.pk for answer in answers])
    if not (parts[True] or parts[False]):
        raise Conflict(_("The sources wrote the same texts on every prompt: there is nothing to compare."))
    return _Groups(parts[True], parts[False], identical, partly_identical)
