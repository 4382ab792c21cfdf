"""Review over HTTP, by the functions that the pages call."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from feedback.models import Ranking
from tests.factories import URL, client_of, person, rank_next, rows_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def as_rita(project):
    return client_of(person(project, "rita", "reviewer"))


@pytest.fixture
def disputed(ann, cole, work):
    (comparison,) = work(1, wanted_rankings=2)
    first = rank_next(ann)
    agreeing = first.ranks == rank_next(cole).ranks
    if agreeing:
        Ranking.objects.filter(annotator=cole.user).update(is_live=False)
        Ranking.objects.filter(annotator=cole.user).update(ranks=first.ranks[::-1], is_live=True)
    return comparison


def post(client, path, **body):
    return client.post(f"{URL}/review/{path}", body, format="json")


def test_disagreements_come_worst_first_and_in_pages(as_rita, as_manager, ann, cole, work):
    work(4, size=4, wanted_rankings=2)
    while rank_next(ann):
        pass
    while rank_next(cole):
        pass
    every = as_rita.get(f"{URL}/review/comparisons").json()
    shares = [each["disagreement"] for each in every]
    assert shares == sorted(shares, reverse=True)
    assert as_manager.get(f"{URL}/review/comparisons?offset=1&limit=1").json() == every[1:2]
    assert as_rita.get(f"{URL}/review/comparisons?limit=1000").status_code == 400


def test_a_case_names_people_and_no_source(as_rita, disputed):
    answer = as_rita.get(f"{URL}/review/comparisons/{disputed.pk}")
    case = answer.json()
    assert case["disagreement"] == 1
    assert {each["annotator"] for each in case["opinions"]} == {"ann", "cole"}
    by_text = [dict(zip(case["completions"], each["ranks"], strict=True)) for each in case["opinions"]]
    assert by_text[0] != by_text[1]
    assert b"source-" not in answer.content
    assert case["adjudication"] is None


@pytest.mark.slow
def test_an_adjudication_is_made_and_undone(as_rita, as_manager, disputed):
    body = {"ranks": [2, 1], "idempotency_key": uuid4(), "seconds": 3, "reason": "It answers the question."}
    answer = post(as_rita, f"comparisons/{disputed.pk}/adjudicate", **body)
    assert answer.status_code == 201
    case = answer.json()
    assert case["adjudication"]["reviewer"] == "rita"
    assert case["adjudication"]["ranking_count"] == 2
    assert {each["annotator"]: each["standing"] for each in case["opinions"]} == {
        "ann": "overruled",
        "cole": "overruled",
        "rita": "counts",
    }
    assert [each["ranks"] for each in case["opinions"] if each["is_adjudication"]] == [[2, 1]]
    assert post(as_rita, f"comparisons/{disputed.pk}/adjudicate", **body).status_code == 201
    again = post(as_manager, f"comparisons/{disputed.pk}/adjudicate", **body | {"idempotency_key": uuid4()})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    decision = case["adjudication"]["decision"]
    assert post(as_manager, f"decisions/{decision}/undo").json()["undone_by"] == "mona"
    assert [each["disagreement"] for each in as_rita.get(f"{URL}/review/comparisons").json()] == [1]


def test_the_annotator_holds_a_returned_comparison_with_the_reason(as_rita, as_annotator, disputed):
    ranking = Ranking.objects.get(annotator__username="ann")
    answer = post(as_rita, f"rankings/{ranking.pk}/return", reason="Read B again.")
    assert (answer.status_code, answer.json()["kind"]) == (201, "return")
    lease = as_annotator.post(f"{URL}/leases", {}, format="json").json()["lease"]
    assert lease["returned"] == {
        "reason": "Read B again.",
        "ranks": [1, 2],
        "comment": "",
        "strength": None,
        "flags": [],
    }
    body = {"ranks": [2, 1], "idempotency_key": str(uuid4()), "seconds": 3}
    answered = as_annotator.post(f"{URL}/leases/{lease['lease']}/ranking", body, format="json").json()["ranking"]
    assert (answered["revision"], answered["ranks"]) == (3, [2, 1])


def test_ordinary_leases_are_not_returned(as_annotator, work):
    work(1)
    assert as_annotator.post(f"{URL}/leases", {}, format="json").json()["lease"]["returned"] is None


@pytest.mark.slow
def test_a_discard_needs_a_reason(as_rita, as_manager, disputed):
    ranking = Ranking.objects.get(annotator__username="ann")
    assert post(as_rita, f"rankings/{ranking.pk}/discard").status_code == 400
    assert post(as_rita, f"rankings/{ranking.pk}/discard", reason=" ").status_code == 400
    assert post(as_rita, f"rankings/{ranking.pk}/discard", reason="Clicked through.").status_code == 201
    rows = rows_of(as_manager.get(f"{URL}/preferences?format=rankings"))
    assert len(rows) == 1
    (decision,) = as_rita.get(f"{URL}/review/decisions").json()
    assert (decision["annotator"], decision["reason"]) == ("ann", "Clicked through.")


@pytest.mark.slow
def test_a_persons_work_and_all_of_it_discarded(as_rita, ann, work):
    work(5)
    while rank_next(ann):
        pass
    rankings = as_rita.get(f"{URL}/review/people/{ann.user_id}?limit=3").json()
    assert len(rankings) == 3
    since = (timezone.now() - timedelta(hours=1)).isoformat()
    path = f"{URL}/review/people/{ann.user_id}/discard"
    preview = as_rita.get(path, {"since": since}).json()
    assert preview == {"rankings": 5, "gold": 0, "reopened": 5}
    body = {"since": since, "reason": "Careless."}
    refused = as_rita.post(path, body | {"expected": 4}, format="json")
    assert (refused.status_code, "5 rankings" in refused.json()["message"]) == (409, True)
    done = as_rita.post(path, body | {"expected": 5}, format="json").json()
    assert (done["ranking_count"], done["comparison"]) == (5, None)
    standings = {each["standing"] for each in as_rita.get(f"{URL}/review/people/{ann.user_id}").json()}
    assert standings == {"discarded"}


def test_people_of_other_projects_are_not_found(as_rita, stranger):
    assert as_rita.get(f"{URL}/review/people/{stranger.pk}").status_code == 404
