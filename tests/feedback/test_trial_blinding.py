"""Annotators recognise neither a trial's comparisons nor their sources better than by chance."""

from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from feedback import imports
from feedback.actions import members, rankings, trials
from feedback.models import Comparison, Project, Source
from feedback.queue import blinding, leases
from feedback.reports import progress
from tests.factories import URL, add_work, client_of, membership, person
from tests.feedback.test_blinding import assert_chance, assert_independent, orders
from tests.feedback.test_queue_cost import many, rows_touched  # noqa: F401  fixtures
from tests.lengths import length

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

COUNT = length(full=120, short=20)  # comparisons of the trial, and as many others


@pytest.fixture
def open_trial(project):
    """Start a trial of two sources on prompts of the same form as those of the ordinary work."""
    Project.objects.update(blinding_key=UUID(int=20261128))
    compared = add_work(project, COUNT)
    Comparison.objects.filter(pk__in=[comparison.pk for comparison in compared]).delete()
    sources = [Source.objects.get(name=f"source-{place}") for place in (0, 1)]
    trial = trials.start_trial(project, sources, share=50)
    add_work(project, COUNT)
    return trial


def test_the_api_shows_neither_the_sources_nor_the_trial(open_trial, annotator):
    api, truth, rows, hits = client_of(annotator), [], [], {}
    answer = api.post(f"{URL}/leases", {}, format="json")
    lease = answer.json()["lease"]
    while lease is not None:
        member = members.membership_of(annotator, "support")
        before = progress.counts(member).remaining if len(rows) % 10 == 0 else None
        comparison = Comparison.objects.get(pk=blinding.comparison_id(member, lease["comparison"]))
        truth.append(comparison.trial_id is not None)
        held = comparison.leases.get()
        for rule, guess in orders(held, lease["comparison"], len(rows)).items():
            if truth[-1]:
                hits[rule] = hits.get(rule, 0) + (held.display_order[guess] == 0)
        body = {"ranks": [1, 2], "idempotency_key": str(uuid4()), "seconds": 1}
        answer = api.post(f"{URL}/leases/{lease['lease']}/ranking?next=1", body, format="json")
        after = progress.counts(member).remaining if before is not None else None
        assert before is None or after == before - 1
        form = (*lease, *answer.json()["ranking"], held.expires_at - held.taken_at)
        rows.append((lease["comparison"], form))
        lease = answer.json()["next"]
    assert (len(truth), sum(truth)) == (2 * COUNT, COUNT)
    for right in hits.values():
        assert_chance(right, COUNT)
    assert len({form for _number, form in rows}) == 1
    middle = sorted(number for number, _form in rows)[COUNT]
    both = slice(0, COUNT)  # while neither queue can be empty
    assert_independent([number > middle for number, _form in rows], truth)
    assert_independent([number % 2 == 0 for number, _form in rows], truth)
    assert_independent([place % 2 == 0 for place in range(COUNT)], truth[both])


@pytest.mark.full
def test_gold_comes_as_often_before_the_comparisons_of_a_trial(open_trial, project, ann):
    rows = [
        {"prompt": f"gold {n}", "completions": [{"text": f"answer {p} to {n}"} for p in (0, 1)]} for n in range(COUNT)
    ]
    groups = imports.add_prompts(project, rows, compare=False).completion_ids
    imports.add_gold(project, [{"completion_ids": ids, "ranks": [1, 2]} for ids in groups])
    Project.objects.update(gold_percent=30)
    is_gold, is_of_trial = [], []
    gold_since = 0
    for _ in range(COUNT + COUNT // 2):
        lease = leases.lease_next(ann)
        rankings.record_ranking(ann, lease.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0)
        comparison = Comparison.objects.get(pk=lease.comparison_id)
        if comparison.gold_ranks is not None:
            gold_since += 1
            continue
        is_gold.append(gold_since > 0)
        is_of_trial.append(comparison.trial_id is not None)
        gold_since = 0
    assert 0 < sum(is_gold) < len(is_gold)
    assert_independent(is_gold, is_of_trial)


def test_without_a_trial_a_claim_runs_the_same_number_of_statements(project, ann, cole):
    """Count the statements of a lease and of a submit with the next one, in a project that has had a trial."""

    def statements_of(member):
        with CaptureQueriesContext(connection) as leased:
            lease = leases.lease_next(member)
        details = {"beside": [lease.pk], "idempotency_key": uuid4(), "seconds": 1.0}
        with CaptureQueriesContext(connection) as submitted:
            rankings.record_ranking_and_lease(member, lease.pk, [1, 2], **details)
        return len(leased), len(submitted)

    add_work(project, 8)
    before = statements_of(ann)
    sources = [Source.objects.get(name=f"source-{place}") for place in (0, 1)]
    trial = trials.start_trial(project, sources)
    during = statements_of(cole)
    trials.end_trial(trial, decision="undecided")
    leases.sweep()
    assert before[0] < during[0] and before[1] < during[1]
    dora = membership(person(project, "dora", "annotator"), project)
    assert statements_of(dora) == before


@pytest.mark.full
def test_a_claim_reads_few_rows_while_a_trial_is_open(many, ann, rows_touched):  # noqa: F811
    rows = [
        {"prompt": f"q {n}", "completions": [{"text": f"{name} {n}", "source": name} for name in ("x", "y")]}
        for n in range(60)
    ]
    imports.add_prompts(many, rows, compare=False)
    trials.start_trial(many, [Source.objects.get(name=name) for name in ("x", "y")])
    assert rows_touched(lambda: leases.lease_next(ann)) <= 60
