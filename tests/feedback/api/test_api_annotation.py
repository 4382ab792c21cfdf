"""Ranking over HTTP, as an annotator's program does it."""

import json
from uuid import uuid4

import pytest

from feedback.models import Lease, Ranking
from tests.factories import URL

pytestmark = pytest.mark.django_db


def take(client, **body):
    response = client.post(f"{URL}/leases", body, format="json")
    assert response.status_code == 200, response.json()
    return response.json()["lease"]


def ranking_body(ranks=(1, 2), **more):
    return {"ranks": list(ranks), "idempotency_key": str(uuid4()), "seconds": 3.5, **more}


def rank(client, lease, body, query=""):
    # As escapes, so that a test can send what UTF-8 cannot say.
    escaped = json.dumps(body)
    return client.post(f"{URL}/leases/{lease['lease']}/ranking{query}", escaped, content_type="application/json")


def test_no_comparison_left_is_not_an_error(as_annotator, project):
    assert take(as_annotator) is None


def test_a_lease_shows_the_prompt_and_the_texts(as_annotator, work):
    work(1, size=3)
    lease = take(as_annotator)
    assert lease["messages"] == [{"role": "user", "content": "question 0"}]
    assert sorted(lease["completions"]) == ["answer 0 to 0", "answer 1 to 0", "answer 2 to 0"]
    assert set(lease) == {"lease", "comparison", "expires_at", "messages", "completions", "turns", "returned"}
    assert lease["turns"] == [None, None, None]


def test_leases_and_responses_do_not_reveal_the_source(as_annotator, work):
    work(3, size=3)
    lease = take(as_annotator)
    answer = rank(as_annotator, lease, ranking_body((1, 2, 3)), "?next=1").json()
    recent = as_annotator.get(f"{URL}/rankings").json()
    undone = as_annotator.post(f"{URL}/undo").json()
    for seen in (lease, answer, recent, undone):
        assert "source" not in json.dumps(seen)
        assert "position" not in json.dumps(seen)
        assert "completion_id" not in json.dumps(seen)


def test_a_ranking_is_answered_in_the_order_of_display(as_annotator, work):
    work(1, size=4)
    lease = take(as_annotator)
    response = rank(as_annotator, lease, ranking_body((3, 1, 3, 2), comment="hm", flags=["all bad"]))
    assert response.status_code == 201
    assert response.json()["ranking"]["ranks"] == [3, 1, 3, 2]
    assert "next" not in response.json()
    stored = Ranking.objects.get()
    assert stored.comparison.texts()[stored.ranks.index(1)] == lease["completions"][1]


def test_the_seconds_claimed_are_at_most_the_leases_age(as_annotator, work):
    work(1)
    lease = take(as_annotator)
    assert rank(as_annotator, lease, ranking_body(seconds=80_000)).json()["ranking"]["seconds"] < 60


def test_the_next_lease_comes_with_the_answer(as_annotator, work):
    work(2)
    lease = take(as_annotator)
    following = rank(as_annotator, lease, ranking_body(), "?next=1").json()["next"]
    assert following["comparison"] != lease["comparison"]
    assert rank(as_annotator, following, ranking_body(), "?next=1").json()["next"] is None


def test_leases_already_held_are_not_returned_again(as_annotator, work):
    work(3)
    first = take(as_annotator)
    second = take(as_annotator, beside=[first["lease"]])
    assert second["lease"] != first["lease"]
    third = rank(as_annotator, first, ranking_body(), f"?next=1&beside={second['lease']}").json()["next"]
    assert third["lease"] != second["lease"]


@pytest.mark.slow
def test_a_ranking_is_answered_as_stored_when_no_further_lease_may_be_had(as_annotator, work):
    """After ten undos the client holds more leases than a submit may add to: that is no reason to refuse the submit."""
    work(13)
    for _ in range(10):
        rank(as_annotator, take(as_annotator), ranking_body())
    held = [as_annotator.post(f"{URL}/undo").json()["lease"] for _ in range(10)]
    beside = "&".join(f"beside={lease['lease']}" for lease in held[1:])
    answer = rank(as_annotator, held[0], ranking_body(), f"?next=1&{beside}")
    assert (answer.status_code, answer.json()["next"]) == (201, None)
    skipped = as_annotator.post(f"{URL}/leases/{held[1]['lease']}/skip?next=1&{beside}", {}, format="json")
    assert (skipped.status_code, skipped.json()["next"]) == (200, None)
    assert Ranking.objects.filter(is_live=True).count() == 1


