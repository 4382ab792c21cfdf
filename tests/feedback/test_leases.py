"""Leases: choice of the next comparison, its holder, and its expiry."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from feedback import imports, statements
from feedback.actions import rankings
from feedback.errors import Conflict, NotFound
from feedback.models import Comparison, Lease, Membership, Prompt
from feedback.queue import claim, lease_rows, leases
from tests.factories import membership, person, rank_next

pytestmark = pytest.mark.django_db


def expire(lease: Lease) -> None:
    Lease.objects.filter(pk=lease.pk).update(expires_at=timezone.now() - timedelta(seconds=1))


def slots(comparison: Comparison) -> int:
    comparison.refresh_from_db()
    return comparison.open_slots


def test_an_empty_project_has_nothing_to_lease(ann):
    assert leases.lease_next(ann) is None


def test_a_lease_takes_a_slot_of_the_comparison(ann, work):
    (comparison,) = work(1)
    lease = leases.lease_next(ann)
    assert lease.comparison == comparison
    assert slots(comparison) == 0
    assert sorted(lease.display_order) == [0, 1]
    assert lease.comparison.texts(lease.display_order) == [f"answer {place} to 0" for place in lease.display_order]


def test_two_annotators_do_not_hold_the_same_slot(ann, cole, work):
    work(2)
    assert leases.lease_next(ann).comparison != leases.lease_next(cole).comparison


def test_a_comparison_is_leased_to_as_many_annotators_as_it_wants(ann, cole, mona, work):
    work(1, wanted_rankings=2)
    assert leases.lease_next(ann) is not None
    assert leases.lease_next(cole) is not None
    assert leases.lease_next(mona) is None


def test_a_repeated_request_returns_the_comparison_that_is_held(ann, work):
    work(3)
    assert leases.lease_next(ann) == leases.lease_next(ann)


def test_a_second_comparison_is_leased_beside_the_one_on_screen(ann, work):
    work(3)
    first = leases.lease_next(ann)
    second = leases.lease_next(ann, beside=[first.pk])
    assert second.comparison != first.comparison
    assert leases.lease_next(ann) == first
    assert leases.lease_next(ann, beside=[second.pk]) == first


def test_the_number_of_leases_per_annotator_is_limited(ann, work):
    work(10)
    held = []
    for _ in range(leases.DEFAULT_MAX_LEASES):
        held.append(leases.lease_next(ann, beside=held).pk)
    with pytest.raises(Conflict, match="You hold 5 comparisons already"):
        leases.lease_next(ann, beside=held)


def test_an_annotator_never_gets_a_comparison_twice(ann, work):
    work(3, wanted_rankings=3)
    ranked = [rank_next(ann).comparison_id for _ in range(3)]
    assert len(set(ranked)) == 3
    assert leases.lease_next(ann) is None


def test_an_annotator_does_not_get_a_skipped_comparison_again(ann, cole, work):
    work(1)
    rankings.skip_comparison(ann, leases.lease_next(ann).pk)
    assert leases.lease_next(ann) is None
    assert leases.lease_next(cole) is not None


def test_an_annotator_does_not_get_a_comparison_with_their_own_completion(ann, cole, project, work):
    (comparison,) = work(1)
    demonstration = imports.add_demonstration(ann, comparison.prompt, "a better answer")
    other = comparison.items.first().completion_id
    imports.add_comparisons(project, [[demonstration.completion_id, other]], priority=1)
    assert leases.lease_next(ann).comparison == comparison
    assert leases.lease_next(cole).comparison != comparison


@pytest.mark.slow
def test_the_higher_priority_comes_first(ann, work):
    work(5)
    (urgent,) = work(1, priority=1)
    work(5)
    assert leases.lease_next(ann).comparison == urgent


def test_comparisons_that_others_have_begun_come_first(ann, cole, work):
    work(20, wanted_rankings=2)
    started = rank_next(ann).comparison
    assert leases.lease_next(cole).comparison == started


@pytest.mark.slow
def test_the_order_is_random_within_a_priority(ann, work):
    made = [comparison.pk for comparison in work(30)]
    served = [rank_next(ann).comparison_id for _ in range(30)]
    assert sorted(served) == made
    assert served != made


@pytest.mark.slow
def test_the_display_order_is_the_annotators_own(ann, cole, work):
    comparisons = work(40, size=4)
    orders = {
        tuple(lease_rows.display_order(member, comparison)) for comparison in comparisons for member in (ann, cole)
    }
    assert len(orders) > 15  # of 24
    assert lease_rows.display_order(ann, comparisons[0]) == lease_rows.display_order(ann, comparisons[0])


def test_a_comparison_is_shown_again_in_the_same_order(ann, work):
    """The order may be from a version that did not key orders with a secret."""
    (comparison,) = work(1, size=4)
    lease = leases.lease_next(ann)
    Lease.objects.update(display_order=[3, 1, 0, 2])
    assert lease_rows.display_order(ann, comparison) == [3, 1, 0, 2]
    rankings.record_ranking(ann, lease.pk, [1, 2, 3, 4], idempotency_key=uuid4(), seconds=1)
    assert lease_rows.display_order(ann, comparison) == [3, 1, 0, 2]


def test_a_lease_that_ran_out_goes_to_the_next_annotator(ann, cole, work):
    (comparison,) = work(1)
    expire(leases.lease_next(ann))
    lease = leases.lease_next(cole)
    assert lease.comparison == comparison
    assert slots(comparison) == 0


def test_an_annotator_may_get_an_expired_comparison_again(ann, work):
    work(1)
    lease = leases.lease_next(ann)
    expire(lease)
    assert leases.lease_next(ann).pk == lease.pk
    assert Lease.objects.get().lapsed_at is None


def test_a_sweep_opens_the_slots_of_every_project(ann, stranger, work):
    (mine,) = work(1)
    expire(leases.lease_next(ann))
    assert leases.sweep() == 1
    assert slots(mine) == 1
    assert leases.sweep() == 0


def test_a_sweep_forgets_old_lapsed_leases(ann, work):
    work(1)
    expire(leases.lease_next(ann))
    leases.sweep()
    assert Lease.objects.count() == 1
    leases.sweep(timezone.now() + timedelta(days=8))
    assert Lease.objects.count() == 0


def test_renewing_holds_it_longer(ann, work):
    work(1)
    lease = leases.lease_next(ann)
    Lease.objects.update(expires_at=timezone.now() + timedelta(seconds=5))
    renewed = leases.renew(ann, lease.pk)
    assert renewed.expires_at > timezone.now() + timedelta(minutes=ann.project.lease_minutes - 1)


@pytest.mark.slow
def test_renewing_takes_a_lapsed_one_back_while_a_slot_is_open(ann, cole, work):
    (comparison,) = work(1)
    lease = leases.lease_next(ann)
    expire(lease)
    leases.reclaim(ann.project_id)
    assert leases.renew(ann, lease.pk).lapsed_at is None
    assert slots(comparison) == 0
    expire(lease)
    assert leases.lease_next(cole) is not None
    with pytest.raises(Conflict, match="ran out"):
        leases.renew(ann, lease.pk)


@pytest.mark.slow
def test_releasing_opens_the_slot(ann, work):
    (comparison,) = work(1)
    leases.release(ann, leases.lease_next(ann).pk)
    assert slots(comparison) == 1
    assert leases.lease_next(ann).comparison == comparison


def test_the_lease_of_another_annotator_is_not_found(ann, cole, work):
    work(1)
    lease = leases.lease_next(ann)
    for act in (leases.renew, leases.release, rankings.skip_comparison):
        with pytest.raises(NotFound):
            act(cole, lease.pk)
    with pytest.raises(NotFound):
        rankings.record_ranking(cole, lease.pk, [1, 2], idempotency_key=uuid4(), seconds=1)


def test_comparisons_of_another_project_are_not_leased(stranger, work):
    work(3)
    assert leases.lease_next(stranger.memberships.get()) is None


def test_an_archived_project_gives_no_work(ann, project, work):
    work(1)
    project.archived_at = timezone.now()
    project.save()
    with pytest.raises(Conflict, match="archived"):
        leases.lease_next(ann)


def test_a_former_member_gets_no_work(ann, work):
    work(1)
    Membership.objects.all().delete()
    with pytest.raises(NotFound):
        leases.lease_next(ann)


@pytest.mark.slow
def test_the_rule_of_the_prepared_statements_and_of_the_orm_is_the_same(ann, cole, mona, project, work):
    completion = work(8, wanted_rankings=3)[0].completions.first()
    completion.author_id = ann.user_id
    completion.save()
    for member in (ann, cole):
        for step in range(5):  # the last lease is held
            lease = leases.lease_next(member)
            if step == 0:
                rankings.skip_comparison(member, lease.pk)
            elif step == 1:
                leases.release(member, lease.pk)
            elif step == 2:  # lapsed: it may be given to the same member again
                Lease.objects.filter(pk=lease.pk).update(lapsed_at=timezone.now())
            elif step == 3:
                rankings.record_ranking(member, lease.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0)
    sql = f"SELECT look.id FROM feedback_comparison AS look WHERE {claim.MAY_RANK}"
    for member in (ann, cole, mona):
        by_statement = {pk for (pk,) in statements.run(sql, claim.parameters(member))}
        assert by_statement == set(claim.permitted(Comparison.objects.all(), member).values_list("pk", flat=True))
        assert len(by_statement) == {ann: 8 - 4, cole: 8 - 3, mona: 8}[member]


def test_work_is_found_behind_all_rankings_of_the_annotator(ann, project, work, monkeypatch):
    """The annotator has ranked the head of the queue and the pieces after it."""
    monkeypatch.setattr("feedback.queue.claim.HEAD_SIZE", 2)
    monkeypatch.setattr("feedback.queue.claim.LOOK_SIZE", 3)
    work(12, wanted_rankings=2)
    bea = membership(person(project, "bea", "annotator"), project)
    ranked = {rank_next(ann).comparison_id for _ in range(11)}
    (last,) = set(Comparison.objects.values_list("pk", flat=True)) - ranked
    assert rank_next(ann).comparison_id == last
    assert rank_next(ann) is None
    assert rank_next(bea) is not None


def test_leases_are_served_in_constant_queries(ann, work, django_assert_max_num_queries):
    work(30)
    with django_assert_max_num_queries(12):  # four of them are a test's savepoints
        leases.lease_next(ann)


def test_prompts_come_loaded_with_the_lease(ann, work, django_assert_num_queries):
    work(1)
    lease = leases.lease_next(ann)
    again = leases.lease_next(ann)
    with django_assert_num_queries(0):
        assert lease.comparison.prompt.messages == again.comparison.prompt.messages
    assert Prompt.objects.get().messages == lease.comparison.prompt.messages
