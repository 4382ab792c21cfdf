"""A request that timed out at the client can be sent again: it is executed once, and both responses are equal."""

import threading
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from feedback.api import idempotency
from feedback.models import ApiToken, Comparison, IdempotentResponse, Import, Invitation, Lease, Prompt, Ranking, Review
from tests.factories import URL, client_of, lines
from tests.feedback.api.test_api_strict import every_address

ROWS = lines({"prompt": "a", "completions": ["x", "y"]}, {"prompt": "b", "completions": ["x", "y"]})


def send(client, key, body=ROWS, path="prompts?again=true"):
    return client.post(f"{URL}/{path}", body, content_type="application/x-ndjson", HTTP_IDEMPOTENCY_KEY=key)


def test_the_same_request_again_gets_the_first_response_and_is_not_executed(as_manager, project):
    first, again = send(as_manager, "k-1"), send(as_manager, "k-1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json() and again["Idempotency-Replayed"] == "true"
    assert Comparison.objects.count() == 2


@pytest.mark.parametrize("other", [{"body": lines({"prompt": "c"})}, {"path": "prompts?again=true&compare=0"}])
def test_a_key_with_another_request_is_refused(as_manager, project, other):
    send(as_manager, "k-1")
    answer = send(as_manager, "k-1", **other)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert Prompt.objects.count() == 2


def test_a_refused_request_can_be_corrected_under_its_key(as_manager, project):
    assert send(as_manager, "k-1", lines({"prompt": 3})).status_code == 400
    assert send(as_manager, "k-1").status_code == 201


def test_two_people_may_use_one_key(as_manager, project, manager, colleague):
    project.memberships.filter(user=colleague).update(role="manager")
    assert send(as_manager, "k-1").status_code == send(client_of(colleague), "k-1", lines({"prompt": "c"})).status_code


@pytest.mark.parametrize("key", ["", " ", "x" * 201])
def test_an_invalid_key_is_refused(as_manager, project, key):
    assert send(as_manager, key).status_code == 400
    assert not Prompt.objects.exists()


def test_a_new_round_takes_a_key_too(as_manager, project):
    answers = [as_manager.post(f"{URL}/rounds", {}, format="json", HTTP_IDEMPOTENCY_KEY="r") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [409, 409]  # nothing is served: refused, so not stored
    assert not IdempotentResponse.objects.exists()


@pytest.mark.slow
def test_every_post_reads_the_key(as_manager, project):
    addresses = [path for method, path in every_address() if method == "post"]
    for path in addresses:
        answer = as_manager.post(path, {}, format="json", HTTP_IDEMPOTENCY_KEY="x" * 201)
        assert "Idempotency-Key" in answer.json()["detail"], path
    assert len(addresses) > 30


def ask_twice(client, path, body):
    first, again = (client.post(f"{URL}/{path}", body, format="json", HTTP_IDEMPOTENCY_KEY="k") for _ in range(2))
    assert again["Idempotency-Replayed"] == "true" and not first.has_header("Idempotency-Replayed")
    other = client.post(f"{URL}/{path}", {**body, "more": 1}, format="json", HTTP_IDEMPOTENCY_KEY="k")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    IdempotentResponse.objects.all().delete()
    assert first.status_code in (200, 201), first.json()
    return first, again


def test_requests_of_annotators_and_reviewers_are_executed_once(as_annotator, as_manager, project, work):
    work(2)
    first, again = ask_twice(as_annotator, "leases", {})
    assert first.json() == again.json() and Lease.objects.count() == 1
    path = f"leases/{first.json()['lease']['lease']}/ranking?next=1"
    body = {"ranks": [1, 2], "idempotency_key": str(uuid4()), "seconds": 1.5}
    first, again = ask_twice(as_annotator, path, body)
    assert first.json() == again.json() and first.json()["next"] is not None
    assert (Ranking.objects.count(), Lease.objects.count()) == (1, 1)
    first, again = ask_twice(as_manager, f"review/rankings/{Ranking.objects.get().pk}/discard", {"reason": "Hasty."})
    assert first.json() == again.json() and Review.objects.count() == 1


def test_a_file_that_is_sent_again_is_one_import(as_manager, project):
    first, again = (send(as_manager, "k", path="imports?name=rows.jsonl") for _ in range(2))
    assert first.status_code == again.status_code == 201 and first.json() == again.json()
    assert Import.objects.count() == 1


def test_a_secret_is_shown_once_and_never_stored(as_manager, project):
    requests = [("/api/v1/tokens", {"name": "t"}, "key"), (f"{URL}/invitations", {"role": "annotator"}, "url")]
    for path, body, secret in requests:
        first, again = (as_manager.post(path, body, format="json", HTTP_IDEMPOTENCY_KEY=path) for _ in range(2))
        assert first.status_code == 201, first.json()
        assert (again.status_code, again.json()["code"], again.json()["id"]) == (409, "shown_once", first.json()["id"])
        assert again["Content-Type"] == "application/problem+json"
        assert first.json()[secret] not in str(IdempotentResponse.objects.get(key=path).body)
    assert (ApiToken.objects.filter(name="t").count(), Invitation.objects.count()) == (1, 1)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_eight_simultaneous_requests_with_one_key_are_executed_once(project, manager):
    key, answers = str(uuid4()), []

    def ask():
        answers.append(send(client_of(manager), key).json())
        connection.close()

    start_together(ask)
    assert len(answers) == 8 and all(answer == answers[0] for answer in answers)
    assert Comparison.objects.count() == 2


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_eight_simultaneous_requests_that_commit_by_themselves_are_executed_once(project, manager):
    answers = []

    def ask():
        answers.append(send(client_of(manager), "one", path="imports?name=rows.jsonl").json())
        connection.close()

    start_together(ask)
    assert len(answers) == 8 and all(answer == answers[0] for answer in answers)
    assert Import.objects.count() == 1


def start_together(target):
    threads = [threading.Thread(target=target) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_stored_responses_are_deleted_after_a_week(as_manager, project):
    send(as_manager, "k-1")
    assert idempotency.delete_expired() == 0
    IdempotentResponse.objects.update(created_at=timezone.now() - timedelta(days=8))
    assert idempotency.delete_expired() == 1
