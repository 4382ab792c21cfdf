"""Conditional requests: 304 for what the client has, 412 for a change of what it has not seen."""

import threading

import pytest
from django.db import connection

from feedback.models import Project
from tests.factories import URL, client_of
from tests.feedback.api.test_api_strict import every_address

pytestmark = pytest.mark.django_db


def test_an_unchanged_answer_is_304_without_a_body(as_manager, project):
    tag = as_manager.get(URL)["ETag"]
    again = as_manager.get(URL, headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", tag)
    assert as_manager.head(URL, headers={"If-None-Match": f"W/{tag}"}).status_code == 304
    as_manager.patch(URL, {"name": "New"}, format="json")
    changed = as_manager.get(URL, headers={"If-None-Match": tag})
    assert changed.status_code == 200 and changed["ETag"] != tag


@pytest.mark.slow
def test_a_change_of_what_has_changed_is_refused(as_manager, project):
    tag = as_manager.get(URL)["ETag"]
    first = as_manager.patch(URL, {"name": "First"}, format="json", headers={"If-Match": tag})
    second = as_manager.patch(URL, {"name": "Second"}, format="json", headers={"If-Match": tag})
    assert first.status_code == 200
    assert (second.status_code, second.json()["code"]) == (412, "precondition_failed")
    assert Project.objects.get(pk=project.pk).name == "First"
    for good in (f'"else", W/{as_manager.get(URL)["ETag"]}', "*"):
        assert as_manager.patch(URL, {"name": "Third"}, format="json", headers={"If-Match": good}).status_code == 200


def test_a_stranger_learns_nothing_from_a_condition(as_stranger, as_annotator, project):
    answer = as_stranger.patch(URL, {"name": "x"}, format="json", headers={"If-Match": '"x"'})
    assert answer.status_code == 404
    answer = as_annotator.patch(URL, {"name": "x"}, format="json", headers={"If-Match": "*"})
    assert answer.status_code == 403


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_one_of_simultaneous_changes_of_a_version_is_made(project, manager):
    tag, answers = client_of(manager).get(URL)["ETag"], []

    def change(name):
        answers.append(client_of(manager).patch(URL, {"name": name}, format="json", headers={"If-Match": tag}))
        connection.close()

    threads = [threading.Thread(target=change, args=[f"name {number}"]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, *[412] * 5]


def test_every_change_reads_the_condition(as_manager, project):
    for method, path in every_address():
        if method not in ("put", "patch", "delete"):
            continue
        answer = getattr(as_manager, method)(path, {"x": 1}, format="json", headers={"If-Match": '"x"'})
        assert answer.status_code in (404, 412) or answer.json()["code"] == "invalid", (method, path, answer.content)
