"""Limits of tokens: scopes, projects, expiry, rotation."""

from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from feedback.actions.tokens import issue_token
from feedback.api import scopes
from feedback.api import urls as feedback_urls
from feedback.models import ApiToken, Membership, Project
from tests.factories import URL, client_of, lines
from training.api import urls as training_urls

pytestmark = pytest.mark.django_db
PROMPT = {"data": lines({"prompt": "Where is it?"}), "content_type": "application/x-ndjson"}


def client_with(user, **limits):
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_token(user, 'tests', **limits)[1]}")
    return client


def test_every_address_names_its_resource():
    names = {url.name for urls in (feedback_urls, training_urls) for url in urls.urlpatterns}
    assert names == set(scopes._resources)
    assert {scopes._resources[name] for name in names} == scopes.RESOURCES | {scopes.UNRESTRICTED}


def test_a_token_reads_and_writes_only_what_its_scopes_name(manager):
    reader = client_with(manager, scopes=["preferences:read"])
    assert reader.get(f"{URL}/preferences").status_code == 200
    refused = reader.post(f"{URL}/prompts", **PROMPT)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert '"prompts:write"' in refused.json()["message"]
    writer = client_with(manager, scopes=["prompts:write"])
    assert writer.post(f"{URL}/prompts", **PROMPT).status_code == 201
    assert writer.get(f"{URL}/data/prompts").status_code == 403
    assert writer.head(f"{URL}/preferences").status_code == 403


def test_a_scope_gives_no_more_than_the_role(annotator):
    assert client_with(annotator, scopes=["prompts:write"]).post(f"{URL}/prompts", **PROMPT).status_code == 403


def test_a_token_with_scopes_makes_no_tokens(manager):
    limited = client_with(manager, scopes=list(scopes.SCOPES))
    for answer in (limited.get("/api/v1/tokens"), limited.post("/api/v1/tokens", {"name": "more"}, format="json")):
        assert answer.status_code == 403
    assert ApiToken.objects.count() == 1


def test_a_token_sees_only_its_projects(manager):
    other = Project.objects.create(slug="other", name="Another project")
    Membership.objects.create(project=other, user=manager, role="manager")
    client = client_with(manager, projects=["other"])
    assert client.get("/api/v1/projects/other").status_code == 200
    assert client.get(URL).status_code == 404
    assert [body["slug"] for body in client.get("/api/v1/projects").json()] == ["other"]
    assert client.post("/api/v1/projects", {"slug": "new", "name": "New"}, format="json").status_code == 403
    assert client.get("/api/v1/tokens").status_code == 403
    other.delete()
    assert client.get("/api/v1/projects").json() == []


def test_the_api_makes_a_limited_token_and_lists_its_limits(manager):
    api = client_of(manager)
    body = {"name": "export", "scopes": ["preferences:read"], "projects": ["support"], "days": 30}
    made = api.post("/api/v1/tokens", body, format="json").json()
    assert (made["scopes"], made["projects"]) == (["preferences:read"], ["support"])
    listed = api.get("/api/v1/tokens").json()[-1]
    assert listed == {name: value for name, value in made.items() if name != "key"}
    for wrong in ({"scopes": ["everything"]}, {"scopes": []}, {"projects": ["nowhere"]}, {"days": 0}):
        assert api.post("/api/v1/tokens", body | wrong, format="json").status_code == 400, wrong


def test_an_expired_token_is_refused(manager):
    client = client_with(manager, days=1)
    assert client.get(URL).status_code == 200
    ApiToken.objects.update(expires_at=timezone.now())
    assert client.get(URL).status_code == 401


def test_a_rotated_token_is_accepted_during_the_overlap(manager):
    old = client_with(manager, scopes=["projects:read"], days=90)
    before = ApiToken.objects.get()
    answer = client_of(manager).post(f"/api/v1/tokens/{before.pk}/rotate", {"overlap_minutes": 5}, format="json").json()
    new = APIClient()
    new.credentials(HTTP_AUTHORIZATION=f"Bearer {answer['key']}")
    assert old.get(URL).status_code == new.get(URL).status_code == 200
    assert answer["scopes"] == ["projects:read"]
    token = ApiToken.objects.get(pk=answer["id"])
    assert abs(token.expires_at - token.created_at - timedelta(days=90)) < timedelta(minutes=1)
    before.refresh_from_db()
    assert before.expires_at < timezone.now() + timedelta(minutes=6)
    ApiToken.objects.filter(pk=before.pk).update(expires_at=timezone.now())
    assert (old.get(URL).status_code, new.get(URL).status_code) == (401, 200)


@pytest.mark.slow
def test_the_account_page_makes_a_limited_token_and_shows_its_limits(client, manager):
    client.force_login(manager)
    form = {"name": "export", "days": "90", "scopes": ["preferences:read"], "projects": ["support"]}
    page = client.post("/account/", form).content.decode()
    token = ApiToken.objects.get()
    assert (token.scopes, token.project_ids) == (["preferences:read"], [manager.projects.get().pk])
    assert timezone.now() < token.expires_at < timezone.now() + timedelta(days=91)
    assert "preferences:read · support" in page
    client.post("/account/", {"name": "all"})
    assert ApiToken.objects.get(name="all").scopes is ApiToken.objects.get(name="all").project_ids is None
