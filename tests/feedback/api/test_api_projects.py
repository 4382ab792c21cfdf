"""Projects, members and tokens over HTTP."""

import json

import pytest

from feedback.models import ApiToken, Membership, Project
from tests.factories import URL, client_of

pytestmark = pytest.mark.django_db
PROJECTS = "/api/v1/projects"
TOKENS = "/api/v1/tokens"


def test_users_see_only_their_own_projects(as_manager, as_stranger, as_annotator, project):
    assert [(each["slug"], each["role"]) for each in as_manager.get(PROJECTS).json()] == [("support", "manager")]
    assert [each["role"] for each in as_annotator.get(PROJECTS).json()] == ["annotator"]
    assert [each["slug"] for each in as_stranger.get(PROJECTS).json()] == ["other"]


def test_staff_make_projects_and_manage_them(as_manager, manager):
    assert as_manager.post(PROJECTS, {"slug": "new", "name": "New"}, format="json").status_code == 403
    manager.is_staff = True
    manager.save()
    response = as_manager.post(PROJECTS, {"slug": "new", "name": "New", "wanted_rankings": 3}, format="json")
    assert response.status_code == 201
    assert (response.json()["role"], response.json()["wanted_rankings"]) == ("manager", 3)
    again = as_manager.post(PROJECTS, {"slug": "new", "name": "New"}, format="json")
    assert again.status_code == 400
    assert "slug" in again.json()["message"]


def test_settings_change_one_by_one(as_manager, project):
    response = as_manager.patch(URL, {"lease_minutes": 5}, format="json")
    assert response.json()["lease_minutes"] == 5
    assert response.json()["guidelines"] == "Be kind."
    asked = {"attributes": ["helpful", "honest"], "flags": ["rude"]}
    assert as_manager.patch(URL, asked, format="json").json().items() >= asked.items()


@pytest.mark.parametrize(
    "body",
    [
        {"lease_minutes": 0},
        {"lease_minutes": 10**9},
        {"wanted_rankings": 0},
        {"wanted_rankings": 101},
        {"held_out_percent": 91},
        {"name": ""},
        {"name": "a\x00"},
        {"guidelines": None},
        {"attributes": ["helpful", " Helpful"]},
        {"attributes": ["helpful, honest"]},
        {"attributes": [""]},
        {"attributes": list("abcdefg")},
        {"attributes": ["x" * 51]},
        {"attributes": "helpful"},
        {"flags": ["rude", "Rude"]},
        {"flags": list("abcdefghijklm")},
    ],
)
def test_settings_out_of_range_are_400(as_manager, project, body):
    response = as_manager.patch(URL, json.dumps(body), content_type="application/json")
    assert response.status_code == 400
    assert next(iter(body)) in response.json()["message"]


def test_a_setting_is_accepted_by_its_former_name(as_manager, project):
    changed = as_manager.patch(URL, {"extra_opinions": 2}, format="json")
    assert (changed.status_code, changed.json()["extra_rankings"]) == (200, 2)
    assert "extra_opinions" not in changed.json()
    project.refresh_from_db()
    assert project.extra_rankings == 2
    both = as_manager.patch(URL, {"extra_opinions": 3, "extra_rankings": 4}, format="json")
    assert (both.status_code, "former name" in both.json()["message"]) == (400, True)


def test_a_new_project_takes_a_setting_by_its_former_name(as_manager, manager):
    manager.is_staff = True
    manager.save()
    body = {"slug": "new", "name": "New", "extra_opinions": 1}
    assert as_manager.post("/api/v1/projects", body, format="json").json()["extra_rankings"] == 1


def test_members_are_added_and_removed(as_manager, project, stranger):
    added = as_manager.post(f"{URL}/members", {"username": "stan", "role": "reviewer"}, format="json")
    assert added.status_code == 201
    assert {"username": "stan", "role": "reviewer", "ranking_count": 0}.items() <= added.json().items()
    member = f"{URL}/members/{stranger.pk}"
    assert as_manager.patch(member, {"role": "annotator"}, format="json").json()["role"] == "annotator"
    assert len(as_manager.get(f"{URL}/members").json()) == 2
    assert as_manager.delete(member).status_code == 204
    assert as_manager.delete(member).status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"username": "nobody"}, 404),
        ({"username": "mona"}, 409),
        ({"username": "mona", "role": "king"}, 400),
        ({"username": "a\x00"}, 400),
        ({}, 400),
    ],
)
def test_members_that_cannot_be_added(as_manager, project, body, status):
    assert as_manager.post(f"{URL}/members", body, format="json").status_code == status


def test_the_last_manager_cannot_be_removed_or_demoted(as_manager, manager, project):
    member = f"{URL}/members/{manager.pk}"
    assert as_manager.delete(member).status_code == 409
    assert as_manager.patch(member, {"role": "annotator"}, format="json").status_code == 409
    assert Membership.objects.get(user=manager).is_manager


def test_an_archived_project_can_be_read_and_is_marked_as_archived(as_manager, project):
    Project.objects.update(archived_at="2026-01-01T00:00Z")
    assert as_manager.get(URL).json()["archived_at"] == "2026-01-01T00:00:00Z"
    assert [each["slug"] for each in as_manager.get(PROJECTS).json()] == ["support"]
    assert as_manager.patch(URL, {"name": "x"}, format="json").status_code == 423


def test_a_token_shows_its_key_once(as_annotator, annotator):
    issued = as_annotator.post(TOKENS, {"name": "export job"}, format="json")
    assert issued.status_code == 201
    key = issued.json()["key"]
    assert as_annotator.get(TOKENS, headers={"Authorization": f"Token {key}"}).status_code == 200
    assert key not in as_annotator.get(TOKENS).content.decode()
    assert [each["name"] for each in as_annotator.get(TOKENS).json()] == ["tests", "export job"]


def test_a_token_is_revoked_by_its_owner_alone(as_annotator, annotator, colleague):
    token = ApiToken.objects.get(user=annotator)
    assert client_of(colleague).delete(f"{TOKENS}/{token.pk}").status_code == 404
    assert as_annotator.delete(f"{TOKENS}/{token.pk}").status_code == 204
    assert as_annotator.get(TOKENS).status_code == 401


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "x" * 101}, {"name": "a\x00"}, []])
def test_a_token_needs_a_name(as_annotator, body):
    assert as_annotator.post(TOKENS, body, format="json").status_code == 400
