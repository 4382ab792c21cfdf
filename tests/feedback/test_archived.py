"""An archived project is read-only and says so; rankings in progress can be submitted."""

import re
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone

from feedback.archive import WRITABLE_URLS
from feedback.models import Comparison, Project, Ranking
from feedback.queue import leases
from tests.factories import URL, client_of, rank_next

pytestmark = [pytest.mark.slow, pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]

ARGUMENTS = {"slug": "support", "lease_id": uuid4()}


def patterns(resolver=None):
    for each in (resolver or get_resolver()).url_patterns:
        if isinstance(each, URLResolver):
            yield from patterns(each)
        elif isinstance(each, URLPattern) and each.name and "slug" in each.pattern.converters:
            yield each


def address_of(pattern):
    return reverse(pattern.name, kwargs={name: ARGUMENTS.get(name, 1) for name in pattern.pattern.converters})


@pytest.fixture
def archived(project):
    """Archive the project."""

    def archive():
        Project.objects.filter(pk=project.pk).update(archived_at=timezone.now())

    return archive


def browser_of(user):
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize("method", ["post", "patch", "delete"])
def test_every_address_of_an_archived_project_refuses_to_write(manager, archived, method):
    archived()
    api, browser = client_of(manager), browser_of(manager)
    refused = 0
    for pattern in patterns():
        if pattern.name in WRITABLE_URLS:
            continue
        client = api if pattern.name.startswith("api-") else browser
        body = {"data": {}, "format": "json"} if client is api else {}
        response = getattr(client, method)(address_of(pattern), **body)
        assert response.status_code in (405, 423), (pattern.name, response.status_code)
        refused += response.status_code == 423
    assert refused >= {"post": 30, "patch": 2, "delete": 2}[method]


def test_the_data_of_an_archived_project_can_be_read_and_exported(mona, work, archived):
    work(1)
    rank_next(mona)
    archived()
    api, browser = client_of(mona.user), browser_of(mona.user)
    for path in ("rank/", "guidelines/", "prompts/", "people/", "settings/", "figures/", "review/", "export/"):
        page = browser.get(f"/projects/support/{path}")
        assert (page.status_code, b"This project is archived" in page.content) == (200, True), path
    assert api.get(f"{URL}/preferences").status_code == 200
    assert browser.get("/projects/support/export/file/?format=rankings").status_code == 200
    assert api.get(URL).json()["archived_at"] is not None
    assert b"Archived" in browser.get("/").content


def test_pages_of_an_archived_project_offer_nothing_that_would_be_refused(mona, work, archived):
    (comparison,) = work(1)
    rank_next(mona)
    archived()
    browser = browser_of(mona.user)
    pages = ["prompts", "people", "settings", "guidelines", "figures", "console", "review/decisions"]
    for name in [*pages, f"review/people/{mona.user_id}", f"review/{comparison.pk}"]:
        page = browser.get(f"/projects/support/{name}/").content.decode()
        forms = re.findall(r'<form[^>]*method="post".*?</form>', page, re.DOTALL)
        of_the_frame = [form for form in forms if 'action="/sign-out/"' in form or 'action="/language/"' in form]
        assert len(of_the_frame) == 2, name
        submits = [re.search(r'<button(?![^>]*type="button")', form) for form in forms if form not in of_the_frame]
        assert not any(submits), (name, submits)
        assert "data-opens" not in page, name
    assert "button primary" not in browser.get("/").content.decode()


def test_strangers_cannot_see_an_archived_project(stranger, archived):
    archived()
    assert client_of(stranger).get(URL).status_code == 404
    assert client_of(stranger).post(f"{URL}/prompts").status_code == 404


def test_in_an_archived_project_a_ranking_in_progress_can_be_submitted(ann, work, archived):
    work(3)
    lease = leases.lease_next(ann)
    archived()
    fields = {"lease": lease.pk, "key": uuid4(), "rank-0": "1", "rank-1": "2"}
    page = browser_of(ann.user).post("/projects/support/rank/submit/", fields, HTTP_HX_REQUEST="true")
    assert (page.status_code, b"Nothing more can be ranked" in page.content) == (200, True)
    assert Ranking.objects.count() == 1


def test_in_an_archived_project_a_ranking_in_progress_can_be_submitted_over_the_api(ann, work, archived):
    work(3)
    first = leases.lease_next(ann)
    archived()
    fields = {"ranks": [1, 2], "idempotency_key": str(uuid4()), "seconds": 1}
    answer = client_of(ann.user).post(f"{URL}/leases/{first.pk}/ranking?next=1", fields, format="json")
    assert (answer.status_code, answer.json()["next"]) == (201, None)
    taken = client_of(ann.user).post(f"{URL}/leases", {}, format="json")
    assert (taken.status_code, taken.json()["code"]) == (423, "archived")


def test_the_page_of_an_archived_project_shows_the_comparison_that_is_held(ann, work, archived):
    work(3)
    lease = leases.lease_next(ann)
    archived()
    assert str(lease.pk) in browser_of(ann.user).get("/projects/support/rank/").content.decode()
    leases.release(ann, lease.pk)
    assert b"This project is archived" in browser_of(ann.user).get("/projects/support/rank/").content
    assert set(Comparison.objects.values_list("open_slots", flat=True)) == {1}
