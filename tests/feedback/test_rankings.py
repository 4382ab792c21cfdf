"""Rankings and skips are stored once, revised without overwriting, and never lost."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from feedback.actions import ranking_undo, rankings, reviews
from feedback.errors import Conflict, Invalid, NotFound
from feedback.models import Lease, Membership, Ranking, Skip
from feedback.queue import leases
from feedback.web.presenters import card_of_lease
from tests.factories import rank_next, take_earlier

pytestmark = pytest.mark.django_db


def record(member, lease, ranks, **fields):
    return rankings.record_ranking(member, lease.pk, ranks, **{"idempotency_key": uuid4(), "seconds": 1.0, **fields})


def revise(member, ranking, ranks, **fields):
    return rankings.revise_ranking(member, ranking.pk, ranks, **{"idempotency_key": uuid4(), "seconds": 1.0, **fields})


def lapse(lease):
    Lease.objects.filter(pk=lease.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    leases.reclaim(lease.project_id)


def test_ranks_follow_the_order_of_display(ann, work):
    work(1, size=4)
    lease = leases.lease_next(ann)
    ranking = record(ann, lease, [1, 2, 3, 4])
    shown_first = lease.display_order[0]
    assert ranking.ranks[shown_first] == 1
    assert [ranking.ranks[position] for position in lease.display_order] == [1, 2, 3, 4]
    assert rankings.shown_ranks(ranking) == [1, 2, 3, 4]


def test_a_ranking_takes_the_place_of_the_lease(ann, work):
    (comparison,) = work(1, wanted_rankings=2)
    rank_next(ann)
    comparison.refresh_from_db()
    assert (comparison.open_slots, comparison.ranking_count) == (1, 1)
    assert not Lease.objects.exists()


@pytest.mark.parametrize(
    ("given", "stored"),
    [([2, 4, 4], [1, 2, 2]), ([9, 9, 9], [1, 1, 1]), ([3, 1, 2], [3, 1, 2]), ([1, 1, 3], [1, 1, 2])],
)
def test_only_the_order_of_ranks_counts(given, stored):
    assert rankings.ranks_by_position(3, [0, 1, 2], given) == stored


def test_all_ranking_details_are_stored(ann, project, work):
    project.strength_points, project.flags = 4, ["rude", "wrong"]
    project.save()
    work(1)
    lease = leases.lease_next(ann)
    take_earlier(lease, 12.5)
    ranking = record(ann, lease, [2, 1], seconds=12.5, comment="clearer", strength=3, flags=["rude", "rude", "wrong"])
    ranking.refresh_from_db()
    assert (ranking.seconds, ranking.comment, ranking.strength) == (12.5, "clearer", 3)
    assert ranking.flags == ["rude", "wrong"]
    assert ranking.display_order == lease.display_order


class TestTheSecondsClaimed:
    """Figures of speed use the seconds, so an annotator may claim at most the time since the lease was taken."""

    CLAIMED = 3600.0

    def assert_about(self, ranking, seconds):
        ranking.refresh_from_db()
        assert seconds <= ranking.seconds <= seconds + rankings.CLOCK_SLACK + 60  # what the test itself takes

    @pytest.mark.parametrize("age", [0, 90])
    def test_the_seconds_are_at_most_the_age_of_the_lease(self, ann, work, age):
        work(1)
        lease = leases.lease_next(ann)
        take_earlier(lease, age)
        self.assert_about(record(ann, lease, [2, 1], seconds=self.CLAIMED), age)

    def test_the_seconds_are_bounded_when_the_next_lease_is_in_the_same_transaction(self, ann, work):
        work(2)
        lease = leases.lease_next(ann)
        fields = {"beside": [], "idempotency_key": uuid4(), "seconds": self.CLAIMED}
        ranking, _next = rankings.record_ranking_and_lease(ann, lease.pk, [2, 1], **fields)
        self.assert_about(ranking, 0)

    def test_the_seconds_include_renewals_and_the_time_after_the_lease_lapsed(self, ann, work):
        work(1)
        lease = leases.lease_next(ann)
        take_earlier(lease, 4000)
        leases.renew(ann, lease.pk)
        lapse(lease)
        ranking = record(ann, lease, [2, 1], seconds=self.CLAIMED)
        ranking.refresh_from_db()
        assert ranking.seconds == self.CLAIMED

    def test_the_seconds_of_a_revision_are_at_most_the_earlier_ones_plus_the_time_since(self, ann, work):
        work(1)
        lease = leases.lease_next(ann)
        take_earlier(lease, 40)
        first = record(ann, lease, [2, 1], seconds=40.0)
        self.assert_about(revise(ann, first, [1, 2], seconds=self.CLAIMED), 40)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"ranks": [1]}, "each of the 2 completions"),
        ({"ranks": []}, "each of the 2 completions"),
        ({"ranks": "12"}, "each of the 2 completions"),
        ({"ranks": None}, "each of the 2 completions"),
        ({"ranks": [0, 1]}, "whole number from 1"),
        ({"ranks": [1, 10]}, "whole number from 1"),
        ({"ranks": [1, 2.0]}, "whole number from 1"),
        ({"ranks": [True, 2]}, "whole number from 1"),
        ({"ranks": [1, None]}, "whole number from 1"),
        ({"seconds": -1}, "at least 0"),
        ({"seconds": float("nan")}, "at least 0"),
        ({"seconds": float("inf")}, "at least 0"),
        ({"seconds": "3"}, "at least 0"),
        ({"comment": "a\x00b"}, "NUL"),
        ({"comment": "\ud800"}, "surrogate"),
        ({"comment": "x" * 10_001}, "10,001 characters"),
        ({"comment": 3}, "must be a text"),
    ],
)
def test_an_invalid_ranking_is_refused_and_the_lease_stays(ann, work, fields, sentence):
    work(1)
    lease = leases.lease_next(ann)
    fields = {"ranks": [1, 2], **fields}
    with pytest.raises(Invalid, match=sentence):
        record(ann, lease, fields.pop("ranks"), **fields)
    assert not Ranking.objects.exists()
    assert leases.lease_next(ann) == lease


def test_the_same_submit_again_is_answered_as_the_first_was(ann, work):
    work(1)
    lease, key = leases.lease_next(ann), uuid4()
    first = record(ann, lease, [1, 2], idempotency_key=key)
    again = record(ann, lease, [2, 1], idempotency_key=key)
    assert again.pk == first.pk
    assert again.ranks == first.ranks
    assert Ranking.objects.count() == 1


def test_a_second_submit_with_another_key_finds_no_lease(ann, work):
    work(1)
    lease = leases.lease_next(ann)
    record(ann, lease, [1, 2])
    with pytest.raises(NotFound):
        record(ann, lease, [1, 2])


def test_two_annotators_may_use_the_same_key(ann, cole, work):
    work(2)
    key = uuid4()
    assert rank_next(ann, idempotency_key=key) != rank_next(cole, idempotency_key=key)


def test_a_key_of_another_project_is_refused(ann, stranger, work):
    work(1)
    key = uuid4()
    rank_next(ann, idempotency_key=key)
    elsewhere = Membership.objects.create(user=ann.user, project=stranger.memberships.get().project)
    with pytest.raises(Conflict, match="another project"):
        rankings.record_ranking(elsewhere, uuid4(), [1, 2], idempotency_key=key, seconds=1)


def test_a_late_submit_is_accepted_while_a_slot_is_open(ann, work):
    (comparison,) = work(1)
    lease = leases.lease_next(ann)
    lapse(lease)
    assert record(ann, lease, [1, 2]).comparison == comparison
    comparison.refresh_from_db()
    assert (comparison.open_slots, comparison.ranking_count) == (0, 1)


def test_a_late_submit_to_a_finished_comparison_is_refused_with_the_reason(ann, cole, work):
    (comparison,) = work(1)
    lease = leases.lease_next(ann)
    lapse(lease)
    rank_next(cole)
    with pytest.raises(Conflict, match="ran out"):
        record(ann, lease, [1, 2])
    comparison.refresh_from_db()
    assert (comparison.open_slots, comparison.ranking_count) == (0, 1)


def test_a_revision_is_a_new_row_and_the_old_one_stays(ann, work):
    (comparison,) = work(1)
    first = rank_next(ann, [1, 2])
    second = revise(ann, first, [2, 1])
    first.refresh_from_db()
    assert (first.is_live, second.is_live, second.revision) == (False, True, 2)
    assert rankings.shown_ranks(first) == [1, 2]
    assert rankings.shown_ranks(second) == [2, 1]
    comparison.refresh_from_db()
    assert (comparison.open_slots, comparison.ranking_count) == (0, 1)


def test_only_the_latest_revision_can_be_revised(ann, work):
    work(1)
    first = rank_next(ann)
    revise(ann, first, [2, 1])
    with pytest.raises(Conflict, match="revised already"):
        revise(ann, first, [1, 1])


def test_a_revision_sent_twice_is_one(ann, work):
    work(1)
    first, key = rank_next(ann), uuid4()
    assert revise(ann, first, [2, 1], idempotency_key=key) == revise(ann, first, [2, 1], idempotency_key=key)
    assert Ranking.objects.count() == 2


def test_the_ranking_of_another_annotator_cannot_be_revised(ann, cole, mona, work):
    work(1)
    ranking = rank_next(ann)
    for other in (cole, mona):
        with pytest.raises(NotFound):
            revise(other, ranking, [2, 1])


def test_a_skip_gives_the_slot_to_others(ann, work):
    (comparison,) = work(1)
    skip = rankings.skip_comparison(ann, leases.lease_next(ann).pk, reason="not my language")
    comparison.refresh_from_db()
    assert comparison.open_slots == 1
    assert skip.reason == "not my language"


def test_a_skip_sent_twice_is_one(ann, work):
    (comparison,) = work(1)
    lease = leases.lease_next(ann)
    assert rankings.skip_comparison(ann, lease.pk) == rankings.skip_comparison(ann, lease.pk)
    comparison.refresh_from_db()
    assert comparison.open_slots == 1


def test_skipping_a_lapsed_lease_opens_no_second_slot(ann, work):
    (comparison,) = work(1)
    lease = leases.lease_next(ann)
    lapse(lease)
    rankings.skip_comparison(ann, lease.pk)
    comparison.refresh_from_db()
    assert comparison.open_slots == 1


@pytest.mark.parametrize("reason", ["a\x00", "\udfff", "x" * 501])
def test_a_reason_that_cannot_be_stored_is_refused(ann, work, reason):
    work(1)
    lease = leases.lease_next(ann)
    with pytest.raises(Invalid):
        rankings.skip_comparison(ann, lease.pk, reason=reason)
    assert not Skip.objects.exists()


def test_there_is_nothing_to_undo_at_first(ann):
    with pytest.raises(NotFound, match="nothing to undo"):
        ranking_undo.undo_last(ann)


def test_undo_takes_back_a_skip(ann, work):
    (comparison,) = work(1)
    rankings.skip_comparison(ann, leases.lease_next(ann).pk)
    lease = ranking_undo.undo_last(ann)
    assert lease.comparison == comparison
    assert record(ann, lease, [1, 2]).comparison == comparison
    assert not Skip.objects.exists()


def test_a_skip_stays_when_others_took_the_slot(ann, cole, work):
    work(1)
    rankings.skip_comparison(ann, leases.lease_next(ann).pk)
    rank_next(cole)
    with pytest.raises(Conflict):
        ranking_undo.undo_last(ann)
    assert Skip.objects.exists()


def test_withdrawing_takes_the_last_ranking_back_and_holds_its_comparison_as_it_was(ann, cole, project, work):
    project.attributes, project.flags = ["helpful"], ["unsafe"]
    project.save()
    (comparison,) = work(1, size=3)
    fields = {"comment": "Close.", "flags": ["unsafe"], "ratings": {"helpful": [5, None, 1]}, "seconds": 12.5}
    ranking = rank_next(ann, [2, 1, 2], **fields)
    lease = ranking_undo.undo_last(ann)
    card = card_of_lease(Lease.objects.get(pk=lease.pk), ann)
    assert [shown.rank for shown in card.completions] == [2, 1, 2]
    assert [shown.ratings[0].rating for shown in card.completions] == [5, None, 1]
    assert (card.comment, card.withdrawn_seconds) == ("Close.", 12.5)
    assert [flag.name for flag in card.flags if flag.is_set] == ["unsafe"]
    comparison.refresh_from_db()
    assert (comparison.ranking_count, comparison.open_slots) == (0, 0)
    assert not Ranking.objects.filter(is_live=True).exists()
    assert leases.lease_next(cole) is None  # it is held for its annotator
    assert leases.lease_next(ann).pk == lease.pk  # and comes first, in another browser too
    again = record(ann, lease, [1, 2, 3])
    comparison.refresh_from_db()
    assert (again.revision, again.reason, comparison.ranking_count) == (3, ranking.reason, 1)
    assert [each.standing for each in Ranking.objects.order_by("revision")] == ["counts", "withdrawn", "counts"]


def test_a_withdrawn_ranking_can_be_skipped_and_the_skip_undone(ann, cole, work):
    (comparison,) = work(1)
    rank_next(ann, [2, 1])
    rankings.skip_comparison(ann, ranking_undo.undo_last(ann).pk)
    assert leases.lease_next(ann) is None
    lease = ranking_undo.undo_last(ann)
    assert [shown.rank for shown in card_of_lease(lease, ann).completions] == [2, 1]
    rankings.skip_comparison(ann, lease.pk)
    assert rank_next(cole).comparison == comparison


@pytest.mark.slow
def test_withdrawing_goes_back_ten_rankings_and_a_day(ann, work):
    work(12)
    ranked = [rank_next(ann) for _ in range(12)]
    back = [ranking_undo.undo_last(ann).comparison_id for _ in range(10)]
    assert back == [each.comparison_id for each in reversed(ranked[2:])]
    with pytest.raises(NotFound, match="last 10 rankings of the past 24 hours"):
        ranking_undo.undo_last(ann)
    Lease.objects.all().delete()
    Ranking.objects.update(created_at=timezone.now() - timedelta(hours=25))
    with pytest.raises(NotFound, match="last 10 rankings of the past 24 hours"):
        ranking_undo.undo_last(ann)


def test_a_ranking_that_a_reviewer_settled_is_not_withdrawn(ann, mona, work):
    (comparison,) = work(1, wanted_rankings=2)
    rank_next(ann)
    reviews.adjudicate(mona, comparison.pk, [2, 1], idempotency_key=uuid4(), seconds=1)
    with pytest.raises(Conflict, match="A reviewer has decided"):
        ranking_undo.undo_last(ann)
    assert Ranking.objects.filter(annotator=ann.user, is_live=True).count() == 1


def test_recent_rankings_are_the_members_own_live_ones(ann, cole, work):
    work(4)
    first, second = rank_next(ann), rank_next(ann)
    rank_next(cole)
    third = revise(ann, first, [2, 1])
    assert rankings.recent(ann) == [third, second]
    assert rankings.recent(ann, limit=1) == [third]
