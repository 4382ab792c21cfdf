"""Large bodies are taken from managers alone, and only where lines are uploaded."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.files.uploadhandler import TemporaryFileUploadHandler

from feedback import intake
from feedback.errors import TooMuch

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
def test_nobody_in_particular_sends_little(client, project, path, nothing_is_stored):
    assert upload(client, path, 3_000_000).status_code == 413


@pytest.mark.parametrize("path", ["prompts/", "rank/submit/", "settings/"])
def test_an_annotator_sends_little(client, annotator, path, nothing_is_stored):
    client.force_login(annotator)
    assert upload(client, f"/projects/support/{path}", 3_000_000).status_code == 413


def test_a_manager_uploads_lines_and_nothing_else_that_is_large(client, manager):
    client.force_login(manager)
    assert upload(client, "/projects/support/prompts/", 3_000_000).status_code == 200
    assert upload(client, "/projects/support/settings/", 3_000_000).status_code == 413


def test_one_person_stores_no_more_demonstrations_than_anybody_writes(ann, cole, work):
    (comparison,) = work(1)
    for number in range(3):
        intake.add_demonstration(ann, comparison.prompt, f"{number}" + "x" * 99_000)
    with pytest.raises(TooMuch, match="continue later"):
        intake.add_demonstration(ann, comparison.prompt, "y" * 99_000)
    intake.add_demonstration(cole, comparison.prompt, "z" * 99_000)
