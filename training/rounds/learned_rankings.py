"""Rankings that a round would learn from if it started now: how many, of whom, since when, and which it leaves out.

`Selection` (`inputs/rankings.py`), which writes a round's rankings.jsonl, decides and counts. Here it gets groups of
equal rankings that the database has counted, instead of one ranking after the other.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import BooleanField, Count, ExpressionWrapper, F, Max, Min, Q, QuerySet
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from feedback.export import ranking_record
from feedback.models import Project, Prompt, Ranking
from training.learner.runtime.config import CONFIGS
from training.rounds.inputs.rankings import Selection
from training.rounds.recipes.description import RANKINGS, Job, Sections

# Reasons for which rankings are not learned from, in the order of the page.
REASONS: dict[str, str | Promise] = {
    "held_out_rankings": _("on held-out prompts: they only measure"),
    "flagged_rankings": _("with a flag that means not for training"),
    "trial_rankings": _("of trials that must not train"),
    "tied_rankings": _("tied throughout: the settings leave ties out"),
    "gold": _("of gold comparisons, which test people"),
    Ranking.Standing.OVERRULED: _("overruled by a reviewer's own ranking"),
    Ranking.Standing.RETURNED: _("sent back to the annotator by a reviewer"),
    Ranking.Standing.DISCARDED: _("discarded by a reviewer"),
    Ranking.Standing.WITHDRAWN: _("withdrawn by the annotator"),
}
IS_TIED = ExpressionWrapper(Q(ranks__contained_by=[1]), output_field=BooleanField())


@dataclass(frozen=True)
class LeftOut:
    """Rankings that a round does not learn from, and why."""

    reason: str  # a key of REASONS
    sentence: str | Promise
    rankings: int


@dataclass(frozen=True)
class Person:
    """An annotator with the number of rankings that a round learns from."""

    username: str
    is_active: bool
    rankings: int


@dataclass(frozen=True)
class LearnedRankings:
    """Summary of the rankings that a round would learn from."""

    rankings: int
    new: int  # since the cut-off of the last round that learned
    since: datetime | None  # the first one
    until: datetime | None  # the last one
    people: list[Person]  # most rankings first
    left_out: list[LeftOut]

    @property
    def left_out_count(self) -> int:
        return sum(left.rankings for left in self.left_out)

    @property
    def inactive_people(self) -> int:
        """Return how many of the people are deactivated. Their rankings are learned from."""
        return sum(not person.is_active for person in self.people)


def learned_rankings(project: Project, jobs: tuple[Job, ...], settings: Sections) -> LearnedRankings | None:
    """Return the rankings that a round with these jobs would learn from; None if it reads no rankings."""
    reader = next((job for job in jobs if RANKINGS in job.inputs.values()), None)
    if reader is None:
        return None
    selection = Selection(project, {})
    learns_ties = _learns_ties(reader, settings)
    people: Counter[tuple[str, bool]] = Counter()
    times: list[datetime] = []
    new = tied = 0
    for group in _groups(project):
        if not selection.takes(group, group["count"]) or group["split"] == Prompt.Split.HELD_OUT:
            continue
        if group["is_tied"] and not learns_ties:
            tied += group["count"]
            continue
        people[group["username"], group["is_active"]] += group["count"]
        times += [group["first"], group["last"]]
        new += group["new"]
    counts = {**selection.counts, "tied_rankings": tied, **_not_counting(project)}
    return LearnedRankings(
        rankings=people.total(),
        new=new,
        since=min(times, default=None),
        until=max(times, default=None),
        people=[Person(*person, count) for person, count in sorted(people.items(), key=lambda one: (-one[1], one[0]))],
        left_out=[LeftOut(why, text, counts[why]) for why, text in REASONS.items() if counts.get(why)],
    )


def _learns_ties(job: Job, settings: Sections) -> bool:
    """Return whether the program that reads the rankings learns from ties. The labels of kto have no such setting."""
    config: Any = CONFIGS[job.program].from_json({"model": "model", **settings[job.program]})
    return getattr(config, "learns_ties", True)


def _groups(project: Project) -> QuerySet[Ranking, dict[str, Any]]:
    """Return the numbers of rankings that are equal in all that decides whether a round learns from them, by person."""
    last = project.rounds.filter(learns=True).order_by("-number").first()
    is_new = Q(sequence__isnull=True) | Q(sequence__gt=last.cutoff if last else 0)
    return (
        ranking_record.counting_now(project)
        .order_by()
        .values(
            "flags",
            split=F("comparison__prompt__split"),
            trial=F("comparison__trial__number"),
            username=F("annotator__username"),
            is_active=F("annotator__is_active"),
            is_tied=IS_TIED,
        )
        .annotate(count=Count("pk"), new=Count("pk", filter=is_new), first=Min("created_at"), last=Max("created_at"))
    )


def _not_counting(project: Project) -> dict[str, int]:
    """Return the numbers of rankings that no round reads: of gold, or taken out by a reviewer or their annotator."""
    is_gold = ExpressionWrapper(~ranking_record.NOT_GOLD, output_field=BooleanField())
    rows = ranking_record.not_counting_now(project).order_by().values("standing", is_gold=is_gold)
    counts: Counter[str] = Counter()
    for row in rows.annotate(count=Count("pk")):
        counts["gold" if row["is_gold"] else row["standing"]] += row["count"]
    return counts
