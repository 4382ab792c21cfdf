"""How far people agree, against numbers from elsewhere and numbers by hand."""

import random
from collections import Counter
from itertools import combinations

import pytest

from feedback import agreement, judging, queue
from feedback.agreement import coincidence_matrix, ordinal_alpha, same_preference, share, wilson
from tests.conftest import person
from tests.feedback.conftest import membership, rank_next

# Four observers, twelve units, with missing values: Krippendorff (2011), Computing Krippendorff's Alpha-Reliability.
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def test_alpha_is_the_published_one():
    units = [[value for value in unit if value is not None] for unit in zip(*PUBLISHED, strict=True)]
    assert ordinal_alpha(coincidence_matrix(units)) == pytest.approx(0.815, abs=5e-4)


def test_the_published_coincidences_come_out():
    units = [[value for value in unit if value is not None] for unit in zip(*PUBLISHED, strict=True)]
    matrix = coincidence_matrix(units)
    assert matrix[1, 1] == pytest.approx(7)
    assert matrix[1, 2] == pytest.approx(4 / 3)
    assert matrix[2, 2] == pytest.approx(10)
    assert sum(matrix.values()) == pytest.approx(40)


def test_alpha_of_agreement_is_one_and_of_opposites_is_negative():
    assert ordinal_alpha(coincidence_matrix([[1, 1], [2, 2], [1, 1]])) == 1
    assert ordinal_alpha(coincidence_matrix([[-1, 1], [1, -1]])) < 0


def test_alpha_of_chance_is_about_zero():
    generator = random.Random(1)
    units = [[generator.choice([-1, 0, 1]) for _ in range(2)] for _ in range(5000)]
    assert abs(ordinal_alpha(coincidence_matrix(units))) < 0.04


def test_alpha_without_variation_is_undefined():
    assert ordinal_alpha(coincidence_matrix([[2, 2], [2, 2]])) is None
    assert ordinal_alpha(Counter()) is None


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
    assert same_preference(one, other) == expected
    assert same_preference(other, one) == expected


def test_wilsons_interval_is_that_of_the_literature():
    # Newcombe (1998), table I, method 3: 81 of 263, 15 of 148, 1 of 29.
    for seen, n, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (1, 29, 0.0061, 0.1718)]:
        assert wilson(seen / n, n) == pytest.approx((low, high), abs=1e-4)


def test_a_share_of_independent_pairs_has_wilsons_interval():
    counts = [(1, 1)] * 700 + [(0, 1)] * 300
    estimate = share(counts)
    assert estimate.value == 0.7
    assert (estimate.low, estimate.high) == pytest.approx(wilson(0.7, 1000), abs=1e-3)


def test_pairs_of_one_comparison_count_as_one_when_they_go_together():
    together = share([(6, 6)] * 70 + [(0, 6)] * 30)
    assert (together.low, together.high) == pytest.approx(wilson(0.7, 100), abs=2e-3)
    assert together.pairs == 600


def test_the_interval_holds_the_truth_nineteen_times_in_twenty():
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
    def test_an_empty_project_has_none(self, project):
        measured = agreement.measure(project)
        assert measured.pairwise.value is None
        assert measured.alpha.value is None
        assert measured.by_two == {}

    def test_one_opinion_each_is_no_agreement(self, ann, project, work):
        work(3)
        while rank_next(ann):
            pass
        assert agreement.measure(project).pairwise.value is None

    def rank_by_position(self, member, better_first):
        """Rank all that is left; `better_first(comparison_id)` says whether the first position wins."""
        while lease := queue.lease_next(member):
            by_position = [1, 2] if better_first(lease.comparison_id) else [2, 1]
            ranks = [by_position[position] for position in lease.display_order]
            judging.record(member, lease.pk, ranks, idempotency_key=lease.pk, seconds=1)

    def test_agreement_is_counted_by_two_people_and_by_each(self, ann, cole, project, work):
        ids = [comparison.pk for comparison in work(8, wanted_rankings=2)]
        self.rank_by_position(ann, lambda pk: True)
        self.rank_by_position(cole, lambda pk: pk in ids[:6])
        measured = agreement.measure(project)
        two = (min(ann.user_id, cole.user_id), max(ann.user_id, cole.user_id))
        assert measured.pairwise.value == 0.75
        assert (measured.pairwise.pairs, measured.pairwise.comparisons) == (8, 8)
        assert measured.by_two[two] == measured.by_annotator[ann.user_id] == measured.pairwise
        assert list(measured.by_week.values()) == [measured.pairwise]
        assert "75%" in measured.pairwise.sentence
        # By hand: values ±1 evenly, agreement 6 of 8; α = 1 − (n − 1) D_o/D_e with n = 32.
        assert measured.alpha.value == pytest.approx(1 - 31 * 0.25 / 16)
        assert measured.alpha.low < measured.alpha.value < measured.alpha.high

    def test_a_revision_counts_in_place_of_what_it_replaced(self, ann, cole, project, work):
        work(1, wanted_rankings=2)
        self.rank_by_position(ann, lambda pk: True)
        self.rank_by_position(cole, lambda pk: False)
        assert agreement.measure(project).pairwise.value == 0
        (ranking,) = judging.recent(cole)
        flipped = [3 - rank for rank in judging.shown_ranks(ranking)]
        judging.revise(cole, ranking.pk, flipped, idempotency_key=ranking.comparison.leases.model().pk, seconds=1)
        assert agreement.measure(project).pairwise.value == 1

    def test_three_people_are_three_pairs_of_people(self, project, work):
        work(2, size=3, wanted_rankings=3)
        members = [membership(person(project, name, "annotator"), project) for name in ("a", "b", "c")]
        for member in members:
            while rank_next(member):
                pass
        measured = agreement.measure(project)
        assert len(measured.by_two) == len(list(combinations(members, 2)))
        assert measured.pairwise.pairs == 2 * 3 * 3

    def test_everything_tied_is_said_plainly(self, ann, cole, project, work):
        work(2, wanted_rankings=2)
        for member in (ann, cole):
            while rank_next(member, [1, 1]):
                pass
        measured = agreement.measure(project)
        assert measured.alpha.value is None
        assert "tie" in measured.alpha.sentence
        assert measured.pairwise.value is None
