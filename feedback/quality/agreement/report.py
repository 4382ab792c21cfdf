"""Agreement of a project's rankings: altogether, of each annotator, of each two, and by week."""

from collections.abc import Iterable
from datetime import date, datetime

import numpy as np
from django.db.models import Exists, OuterRef

from feedback.models import Lease, Project, Ranking
from feedback.quality.agreement.counting import agreed
from feedback.quality.agreement.estimates import Agreed, Agreement, OfAnnotator
from feedback.quality.agreement.pairwise import Floats, Integers, Meetings, Said, joined, meetings


def measure(project: Project) -> Agreement:
    """Agreement of the project's live rankings: one query, whatever there is to count."""
    return agreement_of(_ranked_by_several(project))


def agreement_of(said: Iterable[Said]) -> Agreement:
    """Agreement of these rankings, of which a person has made at most one of each comparison."""
    met = meetings(said)
    both = joined([met, met])
    either = np.concatenate([met.one, met.other])
    two, two_of = np.unique(np.stack([met.one, met.other], axis=1), axis=0, return_inverse=True)
    pairs = _by(two_of.reshape(-1), met, np.ones(len(met.people)))
    return Agreement(
        _overall(met),
        _by(either, both, _weights(both)),
        {(int(two[index][0]), int(two[index][1])): each for index, each in pairs.items()},
        _by_week(met),
    )


def of_annotator(project: Project, user_id: int, until: datetime | None = None) -> OfAnnotator:
    """The same of one annotator alone (as it was then), reading only the comparisons that they ranked."""
    met = meetings(_ranked_by_several(project, user_id, until=until))
    own = met.where((met.one == user_id) | (met.other == user_id))
    return OfAnnotator(_overall(own), _by_week(own))


def _overall(met: Meetings) -> Agreed:
    everything = np.zeros(len(met.people), dtype=np.int64)
    return _by(everything, met, _weights(met)).get(0) or agreed([], np.zeros((0, 4)), np.zeros(0))[0]


def _by_week(met: Meetings) -> dict[date, Agreed]:
    return {date.fromordinal(monday): each for monday, each in _by(met.monday, met, _weights(met)).items()}


def _weights(met: Meetings) -> Floats:
    """Krippendorff (2011): the pairs of values of a unit that m people judged count 1/(m − 1) each."""
    return 1 / (met.people - 1)


def _by(group: Integers, met: Meetings, weights: Floats) -> dict[int, Agreed]:
    """Agreement of the meetings of each group; `group` [M] are its ids.

    Meetings of a group over the same comparison are put together, since the comparison is what was sampled.
    """
    if not len(group):
        return {}
    order = np.lexsort((met.comparison, group))
    keys = np.stack([group[order], met.comparison[order]], axis=1)
    starts = np.flatnonzero(np.concatenate([[True], (keys[1:] != keys[:-1]).any(axis=1)]))
    counts = np.add.reduceat(met.counts[order], starts)
    groups, first = np.unique(keys[starts, 0], return_index=True)
    # A comparison's meetings have one weight: as many people ranked it for each of them.
    return dict(zip(groups.tolist(), agreed(first, counts, weights[order][starts]), strict=True))


def _ranked_by_several(project: Project, user_id: int | None = None, *, until: datetime | None = None) -> list[Said]:
    """Live rankings of what several people ranked, of their own accord.

    Without gold, whose answers are no opinions; and without what was asked for because others disagreed: those
    comparisons were chosen for their disagreement, and would make people look as if they agreed less than they do.
    """
    live = Ranking.objects.live_in(project, until=until).exclude(reason=Lease.Reason.DISAGREEMENT)
    live = live.filter(comparison__ranking_count__gte=2, comparison__gold_ranks__isnull=True)
    if user_id is not None:
        own = Ranking.objects.live_in(project).filter(annotator=user_id, comparison=OuterRef("comparison"))
        live = live.filter(Exists(own))
    rows = live.values_list("comparison_id", "annotator_id", "ranks", "created_at")
    return [Said(*row) for row in rows.iterator(chunk_size=5000)]
