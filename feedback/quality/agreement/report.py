"""Agreement of a project's rankings: overall, of each annotator, of every two annotators, and by week."""

from collections.abc import Iterable
from datetime import date, datetime

import numpy as np
from django.db.models import Exists, OuterRef

from feedback.models import Lease, Project, Ranking
from feedback.quality.agreement.counting import measure_groups
from feedback.quality.agreement.estimates import Agreement, AgreementMeasures, AnnotatorAgreement
from feedback.quality.agreement.pairwise import PairCounts, concatenate, count_pairs
from feedback.quality.ranking_arrays import Floats, Integers
from feedback.quality.ranking_rows import AGREEMENT_COLUMNS, RankingRow, read_rankings


def measure(project: Project) -> Agreement:
    """Return the agreement of the project's live rankings. Runs one query."""
    shared = Ranking.objects.live_in(project).filter(comparison__ranking_count__gte=2)
    return measure_rankings(read_rankings(shared, AGREEMENT_COLUMNS))


def measure_rankings(rankings: Iterable[RankingRow]) -> Agreement:
    """Return the agreement of rankings, of which each annotator made at most one per comparison."""
    pairs = count_pairs(filter(_is_measured, rankings))
    both_directions = concatenate([pairs, pairs])
    either = np.concatenate([pairs.one, pairs.other])
    two, two_index = np.unique(np.stack([pairs.one, pairs.other], axis=1), axis=0, return_inverse=True)
    by_two_index = _measure_by(two_index.reshape(-1), pairs, np.ones(len(pairs.annotators)))
    return Agreement(
        _measure_overall(pairs),
        _measure_by(either, both_directions, _alpha_weights(both_directions)),
        {(int(two[index][0]), int(two[index][1])): measures for index, measures in by_two_index.items()},
        _measure_by_week(pairs),
    )


def of_annotator(project: Project, user_id: int, until: datetime | None = None) -> AnnotatorAgreement:
    """Return one annotator's agreement with others; reads only comparisons they ranked.

    until: count the rankings as they were at that moment; nothing that happens later changes the result.
    """
    of_everybody = Ranking.objects.live_in(project, until=until)
    of_same_comparison = of_everybody.filter(annotator=user_id, comparison=OuterRef("comparison"))
    rankings = read_rankings(of_everybody.filter(Exists(of_same_comparison)), AGREEMENT_COLUMNS)
    pairs = count_pairs(filter(_is_measured, rankings))
    of_this_annotator = pairs.select((pairs.one == user_id) | (pairs.other == user_id))
    return AnnotatorAgreement(_measure_overall(of_this_annotator), _measure_by_week(of_this_annotator))


def _is_measured(ranking: RankingRow) -> bool:
    """Leave out gold, whose ranking is known, and extra rankings.

    Extra rankings were requested because others disagreed. If they were included, annotators would seem to agree less
    than they do on comparisons that are drawn at random.
    """
    return ranking.gold_ranks is None and ranking.reason != Lease.Reason.DISAGREEMENT


def _measure_overall(pairs: PairCounts) -> AgreementMeasures:
    one_group = np.zeros(len(pairs.annotators), dtype=np.int64)
    measures = _measure_by(one_group, pairs, _alpha_weights(pairs)).get(0)
    return measures or measure_groups([], np.zeros((0, 4)), np.zeros(0))[0]


def _measure_by_week(pairs: PairCounts) -> dict[date, AgreementMeasures]:
    by_monday = _measure_by(pairs.monday, pairs, _alpha_weights(pairs))
    return {date.fromordinal(monday): measures for monday, measures in by_monday.items()}


def _alpha_weights(pairs: PairCounts) -> Floats:
    """Return 1/(m − 1), the weight of a pair of values in a unit with m values (Krippendorff 2011)."""
    return 1 / (pairs.annotators - 1)


def _measure_by(group: Integers, pairs: PairCounts, weights: Floats) -> dict[int, AgreementMeasures]:
    """Return the agreement of each group of rows; `group` [M] are the ids of the groups.

    Rows of one group and one comparison are summed, since the comparison is the sampling unit.
    """
    if not len(group):
        return {}
    order = np.lexsort((pairs.comparison, group))
    keys = np.stack([group[order], pairs.comparison[order]], axis=1)
    starts = np.flatnonzero(np.concatenate([[True], (keys[1:] != keys[:-1]).any(axis=1)]))
    counts = np.add.reduceat(pairs.counts[order], starts)
    groups, first = np.unique(keys[starts, 0], return_index=True)
    # All rows of a comparison have the same weight, because it depends on the number of annotators alone.
    measures = measure_groups(first, counts, weights[order][starts])
    return dict(zip(groups.tolist(), measures, strict=True))
