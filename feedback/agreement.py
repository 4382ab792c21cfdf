"""How far people agree about the same comparisons.

The unit of everything here is a pair of completions of one comparison, as two people who ranked it see it: the first
is better, the second is better, or they tie. Pairs of one comparison are not independent, so every interval treats
the comparison as the thing that was sampled.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import combinations, groupby
from operator import itemgetter

from feedback.models import Project, Ranking

Z = 1.959964  # the normal distribution's 97.5 % point
NOBODY_TWICE = (
    "No comparison has been ranked by two people yet: let at least a part of the comparisons be ranked by two or more."
)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; `value` is None when it is undefined, and `sentence` says why."""

    value: float | None
    low: float | None
    high: float | None
    pairs: int  # pairs of completions, counted once for each two people who ranked them
    comparisons: int  # in which they were seen
    sentence: str


@dataclass(frozen=True)
class Agreement:
    """All that is known of a project's agreement."""

    pairwise: Estimate
    alpha: Estimate
    by_annotator: dict[int, Estimate]  # by user id: with all others
    by_two: dict[tuple[int, int], Estimate]  # by two user ids, the lower one first
    by_week: dict[date, Estimate]  # by the Monday of the later ranking's week


@dataclass
class Tally:
    """Pairs on which two people both preferred one completion, by comparison: (same one, all)."""

    by_comparison: dict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def add(self, comparison_id: int, same: int, all_: int) -> None:
        if all_:
            counts = self.by_comparison[comparison_id]
            counts[0] += same
            counts[1] += all_

    def estimate(self) -> Estimate:
        return share([(same, all_) for same, all_ in self.by_comparison.values()])


@dataclass(frozen=True)
class Said:
    """A live ranking, as far as agreement goes."""

    comparison_id: int
    annotator_id: int
    ranks: Sequence[int]
    created_at: datetime


def measure(project: Project) -> Agreement:
    """Agreement of the project's live rankings, in one pass over the comparisons that several people ranked."""
    overall = Tally()
    by_annotator: dict[int, Tally] = defaultdict(Tally)
    by_two: dict[tuple[int, int], Tally] = defaultdict(Tally)
    by_week: dict[date, Tally] = defaultdict(Tally)
    coincidences: list[Counter[tuple[int, int]]] = []
    for comparison_id, said in _ranked_by_several(project):
        coincidences.append(_coincidences_of(said))
        for one, other in combinations(said, 2):
            counts = same_preference(one.ranks, other.ranks)
            two = (min(one.annotator_id, other.annotator_id), max(one.annotator_id, other.annotator_id))
            week = _monday(max(one.created_at, other.created_at))
            for tally in (overall, by_annotator[two[0]], by_annotator[two[1]], by_two[two], by_week[week]):
                tally.add(comparison_id, *counts)
    return Agreement(
        overall.estimate(),
        alpha(coincidences),
        {each: tally.estimate() for each, tally in sorted(by_annotator.items())},
        {each: tally.estimate() for each, tally in sorted(by_two.items())},
        {each: tally.estimate() for each, tally in sorted(by_week.items())},
    )


def same_preference(one: Sequence[int], other: Sequence[int]) -> tuple[int, int]:
    """Of the pairs in which both rankings prefer one completion: (how many prefer the same one, how many)."""
    same = all_ = 0
    for i, j in combinations(range(len(one)), 2):
        product = _sign(one[i] - one[j]) * _sign(other[i] - other[j])
        same += product > 0
        all_ += product != 0
    return same, all_


OF_TWO_PEOPLE = "Two people prefer the same completion in {value:.0%} of {pairs:,} pairs ({low:.0%} to {high:.0%})."


def share(counts: Sequence[tuple[int, int]], sentence: str = OF_TWO_PEOPLE) -> Estimate:
    """The share Σ same / Σ all over comparisons, with a Wilson interval for the effective number of pairs.

    The variance is that of a ratio estimator over clusters (Cochran 1977, Sampling Techniques, §2.11); the effective
    number is n divided by the design effect (Kish 1965), never more than n; and Wilson's interval (1927) takes it in
    place of n, as Dean and Pagano (2015) recommend. Without any disagreement the design effect is unknown, and the
    number of comparisons is taken.
    """
    used = [(same, all_) for same, all_ in counts if all_]
    pairs, comparisons = sum(all_ for _, all_ in used), len(used)
    if not pairs:
        return Estimate(None, None, None, 0, 0, NOBODY_TWICE)
    value = sum(same for same, _ in used) / pairs
    effective = min(pairs, _effective(used, value, pairs))
    low, high = wilson(value, effective)
    told = sentence.format(value=value, low=low, high=high, pairs=pairs)
    return Estimate(value, low, high, pairs, comparisons, told)


