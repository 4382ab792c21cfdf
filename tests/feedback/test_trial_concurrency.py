"""A trial that starts or ends while annotators work: no ranking and no slot is lost, and nothing fails."""

import threading

import pytest
from django.db import transaction

from feedback.actions import trials
from feedback.errors import Conflict
from feedback.models import Comparison, Lease, Project, Ranking, Source, Trial
from feedback.queue import leases
from tests.factories import add_work, membership, person, rank_next
from tests.feedback.test_concurrency import counters_are_right, run_concurrently, wait_until_blocked

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def people(project):
    return [membership(person(project, f"person-{index}", "annotator"), project) for index in range(3)]


@pytest.fixture
def sources(project):
    """Store completions of two sources on twelve prompts, without ordinary comparisons."""
    add_work(project, 12)
    Comparison.objects.all().delete()
    return [Source.objects.get(name=f"source-{place}") for place in (0, 1)]


def test_a_trial_ends_while_everybody_ranks(project, sources, people):
    trial = trials.start_trial(project, sources, share=50)
    add_work(project, 9)
    some_ranked = threading.Event()

    def work(member):
        made = 0
        while made < 6 and rank_next(member):
            made += 1
            some_ranked.set()
        return made

    def end():
        some_ranked.wait(timeout=120)
        return trials.end_trial(Trial.objects.get(pk=trial.pk), decision="undecided")

    *made, ended = run_concurrently([*(lambda member=member: work(member) for member in people), end])
    assert sum(made) == Ranking.objects.count()
    assert Project.objects.get().trial_percent == 0
    # A comparison that was claimed as the trial ended may have been ranked just after the end.
    assert set(ended.comparisons.values_list("ranking_count", flat=True)) <= {0, 1}
    assert not ended.comparisons.filter(ranking_count=0, leases__isnull=True).exists()
    counters_are_right()


def test_the_end_waits_for_a_claim_and_keeps_its_comparison(project, sources, people):
    trial = trials.start_trial(project, sources, share=100, most_prompts=1)
    claimed = threading.Event()

    def claim():
        with transaction.atomic():
            lease = leases.lease_next(people[0])
            claimed.set()
            wait_until_blocked()
        return lease

    def end():
        claimed.wait(timeout=120)
        return trials.end_trial(Trial.objects.get(pk=trial.pk), decision="undecided")

    lease, _ended = run_concurrently([claim, end])
    assert Lease.objects.get().pk == lease.pk
    assert list(trial.comparisons.values_list("pk", flat=True)) == [lease.comparison_id]


def test_two_starts_at_once_make_one_trial(project, sources):
    def start():
        try:
            return trials.start_trial(Project.objects.get(), sources)
        except Conflict as refused:
            return refused.message

    results = run_concurrently([start] * 2)
    assert sorted(type(result) is str for result in results) == [False, True]
    assert Trial.objects.count() == 1
    assert Comparison.objects.filter(trial__isnull=False).count() == 12
