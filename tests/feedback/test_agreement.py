"""Agreement between annotators, against other libraries and numbers computed by hand."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import combinations

import krippendorff
import numpy as np
import pytest

from feedback.actions import rankings
from feedback.models import Ranking
from feedback.quality import agreement
from feedback.quality.agreement import count_equal_preferences, share, wilson_interval
from feedback.quality.agreement.counting import ordinal_alpha
from feedback.quality.agreement.report import measure_rankings
from feedback.quality.ranking_rows import RankingRow
from feedback.queue import leases
from tests.factories import membership, person, rank_next


def values_as_counts(one, other):
    """The counts of two people's values −1, 0, 1 on the same pairs: same, opposed, one tie, both tie."""
    kinds = Counter("same" if a == b != 0 else "opposed" if a == -b != 0 else "both" if a == b else "one"
                    for a, b in zip(one, other, strict=True))  # fmt: skip
    return [kinds["same"], kinds["opposed"], kinds["one"], kinds["both"]]


def alpha_elsewhere(rows):
    """Return alpha by the package `krippendorff`, with each pair in both directions."""
    table = np.array(rows, dtype=float)
    return krippendorff.alpha(
        np.concatenate([table, -table], axis=1), level_of_measurement="ordinal", value_domain=[-1, 0, 1]
    )


@pytest.mark.parametrize("ties", [0.0, 0.2, 0.9])
def test_alpha_of_two_people_equals_that_of_the_krippendorff_package(ties):
    generator = random.Random(1)
    one = [0 if generator.random() < ties else generator.choice([-1, 1]) for _ in range(200)]
    other = [value if generator.random() < 0.7 else generator.choice([-1, 0, 1]) for value in one]
    counts = np.array(values_as_counts(one, other), dtype=float)
    assert ordinal_alpha(counts) == pytest.approx(alpha_elsewhere([one, other]), abs=1e-12)


def test_alpha_is_one_for_agreement_negative_for_opposites_and_zero_for_chance():
    found = ordinal_alpha(np.array([[9.0, 0, 0, 0], [0, 9, 0, 0], [5000, 5000, 0, 0]]))
    assert found[0] == 1
    assert found[1] < -0.9
    assert abs(found[2]) < 1e-3


def test_alpha_without_variation_is_undefined():
    assert np.isnan(ordinal_alpha(np.array([[0.0, 0, 0, 7], [0, 0, 0, 0]]))).all()


def simulated(people, comparisons, size, seed=3, noise=0.7):
    """Yield rankings with ties by 2 to `people` annotators of each comparison, from noisy qualities."""
    generator, day = random.Random(seed), datetime(2026, 3, 2, tzinfo=UTC)
    for pk in range(comparisons):
        truth = [generator.gauss(0, 1) for _ in range(size)]
        for person_id in generator.sample(range(people), generator.randint(2, people)):
            perceived = [round(value + generator.gauss(0, noise)) for value in truth]
            levels = sorted(set(perceived), reverse=True)
            ranks = [1 + levels.index(value) for value in perceived]
            yield RankingRow(pk, person_id, ranks, created_at=day + timedelta(days=generator.randrange(28)))


def units_of(rows, chosen=lambda row: True):
    """Return a row per person and a column per pair of completions of each comparison, for the other library."""
    columns = {}
    for row in filter(chosen, rows):
        for i, j in combinations(range(len(row.ranks)), 2):
            sign = (row.ranks[j] > row.ranks[i]) - (row.ranks[j] < row.ranks[i])
            columns.setdefault((row.comparison_id, i, j), {})[row.annotator_id] = sign
    everyone = sorted({pk for column in columns.values() for pk in column})
    return [[column.get(pk, np.nan) for column in columns.values()] for pk in everyone]


