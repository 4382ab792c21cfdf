"""Undo on the ranking page and `POST undo` of the API do the same thing."""

from uuid import uuid4

import pytest

from feedback.actions import ranking_undo, rankings
from feedback.models import Comparison, Lease, Ranking, Skip
from feedback.queue import leases
from tests.factories import URL, client_of, rank_next


@pytest.fixture(params=["page", "api"])
def undo(request, client):
    """Undo what the member did last; returns the response."""

    def by_page(member):
        client.force_login(member.user)
        return client.post("/projects/support/rank/undo/", headers={"HX-Request": "true"})

    def by_api(member):
        return client_of(member.user).post(f"{URL}/undo")

    return by_page if request.param == "page" else by_api


def state(member):
    """Everything that an undo may change: the member's revisions, leases and skips, and the comparisons' counters."""
    mine = {"annotator": member.user_id}
    revisions = Ranking.objects.filter(**mine).order_by("comparison", "revision")
    return {
        "rankings": list(revisions.values_list("comparison", "revision", "standing", "is_live", "ranks")),
        "leases": list(
            Lease.objects.filter(**mine).values_list("comparison", "withdrawn__revision", "reason", "lapsed_at")
        ),
        "skips": list(Skip.objects.filter(**mine).values_list("comparison")),
        "counters": list(Comparison.objects.order_by("pk").values_list("ranking_count", "open_slots")),
    }


@pytest.mark.slow
def test_a_ranking_is_withdrawn_and_its_comparison_held(ann, work, undo):
    (comparison,) = work(1)
    ranking = rank_next(ann, [2, 1])
    assert undo(ann).status_code == 200
    assert state(ann) == {
        "rankings": [
            (comparison.pk, 1, "counts", False, ranking.ranks),
            (comparison.pk, 2, "withdrawn", False, ranking.ranks),
        ],
        "leases": [(comparison.pk, 2, ranking.reason, None)],
        "skips": [],
        "counters": [(0, 0)],
    }


def test_a_skip_is_taken_back_and_its_comparison_held(ann, work, undo):
    (comparison,) = work(1)
    rankings.skip_comparison(ann, leases.lease_next(ann).pk)
    assert undo(ann).status_code == 200
    assert state(ann) == {
        "rankings": [],
        "leases": [(comparison.pk, None, Lease.Reason.SAMPLED, None)],
        "skips": [],
        "counters": [(0, 0)],
    }


def test_with_nothing_to_undo_nothing_changes(ann, work, undo):
    work(1)
    before = state(ann)
    assert undo(ann).status_code == 404
    assert state(ann) == before


def test_a_skip_cannot_be_undone_after_others_took_the_slot(ann, cole, work, undo):
    work(1)
    rankings.skip_comparison(ann, leases.lease_next(ann).pk)
    rank_next(cole)
    before = state(ann)
    assert undo(ann).status_code == 409
    assert state(ann) == before


def test_the_api_answers_with_the_lease_and_the_withdrawn_ranking(ann, work):
    work(1)
    stored = rank_next(ann, [2, 1], comment="Close.")
    client = client_of(ann.user)
    answer = client.post(f"{URL}/undo").json()
    lease, ranking = answer["lease"], answer["ranking"]
    assert (ranking["ranks"], ranking["comment"], ranking["revision"]) == ([2, 1], "Close.", 2)
    assert ranking["completions"] == lease["completions"]
    body = {"ranks": [1, 2], "idempotency_key": str(uuid4()), "seconds": 1}
    again = client.post(f"{URL}/leases/{lease['lease']}/ranking", body, format="json")
    assert (again.status_code, again.json()["ranking"]["revision"]) == (201, 3)
    assert list(Ranking.objects.filter(is_live=True).values_list("comparison")) == [(stored.comparison_id,)]


def test_a_client_of_version_0_1_may_revise_the_ranking_that_undo_answered(ann, work):
    (comparison,) = work(1)
    rank_next(ann, [2, 1])
    client = client_of(ann.user)
    number = client.post(f"{URL}/undo").json()["ranking"]["ranking"]
    body = {"ranks": [1, 2], "idempotency_key": str(uuid4()), "seconds": 1}
    revised = client.post(f"{URL}/rankings/{number}/revise", body, format="json")
    assert (revised.status_code, revised.json()["ranking"]["ranks"]) == (201, [1, 2])
    assert client.post(f"{URL}/rankings/{number}/revise", body, format="json").json() == revised.json()
    assert state(ann)["leases"] == []
    assert state(ann)["counters"] == [(1, 0)]
    other = body | {"idempotency_key": str(uuid4())}
    assert client.post(f"{URL}/rankings/{number}/revise", other, format="json").status_code == 409
    assert Comparison.objects.get().pk == comparison.pk


@pytest.mark.slow
def test_a_submit_after_ten_undos_is_answered_as_stored(ann, work, client, plain_static_files):
    """The page holds more leases than a submit may add to. It was answered 409 after the ranking was stored."""
    work(13)
    for _ in range(10):
        rank_next(ann, [2, 1])
    held = [ranking_undo.undo_last(ann).pk for _ in range(10)]
    client.force_login(ann.user)
    fields = {"key": uuid4(), "seconds": 2, "rank-0": 1, "rank-1": 2, "want": 1, "held": held[1:]}
    page = {"headers": {"HX-Request": "true"}}
    assert client.post("/projects/support/rank/submit/", fields | {"lease": held[0]}, **page).status_code == 200
    assert client.post("/projects/support/rank/skip/", fields | {"lease": held[1]}, **page).status_code == 200
    assert Ranking.objects.filter(is_live=True).count() == 1
