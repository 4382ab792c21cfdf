"""The health check before a request's first statement finds dead connections, and asks the server seldom."""

import pytest
from django.db import connection

from config.database import base
from tests.database import end_connection_by_server

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def checks(monkeypatch):
    """Count the round trips of health checks."""
    sent = []
    ask = base.base.DatabaseWrapper.is_usable

    def counted(wrapper):
        sent.append(wrapper.alias)
        return ask(wrapper)

    monkeypatch.setattr(base.base.DatabaseWrapper, "is_usable", counted)
    return sent


def begin_request_and_read_process() -> int:
    connection.close_if_unusable_or_obsolete()  # as Django does when a request begins
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


def test_a_connection_that_has_just_answered_is_not_asked_again(checks):
    first = begin_request_and_read_process()
    assert [begin_request_and_read_process() for _ in range(3)] == [first] * 3
    assert checks == []


def test_a_connection_that_answered_long_ago_is_asked(checks, monkeypatch):
    first = begin_request_and_read_process()
    monkeypatch.setattr(base, "ANSWER_AGE", 0.0)
    assert begin_request_and_read_process() == first
    assert len(checks) == 1


def test_a_connection_that_the_server_has_just_ended_is_replaced(checks):
    begin_request_and_read_process()
    first = end_connection_by_server()
    assert begin_request_and_read_process() != first


def test_a_connection_that_this_process_closed_is_replaced():
    first = begin_request_and_read_process()
    connection.connection.close()  # the driver's, past Django
    assert begin_request_and_read_process() != first