@pytest.mark.parametrize("size", [2, 4])
def test_alpha_with_missing_rankings_equals_that_of_the_krippendorff_package(size):
    rows = list(simulated(people=5, comparisons=60, size=size))
    assert measure_rankings(rows).alpha.value == pytest.approx(alpha_elsewhere(units_of(rows)), abs=1e-12)


def test_alpha_of_two_people_counts_only_their_common_comparisons():
    rows = list(simulated(people=4, comparisons=60, size=3))
    by_two = measure_rankings(rows).by_two
    assert sorted(by_two) == list(combinations(range(4), 2))
    for two, found in by_two.items():
        columns = np.array(units_of(rows, lambda row, two=two: row.annotator_id in two), dtype=float)
        both = columns[:, ~np.isnan(columns).any(axis=0)]
        assert found.alpha.value == pytest.approx(alpha_elsewhere(both), abs=1e-12)


def test_alpha_of_an_annotator_compares_them_with_every_other_annotator():
    """Compute 1 − D_o/D_e by hand from their pairs of values with others, which weigh 1/(m − 1)."""
    rows = list(simulated(people=4, comparisons=40, size=2))
    ranked = {}
    for row in rows:
        ranked.setdefault(row.comparison_id, {})[row.annotator_id] = (row.ranks > row.ranks[::-1]) - (
            row.ranks < row.ranks[::-1]
        )
    matrix = Counter()
    for values in ranked.values():
        for other, value in values.items():
            if 2 in values and other != 2:
                for sign in (1, -1):
                    matrix[sign * values[2], sign * value] += 1 / (len(values) - 1)
                    matrix[sign * value, sign * values[2]] += 1 / (len(values) - 1)
    n = {level: sum(weight for (one, _), weight in matrix.items() if one == level) for level in (-1, 0, 1)}
    between = {(0, 1): (n[0] + n[1]) / 2, (-1, 0): (n[-1] + n[0]) / 2, (-1, 1): n[0] + (n[-1] + n[1]) / 2}
    observed = sum(matrix[pair] * distance**2 for pair, distance in between.items())
    expected = sum(n[pair[0]] * n[pair[1]] * distance**2 for pair, distance in between.items())
    by_hand = 1 - (sum(n.values()) - 1) * observed / expected
    assert measure_rankings(rows).by_annotator[2].alpha.value == pytest.approx(by_hand, abs=1e-12)


def test_the_jackknife_leaves_out_one_comparison_at_a_time():
    rows = list(simulated(people=3, comparisons=25, size=3))
    left_out = [alpha_elsewhere(units_of(rows, lambda row, pk=pk: row.comparison_id != pk)) for pk in range(25)]
    error = np.sqrt(24 / 25 * np.sum((np.array(left_out) - np.mean(left_out)) ** 2))
    alpha = measure_rankings(rows).alpha
    assert alpha.high - alpha.low == pytest.approx(2 * 1.959963984540054 * error, abs=1e-9)
    assert (alpha.low + alpha.high) / 2 == pytest.approx(alpha.value, abs=1e-9)


def test_pairwise_agreement_equals_a_count_over_all_two_annotators():
    rows = list(simulated(people=4, comparisons=50, size=4))
    measured = measure_rankings(rows)
    for week, found in [*measured.by_week.items(), (None, measured.overall)]:
        same = all_ = 0
        for one, other in combinations(rows, 2):
            later = max(one.created_at, other.created_at).date()
            if one.comparison_id == other.comparison_id and week in (None, later - timedelta(days=later.weekday())):
                counts = count_equal_preferences(one.ranks, other.ranks)
                same, all_ = same + counts[0], all_ + counts[1]
        assert (found.pairwise.value, found.pairwise.pairs) == (pytest.approx(same / all_), all_)
    assert len(measured.by_week) == 4


