"""Limits of requests per token and per address, and the end of a revoked token."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from feedback.api import throttles
from feedback.models import ApiToken
from tests.factories import URL, client_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def within_a_minute(monkeypatch):
    monkeypatch.setattr(throttles, "_now", lambda: (1000, 30))


def assert_throttled(answer):
    assert (answer.status_code, answer.json()["code"], answer["Retry-After"]) == (429, "throttled", "30")
    assert answer["Content-Type"] == "application/problem+json" and "2 requests" in answer.json()["detail"]


@pytest.mark.slow
def test_a_token_has_a_limit_of_its_own(as_manager, manager, as_annotator, project, settings, monkeypatch):
    settings.API_REQUESTS_PER_MINUTE = 2
    assert [as_manager.get(URL).status_code for _ in range(2)] == [200, 200]
    assert_throttled(as_manager.patch(URL, {"name": "late"}, format="json"))
    assert as_annotator.get(URL).status_code == client_of(manager).get(URL).status_code == 200
    monkeypatch.setattr(throttles, "_now", lambda: (1001, 60))
    assert as_manager.get(URL).status_code == 200


@pytest.mark.slow
def test_an_address_has_a_limit_for_all_its_tokens(as_manager, as_annotator, project, settings):
    settings.API_REQUESTS_PER_MINUTE_AND_ADDRESS = 2
    assert as_manager.get(URL).status_code == as_annotator.get(URL).status_code == 200
    assert_throttled(as_manager.get(URL))
    assert as_manager.get(URL, REMOTE_ADDR="192.0.2.7").status_code == 200


def test_wrong_tokens_are_limited_and_do_not_stop_the_right_ones(as_nobody, as_manager, project, monkeypatch):
    monkeypatch.setattr(throttles, "MAX_REFUSED", 2)
    as_nobody.credentials(HTTP_AUTHORIZATION="Bearer acc_wrong")
    assert [as_nobody.get(URL).status_code for _ in range(2)] == [401, 401]
    assert_throttled(as_nobody.get(URL))
    assert as_manager.get(URL).status_code == 200


def test_zero_is_no_limit_and_old_counts_are_deleted(as_manager, project, settings, monkeypatch):
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM accord_request_counts")  # those of earlier tests, which committed
    as_manager.get(URL)
    settings.API_REQUESTS_PER_MINUTE = settings.API_REQUESTS_PER_MINUTE_AND_ADDRESS = 0
    as_manager.get(URL)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count FROM accord_request_counts")
        assert cursor.fetchall() == [(1,), (1,)]
        monkeypatch.setattr(throttles, "_now", lambda: (1002, 60))
        throttles.delete_old_counts()
        cursor.execute("SELECT count(*) FROM accord_request_counts")
        assert cursor.fetchone() == (0,)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_revoked_token_is_refused_at_once_by_a_worker_that_has_seen_it(manager, project):
    client = client_of(manager)

    with ThreadPoolExecutor(1) as worker:  # with a connection of its own, as another process has
        assert worker.submit(client.get, URL).result().status_code == 200
        assert client_of(manager).delete(f"/api/v1/tokens/{ApiToken.objects.earliest('pk').pk}").status_code == 204
        assert worker.submit(client.get, URL).result().status_code == 401
        worker.submit(lambda: connection.close()).result()