def test_the_same_submit_five_times_is_one_ranking_and_five_equal_answers(as_annotator, work):
    work(1)
    lease, body = take(as_annotator), ranking_body()
    answers = [rank(as_annotator, lease, body) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert Ranking.objects.count() == 1


BAD_SUBMITS = [
    ({"ranks": None}, "ranks"),
    ({"ranks": [1]}, "ranks"),
    ({"ranks": [1, 2, 3]}, "each of the 2 completions"),
    ({"ranks": [0, 1]}, "ranks"),
    ({"ranks": "1,2"}, "ranks"),
    ({"ranks": [1, "best"]}, "ranks"),
    ({"ranks": {"a": 1}}, "ranks"),
    ({"idempotency_key": "again"}, "idempotency_key"),
    ({"idempotency_key": None}, "idempotency_key"),
    ({"seconds": -1}, "seconds"),
    ({"seconds": "1e999"}, "seconds"),
    ({"comment": "a\x00b"}, "comment"),
    ({"flags": ["a\x00"]}, "flags"),
    ({"flags": "rude"}, "flags"),
    ({"flags": ["off-topic"]}, 'no flag "off-topic"'),
    ({"strength": 12}, "strength"),
    ({"strength": 2}, "does not ask for a strength"),
    ({"ratings": [5, 1]}, "ratings"),
    ({"ratings": {"helpful": [5, 1]}}, 'does not rate "helpful"'),
    ({"ratings": {"helpful": [6, 1]}}, "helpful"),
    ({"spans": [{"completion": 0, "start": 0, "end": 1}]}, "mark"),
    (
        {"spans": [{"completion": 2, "start": 0, "end": 1, "mark": "bad"}]},
        "by the display position, counted from 0",
    ),
    ({"spans": [{"completion": 0, "start": 0, "end": 999, "mark": "bad"}]}, "0 to 999"),
]


@pytest.mark.slow
def test_a_bad_submit_is_400_with_a_sentence_and_the_lease_stays(as_annotator, work):
    work(1)
    lease = take(as_annotator)
    for change, sentence in BAD_SUBMITS:
        response = rank(as_annotator, lease, ranking_body() | change)
        assert (response.status_code, response.json()["code"]) == (400, "invalid"), change
        assert sentence in response.json()["message"], change
        assert take(as_annotator)["lease"] == lease["lease"], change


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b'"x"',
        b"\xff",
        b'{"ranks":[NaN,1]}',
        b'{"comment":"\\ud800"}',
        b"[" * 100_000,
        b'{"ranks":' + b"9" * 9000,
    ],
)
def test_a_body_that_is_no_object_is_400(as_annotator, work, body):
    work(1)
    lease = take(as_annotator)
    url = f"{URL}/leases/{lease['lease']}/ranking"
    response = as_annotator.post(url, body, content_type="application/json")
    assert response.status_code == 400, response.content
    assert response.json()["message"]


def test_a_body_of_more_than_a_mebibyte_is_413(as_annotator, work):
    work(1)
    lease = take(as_annotator)
    response = rank(as_annotator, lease, ranking_body(comment="x" * 2**20))
    assert response.status_code == 413
    assert "1 MiB" in response.json()["message"]


def test_another_content_type_is_415(as_annotator, work):
    work(1)
    lease = take(as_annotator)
    url = f"{URL}/leases/{lease['lease']}/ranking"
    assert as_annotator.post(url, "ranks=1", content_type="text/plain").status_code == 415


def test_a_bad_query_writes_nothing(as_annotator, work):
    work(1)
    lease = take(as_annotator)
    assert rank(as_annotator, lease, ranking_body(), "?next=perhaps").status_code == 400
    assert rank(as_annotator, lease, ranking_body(), "?next=1&beside=7").status_code == 400
    assert not Ranking.objects.exists()


