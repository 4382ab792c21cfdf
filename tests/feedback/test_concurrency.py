"""Many users at once, on one connection each: nothing is stored twice, lost or leased to two."""

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep
from uuid import uuid4

import pytest
from django.db import connection, transaction

from feedback.actions import rankings, review_undo, reviews
from feedback.actions.projects import create_project
from feedback.errors import AccordError, Conflict
from feedback.export import ranking_record
from feedback.models import Comparison, Lease, Project, Ranking, Review
from feedback.queue import leases as queue
from tests.factories import add_work, membership, person, rank_next
from tests.feedback.review.outcomes import counters

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def people(project):
    return [membership(person(project, f"person-{index}", "annotator"), project) for index in range(6)]


def run_concurrently(tasks):
    """Run each task in its own thread, all starting together; return their results in order."""
    barrier = threading.Barrier(len(tasks))

    def run(task):
        try:
            barrier.wait(timeout=120)
            return task()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


def counters_are_right():
    for comparison in Comparison.objects.all():
        counters(comparison)


def test_two_annotators_never_hold_the_same_slot(project, people):
    add_work(project, 4)
    leases = run_concurrently([lambda member=member: queue.lease_next(member) for member in people])
    held = [lease.comparison_id for lease in leases if lease is not None]
    assert len(held) == len(set(held)) == 4
    counters_are_right()


def test_one_annotator_asking_five_times_at_once_holds_one(project, people):
    add_work(project, 10)
    leases = run_concurrently([lambda: queue.lease_next(people[0])] * 5)
    assert len({lease.pk for lease in leases}) == 1
    assert Lease.objects.count() == 1


def test_an_annotator_waits_for_a_locked_comparison_if_it_is_the_last_one(project, people):
    (comparison,) = add_work(project, 1)
    busy, leased = threading.Event(), []

    def lock_comparison():
        with transaction.atomic():
            Comparison.objects.select_for_update().get(pk=comparison.pk)
            busy.set()
            wait_until_blocked()

    def ask():
        busy.wait(timeout=120)
        leased.append(queue.lease_next(people[0]))

    run_concurrently([lock_comparison, ask])
    assert leased[0].comparison == comparison


def wait_until_blocked():
    """Wait until another connection waits for a lock that this transaction holds."""
    deadline = monotonic() + 120
    while not waiting_backends():
        assert monotonic() < deadline, "nobody came to wait"
        sleep(0.005)


