"""Only managers may send large bodies, and only to uploads."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.files.uploadhandler import TemporaryFileUploadHandler

from feedback import imports
from feedback.actions.tokens import issue_token
from feedback.errors import TooManyRequests
from feedback.imports import rows

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]


@pytest.fixture
def nothing_is_stored(monkeypatch):
    def fail(*_):
        raise AssertionError("a file was received")

    monkeypatch.setattr(TemporaryFileUploadHandler, "receive_data_chunk", fail)


def upload(client, path, size):
    file = SimpleUploadedFile("large.jsonl", b"x" * size)
    return client.post(path, {"username": "a", "password": "b", "file": file})


@pytest.mark.parametrize("path", ["/sign-in/", "/language/", "/projects/support/prompts/", "/account/"])
def test_anonymous_requests_may_send_only_small_bodies(client, project, path, nothing_is_stored):
    assert upload(client, path, 3_000_000).status_code == 413


@pytest.mark.parametrize("path", ["prompts/", "rank/submit/", "settings/"])
def test_annotators_may_send_only_small_bodies(client, annotator, path, nothing_is_stored):
    client.force_login(annotator)
    assert upload(client, f"/projects/support/{path}", 3_000_000).status_code == 413


def test_managers_may_send_large_bodies_to_uploads_only(client, manager):
    client.force_login(manager)
    assert upload(client, "/projects/support/prompts/", 3_000_000).status_code == 200
    assert upload(client, "/projects/support/settings/", 3_000_000).status_code == 413


@pytest.mark.parametrize("path", ["/sign-in/", "/projects/support/prompts/", "/api/v1/projects/support/prompts"])
def test_an_invented_token_or_cookie_counts_as_anonymous(client, project, path, nothing_is_stored):
    client.cookies["sessionid"] = "made-up"
    assert upload(client, path, 3_000_000).status_code == 413
    for scheme in ("Bearer", "Basic"):
        client.defaults["HTTP_AUTHORIZATION"] = f"{scheme} acc_made_up"
        is_told_so = scheme == "Bearer" and path.startswith("/api/")
        assert upload(client, path, 3_000_000).status_code == (401 if is_told_so else 413)


@pytest.mark.slow
def test_a_token_sends_what_its_owner_may_send(client, project, manager, annotator):
    lines = "\n".join(f'{{"prompt": "{number}{"x" * 90_000}"}}' for number in range(30))
    for user, status in ((annotator, 413), (manager, 201)):
        _token, key = issue_token(user, "upload")
        headers = {"Authorization": f"Bearer {key}"}
        answer = client.post("/api/v1/projects/support/prompts", lines, "application/x-ndjson", headers=headers)
        assert answer.status_code == status
        assert status == 201 or (answer.json()["code"], "2097152" in answer.json()["message"]) == ("too_large", True)


def test_more_rows_than_one_request_takes_are_413(client, project, manager, monkeypatch):
    monkeypatch.setattr(rows, "MAX_ROWS", 3)
    _token, key = issue_token(manager, "upload")
    lines = "\n".join(f'{{"prompt": "{number}"}}' for number in range(4))
    headers = {"Authorization": f"Bearer {key}"}
    answer = client.post("/api/v1/projects/support/prompts", lines, "application/x-ndjson", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert answer.json()["message"] == "The upload has more than 3 rows: send them in several parts."


def test_one_person_stores_no_more_demonstrations_than_anybody_writes(ann, cole, work):
    (comparison,) = work(1)
    for number in range(3):
        imports.add_demonstration(ann, comparison.prompt, f"{number}" + "x" * 99_000)
    with pytest.raises(TooManyRequests, match="continue later"):
        imports.add_demonstration(ann, comparison.prompt, "y" * 99_000)
    imports.add_demonstration(cole, comparison.prompt, "z" * 99_000)
