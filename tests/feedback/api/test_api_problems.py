"""Errors are problem details (RFC 9457) with a stable code; request ids are in the answer and in the log."""

import logging

import pytest
from rest_framework.test import APIClient

from config.request_ids import AddRequestId
from feedback import problems
from feedback.actions.tokens import issue_token
from feedback.api import projects
from feedback.models import Project
from tests.factories import URL

pytestmark = pytest.mark.django_db


def assert_problem(answer, status, code):
    body = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code), body
    assert answer["Content-Type"] == "application/problem+json"
    assert body["type"] == f"/api/problems#{code}"
    assert body["title"] and body["detail"] == body["message"]


def test_each_kind_of_error_is_a_problem(as_manager, as_nobody, as_annotator, project):
    assert_problem(as_nobody.get(URL), 401, "not_authenticated")
    assert_problem(as_annotator.patch(URL, {"name": "x"}, format="json"), 403, "forbidden")
    assert_problem(as_manager.get("/api/v1/projects/nowhere"), 404, "not_found")
    assert_problem(as_manager.get("/api/v1/nowhere"), 404, "not_found")
    assert_problem(as_manager.put(URL, {}, format="json"), 405, "method_not_allowed")
    assert_problem(as_manager.post(f"{URL}/rounds", {}, format="json"), 409, "conflict")
    assert_problem(as_manager.patch(URL, b"x" * 2**20 + b"x", content_type="application/json"), 413, "too_large")
    assert_problem(as_manager.patch(URL, "name=x", content_type="text/html"), 415, "unsupported_media_type")
    assert_problem(as_manager.patch(URL, "{", content_type="application/json"), 400, "parse_error")
    Project.objects.filter(pk=project.pk).update(archived_at=project.created_at)
    assert_problem(as_manager.patch(URL, {"name": "x"}, format="json"), 423, "archived")


def test_a_problem_of_fields_names_them(as_manager, project):
    answer = as_manager.patch(URL, {"lease_minutes": "soon", "gold_percent": -1}, format="json")
    assert_problem(answer, 400, "invalid")
    assert set(answer.json()["fields"]) == {"lease_minutes", "gold_percent"}


def test_an_unexpected_error_is_a_problem_with_the_id_of_the_request(manager, project, monkeypatch):
    def fail(*_arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(projects.members, "membership_of", fail)
    client = APIClient(raise_request_exception=False)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_token(manager, 'tests')[1]}")
    answer = client.get(URL, headers={"X-Request-Id": "trace-17"})
    assert_problem(answer, 500, "server_error")
    assert "trace-17" in answer.json()["detail"] and answer["X-Request-Id"] == "trace-17"


def test_a_request_that_django_refuses_is_a_problem(project):
    answer = APIClient().get(URL, headers={"Host": "else.where"})
    assert_problem(answer, 400, "invalid")


@pytest.mark.parametrize("sent", ["", "two\nlines", "x" * 129, "\u00e9"])
def test_an_unusable_request_id_is_replaced(as_manager, project, sent):
    given = as_manager.get(URL, HTTP_X_REQUEST_ID=sent)["X-Request-Id"]
    assert given != sent and len(given) == 36
    assert given != as_manager.get(URL, HTTP_X_REQUEST_ID=sent)["X-Request-Id"]


def test_the_log_has_the_request_id(as_nobody, project, caplog):
    caplog.handler.addFilter(AddRequestId())
    with caplog.at_level(logging.WARNING, "django.request"):
        as_nobody.get(URL, headers={"X-Request-Id": "trace-18"})
    assert [record.request_id for record in caplog.records if record.name == "django.request"] == [" [trace-18]"]
    assert AddRequestId().filter(outside := logging.makeLogRecord({})) and outside.request_id == ""


def test_the_types_of_problems_are_described(client):
    page = client.get("/api/problems").content.decode()
    for code, line in problems.descriptions().items():
        assert f'id="{code}"' in page and line.endswith("."), code
    assert {"archived", "idempotency_key_reused", "invalid", "timeout", "unavailable"} <= set(problems.descriptions())