def test_another_annotators_lease_is_404(as_annotator, as_colleague, work):
    work(1)
    lease = take(as_annotator)
    assert rank(as_colleague, lease, ranking_body()).status_code == 404
    assert as_colleague.delete(f"{URL}/leases/{lease['lease']}").status_code == 404
    assert as_colleague.post(f"{URL}/leases/{lease['lease']}/renew").status_code == 404
    assert as_colleague.post(f"{URL}/leases/{lease['lease']}/skip", {}, format="json").status_code == 404


def test_a_late_submit_to_a_finished_comparison_is_409(as_annotator, as_colleague, work):
    work(1)
    lease = take(as_annotator)
    Lease.objects.update(expires_at="2020-01-01T00:00Z")
    rank(as_colleague, take(as_colleague), ranking_body())
    response = rank(as_annotator, lease, ranking_body())
    assert response.status_code == 409
    assert "ran out" in response.json()["message"]


def test_renewing_releasing_and_skipping(as_annotator, work):
    work(2)
    lease = take(as_annotator)
    renewed = as_annotator.post(f"{URL}/leases/{lease['lease']}/renew").json()["lease"]
    assert renewed["expires_at"] >= lease["expires_at"]
    skipped = as_annotator.post(f"{URL}/leases/{lease['lease']}/skip?next=1", {"reason": "unsure"}, format="json")
    assert skipped.json()["skipped"] == lease["comparison"]
    following = skipped.json()["next"]
    assert following["comparison"] != lease["comparison"]
    assert as_annotator.delete(f"{URL}/leases/{following['lease']}").status_code == 204
    assert not Lease.objects.exists()


def test_ratings_and_spans_are_given_and_answered_in_the_order_of_display(as_annotator, project, work):
    project.attributes = ["helpful", "honest"]
    project.save()
    work(1, size=3)
    lease = take(as_annotator)
    spans = [
        {"completion": 0, "start": 0, "end": 6, "mark": "good"},
        {"completion": 2, "start": 7, "end": 8, "mark": "bad"},
        {"completion": 2, "start": 8, "end": 10, "mark": "good"},
    ]
    ratings = {"helpful": [5, 3, None]}
    body = ranking_body((1, 2, 3), ratings=ratings | {"honest": [None, None, None]}, spans=spans[::-1])
    answer = rank(as_annotator, lease, body).json()["ranking"]
    assert (answer["ratings"], answer["spans"]) == (ratings, spans)
    stored = Ranking.objects.get()
    for span, shown in zip(
        stored.spans, sorted(spans, key=lambda each: stored.display_order[each["completion"]]), strict=True
    ):
        assert span == shown | {"completion": stored.display_order[shown["completion"]]}
    undone = as_annotator.post(f"{URL}/undo").json()["ranking"]
    assert (undone["ratings"], undone["spans"]) == (ratings, spans)
    marked = undone["completions"][2][7:8]
    assert marked in "012"  # of "answer 2 to 0": the display order decides which one


@pytest.mark.slow
def test_a_ranking_is_revised_and_the_record_keeps_both(as_annotator, as_colleague, work):
    work(1)
    ranking = rank(as_annotator, take(as_annotator), ranking_body((1, 2))).json()["ranking"]
    url = f"{URL}/rankings/{ranking['ranking']}/revise"
    assert as_colleague.post(url, ranking_body((2, 1)), format="json").status_code == 404
    revised = as_annotator.post(url, ranking_body((2, 1)), format="json")
    assert revised.status_code == 201
    assert (revised.json()["ranking"]["ranks"], revised.json()["ranking"]["revision"]) == ([2, 1], 2)
    assert as_annotator.post(url, ranking_body((1, 1)), format="json").status_code == 409
    assert Ranking.objects.count() == 2


def test_recent_rankings_are_those_of_the_current_user(as_annotator, as_colleague, work):
    work(2)
    rank(as_annotator, take(as_annotator), ranking_body())
    assert len(as_annotator.get(f"{URL}/rankings").json()) == 1
    assert as_colleague.get(f"{URL}/rankings").json() == []
