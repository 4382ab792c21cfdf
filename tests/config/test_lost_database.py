"""A request during a restart of the database gets 503 with a sentence, and other errors stay 500."""

import psycopg
import pytest
from django.db import OperationalError
from django.test import Client

from feedback import statements
from tests.factories import URL, client_of

pytestmark = pytest.mark.usefixtures("plain_static_files")
SENTENCE = "The database does not answer at the moment"


@pytest.fixture
def lose(monkeypatch):
    """Let the reads of sessions and memberships fail with this error of PostgreSQL."""

    def fail(cause):
        def run(*arguments):
            raise OperationalError("lost") from cause

        monkeypatch.setattr(statements, "run", run)

    return fail


@pytest.fixture
def client(manager):
    client = Client(raise_request_exception=False)
    client.force_login(manager)
    return client


@pytest.mark.parametrize(
    "cause", [psycopg.errors.AdminShutdown(), psycopg.errors.CannotConnectNow(), psycopg.OperationalError()]
)
def test_a_page_answers_503_while_the_database_is_away(client, project, lose, cause):
    lose(cause)
    for headers, is_whole in (({}, True), ({"HX-Request": "true"}, False)):
        answer = client.get("/projects/support/console/", headers=headers)
        assert (answer.status_code, answer["Retry-After"]) == (503, "5")
        assert SENTENCE in answer.content.decode() and ("<html" in answer.content.decode()) == is_whole


def test_the_api_answers_503_while_the_database_is_away(manager, project, lose):
    api = client_of(manager)
    api.raise_request_exception = False
    lose(psycopg.errors.AdminShutdown())
    answer = api.get(f"{URL}/machines")
    assert (answer.status_code, answer["Retry-After"], answer.json()["code"]) == (503, "5", "unavailable")
    assert SENTENCE in answer.json()["message"]


def test_an_error_of_a_statement_stays_500(client, project, lose):
    lose(psycopg.errors.QueryCanceled())
    answer = client.get("/projects/support/console/")
    assert answer.status_code == 500 and "Server error" in answer.content.decode()