def waiting_backends():
    """Return how many connections wait for a lock. A transaction sees `pg_stat_activity` frozen, but not this view."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone()[0]


def test_the_same_submit_five_times_at_once_is_one_ranking(project, people):
    add_work(project, 1)
    lease, key = queue.lease_next(people[0]), uuid4()
    submit = lambda: rankings.record_ranking(people[0], lease.pk, [1, 2], idempotency_key=key, seconds=1.0)  # noqa: E731
    answers = run_concurrently([submit] * 5)
    assert len({(answer.pk, tuple(answer.ranks), answer.created_at) for answer in answers}) == 1
    assert Ranking.objects.count() == 1
    counters_are_right()


def test_the_overlap_is_reached_and_never_exceeded(project, people):
    add_work(project, 12, wanted_rankings=3)

    def work_until_nothing_is_left(member):
        count = 0
        while rank_next(member):
            count += 1
        return count

    counts = run_concurrently([lambda member=member: work_until_nothing_is_left(member) for member in people])
    assert sum(counts) == 36
    per_comparison = Counter(Ranking.objects.values_list("comparison_id", flat=True))
    assert set(per_comparison.values()) == {3}
    counters_are_right()


def test_only_one_of_several_late_submits_gets_the_slot(project, people):
    add_work(project, 1, wanted_rankings=3)
    leases = [queue.lease_next(member) for member in people[:3]]
    Lease.objects.update(expires_at="2020-01-01T00:00Z")
    queue.sweep()
    Comparison.objects.update(wanted_rankings=1, open_slots=1)

    def submit(member, lease):
        try:
            return rankings.record_ranking(member, lease.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0)
        except rankings.Conflict:
            return None

    pairs = zip(people[:3], leases, strict=True)
    answers = run_concurrently([lambda member=member, lease=lease: submit(member, lease) for member, lease in pairs])
    assert sum(answer is not None for answer in answers) == 1
    counters_are_right()


def test_expiring_leases_lose_no_ranking_and_no_slot(project, people):
    """Expiry, reclaiming and submitting race on the same few comparisons."""
    add_work(project, 6, wanted_rankings=2)

    def submit_expired_leases(member):
        for _ in range(8):
            lease = queue.lease_next(member)
            if lease is None:
                continue
            Lease.objects.filter(pk=lease.pk).update(expires_at="2020-01-01T00:00Z")  # one row: no order, no deadlock
            queue.sweep()
            try:
                rankings.record_ranking(member, lease.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0)
            except rankings.Conflict:
                continue

    run_concurrently([lambda member=member: submit_expired_leases(member) for member in people[:4]])
    counters_are_right()


@pytest.mark.slow
def test_concurrent_readers_and_writers_miss_no_ranking(project, people):
    add_work(project, 60)
    read, finished = [], threading.Event()

    def follow():
        cursor = 0
        while True:
            last_look = finished.is_set()
            until = ranking_record.sequence_cutoff(project)
            read.extend(row["ranking_id"] for row in ranking_record.rankings(project, cursor, until))
            cursor = until
            if last_look:
                return

    def write():
        try:
            while rank_next(people[0]) or rank_next(people[1]):
                pass
        finally:
            finished.set()

    run_concurrently([write, follow])
    assert sorted(read) == sorted(Ranking.objects.values_list("pk", flat=True))
    assert len(read) == 60


def test_two_cutoffs_at_once_number_each_ranking_once(project, people):
    add_work(project, 20)
    while rank_next(people[0]):
        pass
    assert run_concurrently([lambda: ranking_record.sequence_cutoff(project)] * 4) == [20] * 4
    assert sorted(Ranking.objects.values_list("sequence", flat=True)) == list(range(1, 21))


@pytest.fixture
def reviewers(project):
    return [membership(person(project, f"reviewer-{index}", "reviewer"), project) for index in range(2)]


def adjudicate(member, comparison_id, ranks):
    return reviews.adjudicate(member, comparison_id, ranks, idempotency_key=uuid4(), seconds=1.0)


def refusals(acts):
    """Run all at once; return the refusal of each, or None."""

    def attempt(act):
        try:
            act()
        except AccordError as refusal:
            return refusal.message
        return None

    return run_concurrently([lambda act=act: attempt(act) for act in acts])


def test_two_simultaneous_opposite_rankings_count_as_disagreement(project, people):
    for _ in range(5):
        (comparison,) = add_work(project, 1, wanted_rankings=2)
        for member, ranks in ((people[0], [1, 2]), (people[1], [2, 1])):
            lease = queue.lease_next(member)
            Lease.objects.filter(pk=lease.pk).update(display_order=[0, 1])
            member.act = lambda member=member, lease=lease, ranks=ranks: rankings.record_ranking(
                member, lease.pk, ranks, idempotency_key=uuid4(), seconds=1.0
            )
        run_concurrently([people[0].act, people[1].act])
        comparison.refresh_from_db()
        assert comparison.disagreement == 1


def test_a_comparison_settled_while_people_submit_has_one_ranking_that_counts(project, people, reviewers):
    for _ in range(4):
        (comparison,) = add_work(project, 1, wanted_rankings=6, priority=1)
        rank_next(people[0])
        leases = [queue.lease_next(member) for member in people[1:5]]
        assert {lease.comparison_id for lease in leases} == {comparison.pk}
        submits = [
            lambda member=member, lease=lease: rankings.record_ranking(
                member, lease.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0
            )
            for member, lease in zip(people[1:5], leases, strict=True)
        ]
        told = refusals([*submits, lambda pk=comparison.pk: adjudicate(reviewers[0], pk, [1, 2])])
        assert told[-1] is None
        assert all(each is None or "no more rankings" in each for each in told[:-1])
        counting = comparison.rankings.filter(is_live=True, standing="counts")
        assert [ranking.annotator for ranking in counting] == [reviewers[0].user]
        counters_are_right()


def test_two_simultaneous_adjudications_store_one(project, people, reviewers):
    (comparison,) = add_work(project, 1, wanted_rankings=2)
    rank_next(people[0])
    told = refusals([lambda member=member: adjudicate(member, comparison.pk, [1, 2]) for member in reviewers])
    assert sorted(map(bool, told)) == [False, True]
    assert Review.objects.count() == 1
    counters_are_right()


@pytest.mark.full
def test_a_ranking_discarded_while_it_is_revised_is_one_or_the_other(project, people, reviewers):
    add_work(project, 8)
    for _ in range(8):
        ranking = rank_next(people[0])
        fields = {"idempotency_key": uuid4(), "seconds": 1.0}
        told = refusals(
            [
                lambda ranking=ranking, fields=fields: rankings.revise_ranking(people[0], ranking.pk, [2, 1], **fields),
                lambda ranking=ranking: reviews.discard(reviewers[0], ranking.pk, reason="x"),
                lambda ranking=ranking: reviews.discard(reviewers[1], ranking.pk, reason="x"),
            ]
        )
        assert told.count(None) == 1
        counters_are_right()


@pytest.mark.full
@pytest.mark.slow
def test_random_concurrent_actions_keep_the_counters_right(project, people, reviewers):
    """Rankings, revisions, decisions and undos race on few comparisons: no deadlock, no slot lost or counted twice."""
    comparisons = add_work(project, 4, wanted_rankings=3)

    def annotate(member):
        generator = random.Random(member.pk)
        for _ in range(12):
            if (lease := queue.lease_next(member)) is None:
                own = list(Ranking.objects.filter(annotator=member.user, is_live=True))
                act = lambda own=own: rankings.revise_ranking(  # noqa: E731
                    member, generator.choice(own).pk, [2, 1], idempotency_key=uuid4(), seconds=1.0
                )
                ignore_refusal(act if own else lambda: None)
            else:
                ignore_refusal(lambda lease=lease: rankings.record_ranking(
                    member, lease.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0
                ))  # fmt: skip

    def decide(member):
        generator = random.Random(member.pk)
        for _ in range(20):
            live = list(Ranking.objects.filter(is_live=True))
            done = list(Review.objects.filter(undone_at__isnull=True))
            acts = [lambda: adjudicate(member, generator.choice(comparisons).pk, [1, 2])]
            if live:
                acts.append(lambda live=live: reviews.discard(member, generator.choice(live).pk, reason="x"))
                acts.append(lambda live=live: reviews.return_ranking(member, generator.choice(live).pk, reason="x"))
            if done:
                acts += [lambda done=done: review_undo.undo(member, generator.choice(done).pk)] * 3
            ignore_refusal(generator.choice(acts))

    def ignore_refusal(act):
        try:
            act()
        except AccordError:
            return

    tasks = [lambda member=member: annotate(member) for member in people[:4]]
    run_concurrently(tasks + [lambda member=member: decide(member) for member in reviewers])
    assert Review.objects.count() > 5
    counters_are_right()


def test_simultaneous_requests_for_the_same_project_create_one_and_the_others_conflict(manager):
    def make():
        try:
            return create_project(manager, Project(slug="new", name="New")).pk
        except Conflict as refusal:
            return refusal.message

    made = run_concurrently([make] * 8)
    assert [type(each) for each in made].count(int) == 1
    assert {each for each in made if isinstance(each, str)} == {
        'There is a project "new" already: choose another address.'
    }
