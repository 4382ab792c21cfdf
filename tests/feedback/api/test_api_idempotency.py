"""A request that timed out at the client can be sent again: it is executed once, and both responses are equal."""

import threading
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from feedback.api import idempotency
from feedback.models import Comparison, IdempotentResponse, Prompt
from tests.factories import URL, client_of, lines

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


@pytest.mark.django_db(transaction=True)
def test_eight_simultaneous_requests_with_one_key_are_executed_once(project, manager):
    key, answers = str(uuid4()), []

    def ask():
        answers.append(send(client_of(manager), key).json())
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8 and all(answer == answers[0] for answer in answers)
    assert Comparison.objects.count() == 2


def test_stored_responses_are_deleted_after_a_week(as_manager, project):
    send(as_manager, "k-1")
    assert idempotency.delete_expired() == 0
    IdempotentResponse.objects.update(created_at=timezone.now() - timedelta(days=8))
    assert idempotency.delete_expired() == 1
