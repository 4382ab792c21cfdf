"""The lineage of a project's checkpoints: which one started from which, as rows of a graph, and what people say of it.

The graph is that of version control: one row for each checkpoint, roots first, each one below its base. A line goes
down from a base to its children. One child continues the line of its base (the one that leads to the served checkpoint,
else the one with most descendants); the lines of the others branch off to the right. So with n checkpoints there are
at most log2(n) + 2 lines beside each other.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from feedback.errors import NotComputedYet
from feedback.models import Project
from feedback.quality.ratings import Rating
from feedback.reports.source_ratings import get_ratings
from training import guards, reports
from training.guards import Divergence
from training.models import Checkpoint


@dataclass(frozen=True)
class Place:
    """Place of a checkpoint in the graph, a row of it. Lanes are columns, from 0."""

    pk: int
    lane: int
    passing: tuple[int, ...]  # lanes of the lines that pass the row
    branches_from: int | None  # lane that its line branches off from; None: the line comes from above, or it is a root
    has_line_above: bool
    has_line_below: bool  # it has children


@dataclass(frozen=True)
class Entry:
    """A checkpoint of the lineage."""

    checkpoint: Checkpoint
    place: Place
    rating: Rating | None  # of people; None: nobody ranked one of its completions
    kl: Divergence | None  # from the root; None: not measured, or it is imported


@dataclass(frozen=True)
class Lineage:
    entries: list[Entry]
    lanes: int
    refusal: str  # why there are no ratings yet, or ""


def lineage_of(project: Project) -> Lineage:
    """Return the project's lineage, retired checkpoints included."""
    checkpoints = {checkpoint.pk: checkpoint for checkpoint in reports.checkpoints_of(project).order_by("pk")}
    served = next((one.pk for one in checkpoints.values() if one.is_served), None)
    places = layout({pk: one.parent_id for pk, one in checkpoints.items()}, served)
    ratings, refusal = _ratings(project)
    entries = [
        Entry(checkpoints[place.pk], place, ratings.get(checkpoints[place.pk].source_id), _kl(checkpoints[place.pk]))
        for place in places
    ]
    return Lineage(entries, 1 + max((place.lane for place in places), default=0), refusal)


def layout(parents: Mapping[int, int | None], served: int | None = None) -> list[Place]:
    """Return the places of checkpoints in the order of the rows. parents: ids, older checkpoints first."""
    children: dict[int | None, list[int]] = defaultdict(list)
    for pk, parent in parents.items():
        children[parent].append(pk)
    descendants = dict.fromkeys(parents, 1)
    for pk, parent in reversed(list(parents.items())):  # a checkpoint is younger than its base
        if parent is not None:
            descendants[parent] += descendants[pk]
    leads_to_served = set()
    while served is not None:
        leads_to_served.add(served)
        served = parents[served]
    places = []
    # Pushed in reverse, because the last one pushed comes next. Not recursive: a line can have hundreds of rounds.
    stack: list[tuple[int, int, tuple[int, ...], int | None]] = [(pk, 0, (), None) for pk in reversed(children[None])]
    while stack:
        pk, lane, passing, branches_from = stack.pop()
        has_line_above = parents[pk] is not None and branches_from is None
        places.append(Place(pk, lane, passing, branches_from, has_line_above, bool(children[pk])))
        if not children[pk]:
            continue
        main = max(children[pk], key=lambda child: (child in leads_to_served, descendants[child], -child))
        stack.append((main, lane, passing, None))
        others = [child for child in children[pk] if child != main]
        stack += [(child, lane + 1, (*passing, lane), lane) for child in reversed(others)]
    return places


def _ratings(project: Project) -> tuple[dict[int, Rating], str]:
    """Return the ratings by source, and why there are none yet, or ""."""
    try:
        ratings = get_ratings(project).ratings.ratings
    except NotComputedYet as refusal:
        return {}, refusal.message
    return {rating.source_id: rating for rating in ratings}, ""


def _kl(checkpoint: Checkpoint) -> Divergence | None:
    made_by = getattr(checkpoint, "round", None)
    return guards.kl_from_root(made_by) if made_by else None