def test_the_order_of_rows_and_of_positions_does_not_change_the_result():
    rows = list(simulated(people=4, comparisons=30, size=3))
    reversed_rows = [row._replace(ranks=row.ranks[::-1]) for row in rows]
    random.Random(2).shuffle(reversed_rows)
    one, other = measure_rankings(rows), measure_rankings(reversed_rows)
    for before, after in [(one.pairwise, other.pairwise), (one.alpha, other.alpha)]:
        assert (after.value, after.low, after.high) == pytest.approx((before.value, before.low, before.high))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2], [1, 2], (1, 1)),
        ([1, 2], [2, 1], (0, 1)),
        ([1, 2], [1, 1], (0, 0)),
        ([1, 2, 3], [1, 3, 2], (2, 3)),
        ([1, 1, 2], [1, 2, 3], (2, 2)),
        ([1, 2, 3, 4], [4, 3, 2, 1], (0, 6)),
    ],
)
def test_two_rankings_agree_where_both_prefer_the_same(one, other, expected):
    assert count_equal_preferences(one, other) == expected
    assert count_equal_preferences(other, one) == expected


def test_wilsons_interval_is_that_of_the_literature():
    # Newcombe (1998), table I, method 3: 81 of 263, 15 of 148, 1 of 29.
    for seen, n, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (1, 29, 0.0061, 0.1718)]:
        assert wilson_interval(seen / n, n) == pytest.approx((low, high), abs=1e-4)


def test_wilsons_interval_contains_the_share_itself():
    """At 0 and 1 one bound is the share, which rounding missed for some numbers of trials."""
    for n in range(1, 500):
        for value in (0.0, 0.5, 1.0):
            low, high = wilson_interval(value, n)
            assert 0 <= low <= value <= high <= 1


def test_a_share_of_independent_pairs_has_wilsons_interval():
    counts = [(1, 1)] * 700 + [(0, 1)] * 300
    estimate = share(counts)
    assert estimate.value == 0.7
    assert (estimate.low, estimate.high) == pytest.approx(wilson_interval(0.7, 1000), abs=1e-3)


def test_pairs_of_one_comparison_count_as_one_when_they_go_together():
    together = share([(6, 6)] * 70 + [(0, 6)] * 30)
    assert (together.low, together.high) == pytest.approx(wilson_interval(0.7, 100), abs=2e-3)
    assert together.pairs == 600


@pytest.mark.slow
def test_the_interval_contains_the_truth_nineteen_times_in_twenty():
    generator = random.Random(7)
    hits = 0
    for _ in range(400):
        counts = []
        for _ in range(60):  # comparisons of three pairs whose agreement goes together
            chance = generator.betavariate(3, 1)
            counts.append((sum(generator.random() < chance for _ in range(3)), 3))
        estimate = share(counts)
        hits += estimate.low <= 0.75 <= estimate.high
    assert 0.91 <= hits / 400 <= 0.99


def test_without_pairs_there_is_a_sentence_in_place_of_a_number():
    estimate = share([(0, 0)])
    assert estimate.value is None
    assert "two people" in estimate.sentence