def _effective(used: Sequence[tuple[int, int]], value: float, pairs: int) -> float:
    clusters = len(used)
    if value in (0.0, 1.0) or clusters == 1:
        return clusters
    spread = sum((same - value * all_) ** 2 for same, all_ in used)
    variance = clusters / (clusters - 1) * spread / pairs**2
    return value * (1 - value) / variance if variance > 0 else clusters


def wilson(value: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share seen in n trials."""
    centre = value + Z * Z / (2 * n)
    margin = Z * math.sqrt(value * (1 - value) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    return max(0.0, (centre - margin) / scale), min(1.0, (centre + margin) / scale)


def alpha(coincidences: Sequence[Counter[tuple[int, int]]]) -> Estimate:
    """Krippendorff's alpha, ordinal, of coincidences by comparison; the interval by the jackknife over comparisons.

    The jackknife leaves out one comparison at a time (Efron and Tibshirani 1993, §11).
    """
    total: Counter[tuple[int, int]] = Counter()
    for each in coincidences:
        total.update(each)
    value = ordinal_alpha(total)
    seen = round(sum(total.values()) / 2)  # each pair was counted in both directions
    if not total:
        return Estimate(None, None, None, 0, 0, NOBODY_TWICE)
    if value is None:
        sentence = "Everybody called everything a tie: without any difference there is nothing to agree about."
        return Estimate(None, None, None, seen, len(coincidences), sentence)
    without = [ordinal_alpha(_minus(total, each)) for each in coincidences]
    left = [each for each in without if each is not None]
    if len(left) < 2:
        sentence = f"Krippendorff's alpha is {value:.2f}, from too few comparisons for an interval."
        return Estimate(value, None, None, seen, len(coincidences), sentence)
    mean = sum(left) / len(left)
    error = math.sqrt((len(left) - 1) / len(left) * sum((each - mean) ** 2 for each in left))
    low, high = max(-1.0, value - Z * error), min(1.0, value + Z * error)
    sentence = f"Krippendorff's alpha is {value:.2f} ({low:.2f} to {high:.2f}); 1 is agreement, 0 is chance."
    return Estimate(value, low, high, seen, len(coincidences), sentence)


def coincidence_matrix(units: Iterable[Sequence[int]]) -> Counter[tuple[int, int]]:
    """o[c, k]: each unit's m values give its ordered pairs of values, each with weight 1/(m − 1).

    Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, §C. Units with one value say nothing.
    """
    matrix: Counter[tuple[int, int]] = Counter()
    for values in units:
        count = Counter(values)
        if len(values) < 2:
            continue
        for one, ones in count.items():
            for other, others in count.items():
                matrix[one, other] += ones * (others - (one == other)) / (len(values) - 1)  # type: ignore[assignment]
    return +matrix


def ordinal_alpha(matrix: Counter[tuple[int, int]]) -> float | None:
    """α = 1 − D_o/D_e with Krippendorff's ordinal metric; None when all values are the same.

    δ²(c, k) = (Σ_{g=c..k} n_g − (n_c + n_k)/2)², where n are the matrix's marginals (same source, §E).
    """
    marginal: Counter[int] = Counter()
    for (one, _), weight in matrix.items():
        marginal[one] += weight
    levels = sorted(marginal)
    n = sum(marginal.values())
    observed = expected = 0.0
    for index, one in enumerate(levels):
        for other in levels[index + 1 :]:
            between = sum(marginal[level] for level in levels if one <= level <= other)
            distance = (between - (marginal[one] + marginal[other]) / 2) ** 2
            observed += matrix[one, other] * distance
            expected += marginal[one] * marginal[other] * distance
    return None if expected == 0 else 1 - (n - 1) * observed / expected


def _coincidences_of(said: Sequence[Said]) -> Counter[tuple[int, int]]:
    """Of each pair of completions, in both directions, so that the order of positions means nothing."""
    size = len(said[0].ranks)
    return coincidence_matrix(
        [_sign(each.ranks[j] - each.ranks[i]) for each in said] for i in range(size) for j in range(size) if i != j
    )


def _minus(total: Counter[tuple[int, int]], part: Counter[tuple[int, int]]) -> Counter[tuple[int, int]]:
    left = Counter({key: weight - part[key] for key, weight in total.items()})
    return Counter({key: weight for key, weight in left.items() if weight > 1e-9})


def _ranked_by_several(project: Project) -> Iterator[tuple[int, list[Said]]]:
    live = Ranking.objects.filter(comparison__project=project, is_live=True, comparison__ranking_count__gte=2)
    live = live.filter(comparison__gold_ranks__isnull=True)  # known answers are no opinions
    rows = live.order_by("comparison_id", "annotator_id").values_list(
        "comparison_id", "annotator_id", "ranks", "created_at"
    )
    for comparison_id, group in groupby(rows.iterator(chunk_size=2000), key=itemgetter(0)):
        said = [Said(*row) for row in group]
        if len(said) > 1:
            yield comparison_id, said


def _monday(moment: datetime) -> date:
    return moment.date() - timedelta(days=moment.weekday())


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