@pytest.mark.django_db
class TestOfAProject:
    def test_an_empty_project_has_no_agreement(self, project):
        measured = agreement.measure(project)
        assert measured.pairwise.value is None
        assert measured.alpha.value is None
        assert measured.by_two == {}

    def test_one_ranking_a_comparison_is_no_agreement(self, ann, project, work):
        work(3)
        while rank_next(ann):
            pass
        assert agreement.measure(project).pairwise.value is None

    def rank_by_position(self, member, better_first):
        """Rank all that is left; `better_first(comparison_id)` says whether the first position wins."""
        while lease := leases.lease_next(member):
            by_position = [1, 2] if better_first(lease.comparison_id) else [2, 1]
            ranks = [by_position[position] for position in lease.display_order]
            rankings.record_ranking(member, lease.pk, ranks, idempotency_key=lease.pk, seconds=1)

    @pytest.mark.slow
    def test_agreement_is_counted_by_two_people_and_by_each(self, ann, cole, project, work):
        ids = [comparison.pk for comparison in work(8, wanted_rankings=2)]
        self.rank_by_position(ann, lambda pk: True)
        self.rank_by_position(cole, lambda pk: pk in ids[:6])
        measured = agreement.measure(project)
        two = (min(ann.user_id, cole.user_id), max(ann.user_id, cole.user_id))
        assert measured.pairwise.value == 0.75
        assert (measured.pairwise.pairs, measured.pairwise.comparisons) == (8, 8)
        assert measured.by_two[two] == measured.by_annotator[ann.user_id] == measured.overall
        assert list(measured.by_week.values()) == [measured.overall]
        own = agreement.of_annotator(project, ann.user_id)
        assert (own.overall, own.by_week) == (measured.overall, measured.by_week)
        assert "75%" in measured.pairwise.sentence
        # By hand: values ±1 evenly, agreement 6 of 8; α = 1 − (n − 1) D_o/D_e with n = 32.
        assert measured.alpha.value == pytest.approx(1 - 31 * 0.25 / 16)
        assert measured.alpha.low < measured.alpha.value < measured.alpha.high

    @pytest.mark.slow
    def test_a_revision_counts_in_place_of_the_earlier_ranking(self, ann, cole, project, work):
        work(1, wanted_rankings=2)
        self.rank_by_position(ann, lambda pk: True)
        self.rank_by_position(cole, lambda pk: False)
        assert agreement.measure(project).pairwise.value == 0
        (ranking,) = rankings.recent(cole)
        flipped = [3 - rank for rank in rankings.shown_ranks(ranking)]
        rankings.revise_ranking(
            cole, ranking.pk, flipped, idempotency_key=ranking.comparison.leases.model().pk, seconds=1
        )
        assert agreement.measure(project).pairwise.value == 1

    @pytest.mark.slow
    def test_extra_rankings_on_disagreement_are_not_counted(self, project, work):
        """They only ever see comparisons that people disagree about: with them, agreement would be 1 of 3, not ½."""
        project.extra_rankings = 1
        project.save()
        ids = [comparison.pk for comparison in work(2, wanted_rankings=2)]
        members = [membership(person(project, name, "annotator"), project) for name in ("a", "b", "c")]
        self.rank_by_position(members[0], lambda pk: True)
        self.rank_by_position(members[1], lambda pk: pk == ids[0])
        self.rank_by_position(members[2], lambda pk: True)
        assert Ranking.objects.filter(reason="disagreement").count() == 1
        measured = agreement.measure(project)
        assert (measured.pairwise.value, measured.pairwise.pairs) == (0.5, 2)
        assert members[2].user_id not in measured.by_annotator

    @pytest.mark.slow
    def test_one_query_reads_all_rankings(self, ann, cole, project, work, django_assert_num_queries):
        work(6, wanted_rankings=2)
        for member in (ann, cole):
            while rank_next(member):
                pass
        with django_assert_num_queries(1):
            agreement.measure(project)
        with django_assert_num_queries(1):
            agreement.of_annotator(project, ann.user_id)

    def test_three_annotators_make_three_pairs_of_annotators(self, project, work):
        work(2, size=3, wanted_rankings=3)
        members = [membership(person(project, name, "annotator"), project) for name in ("a", "b", "c")]
        for member in members:
            while rank_next(member):
                pass
        measured = agreement.measure(project)
        assert len(measured.by_two) == len(list(combinations(members, 2)))
        assert measured.pairwise.pairs == 2 * 3 * 3

    def test_rankings_with_ties_only_are_reported_in_a_sentence(self, ann, cole, project, work):
        work(2, wanted_rankings=2)
        for member in (ann, cole):
            while rank_next(member, [1, 1]):
                pass
        measured = agreement.measure(project)
        assert measured.alpha.value is None
        assert "tie" in measured.alpha.sentence
        assert measured.pairwise.value is None
