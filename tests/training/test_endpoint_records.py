"""Endpoints of a project: pages, API, and what is stored."""

import ipaddress

import pytest

from feedback.errors import Conflict, Invalid
from feedback.models import Completion, Source
from tests.factories import client_of
from tests.training.stand_in import MODEL, stand_in
from training.endpoints import records
from training.models import Endpoint

KEY = "sk-hidden-0123456789"
URL = "/api/v1/projects/support/endpoints"
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _loopback_is_allowed(settings):
    settings.ENDPOINT_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]


@pytest.fixture(scope="module")
def server():
    with stand_in() as state:
        yield state


@pytest.fixture
def values(server):
    server.faults.clear()
    server.keys.clear()
    return {"name": "x", "url": server.url, "model": MODEL, "key": KEY}


@pytest.fixture
def endpoint(project, values):
    return records.create(project, {**values, "prompt_price": 3, "completion_price": 15}, None)


@pytest.fixture
def page(client, manager, plain_static_files):
    client.force_login(manager)
    return client


def test_a_key_is_stored_encrypted_and_shown_nowhere(endpoint, page, manager):
    stored = Endpoint.objects.get()
    assert KEY not in str(vars(stored)) and records.key_of(stored) == KEY
    assert stored.source.kind == Source.Kind.ENDPOINT and stored.source.name == "endpoint:x"
    shown = [page.get(f"/projects/support/endpoints/{path}").content.decode() for path in ("", f"{stored.pk}/")]
    listed = client_of(manager).get(URL).content.decode()
    assert all(KEY not in text and stored.encrypted_key not in text for text in [*shown, listed])
    assert '"has_key":true' in listed.replace(" ", "")


def test_the_pages_add_try_change_and_remove_an_endpoint(project, page, values, server):
    empty = page.get("/projects/support/endpoints/").content.decode()
    assert "No endpoints yet" in empty
    numbers = {"concurrency": 2, "timeout_seconds": 60, "retries": 0, "prompt_price": "2", "completion_price": "4.5"}
    bad = page.post("/projects/support/endpoints/", {**values, **numbers, "url": "http://ann:pw@host/v1"})
    assert "without user name" in bad.content.decode() and not Endpoint.objects.exists()
    added = page.post("/projects/support/endpoints/", {**values, **numbers}, follow=True)
    endpoint = Endpoint.objects.get()
    assert f"/endpoints/{endpoint.pk}/" in added.redirect_chain[-1][0] and endpoint.created_by is not None
    at = f"/projects/support/endpoints/{endpoint.pk}/"
    tried = page.post(f"{at}call/", HTTP_HX_REQUEST="true").content.decode()
    assert "Say hello.!" in tried and "tiny-chat-v1" in tried and "0.000015" in tried
    server.faults = [401]
    assert "refuses the key" in page.post(f"{at}call/").content.decode()
    changed = {**values, **numbers, "key": "", "concurrency": 7}
    page.post(at, changed)
    endpoint.refresh_from_db()
    assert (endpoint.concurrency, records.key_of(endpoint)) == (7, KEY)
    page.post(at, {**changed, "without_key": "on"})
    endpoint.refresh_from_db()
    assert records.key_of(endpoint) == ""
    page.post(f"{at}remove/")
    assert not Endpoint.objects.exists() and not Source.objects.filter(kind="endpoint").exists()


@pytest.mark.full
def test_the_models_are_listed_with_the_stored_key_at_its_own_address_only(endpoint, page, server):
    at, sent = "/projects/support/endpoints/models/", {"endpoint": endpoint.pk, "url": endpoint.url}
    assert "tiny-chat" in page.post(at, sent).content.decode()
    stolen = page.post(at, {**sent, "url": endpoint.url.replace("127.0.0.1", "127.0.0.2")})
    assert stolen.status_code == 200 and KEY not in stolen.content.decode()
    with pytest.raises(Invalid, match="Write the key again"):
        records.change(endpoint, {"url": endpoint.url.replace("127.0.0.1", "127.0.0.2")})
    assert "must be like" in page.post(at, {"url": "x"}).content.decode()


def test_the_api_adds_reads_changes_tries_and_removes_an_endpoint(project, manager, values):
    api = client_of(manager)
    made = api.post(URL, values, format="json")
    assert made.status_code == 201 and "key" not in made.data and made.data["has_key"] is True
    at = f"{URL}/{made.data['id']}"
    assert api.get(f"{at}/models").data == {"models": ["other", MODEL]}
    tried = api.post(f"{at}/call").data
    assert (tried["text"], tried["error"], tried["completion_tokens"]) == ("Say hello.!", "", 2)
    assert api.patch(at, {"retries": 1, "prompt_price": "1", "completion_price": "2"}, format="json").status_code == 200
    read = api.get(at).data
    assert (read["retries"], read["requests"], read["cost"]) == (1, 1, pytest.approx(7e-6))
    for wrong in ({"name": "Ü"}, {"retries": 99}, {"url": "ftp://x"}, {"concurrency": 0}, {"what": 1}, {"key": "ü"}):
        assert api.patch(at, wrong, format="json").status_code == 400, wrong
    assert api.post(URL, values, format="json").status_code == 409
    assert api.delete(at).status_code == 204 and api.get(at).status_code == 404


@pytest.mark.full
@pytest.mark.usefixtures("plain_static_files")
def test_only_managers_see_and_change_endpoints(endpoint, annotator, stranger, client):
    for user, status in ((annotator, 403), (stranger, 404)):
        api = client_of(user)
        assert {api.get(URL).status_code, api.post(URL, {}, format="json").status_code} == {status}
        answers = [api.get(f"{URL}/{endpoint.pk}"), api.patch(f"{URL}/{endpoint.pk}", {}, format="json")]
        assert {one.status_code for one in [*answers, api.delete(f"{URL}/{endpoint.pk}")]} == {status}
        client.force_login(user)
        assert client.get(f"/projects/support/endpoints/{endpoint.pk}/").status_code == status


def test_the_model_of_an_endpoint_with_completions_stays(project, comparisons, endpoint):
    prompt = project.prompts.first()
    Completion.objects.create(prompt=prompt, source=endpoint.source, text="a", digest="d" * 64)
    with pytest.raises(Conflict, match="of one model"):
        records.change(endpoint, {"model": "another"})
    endpoint.refresh_from_db()
    records.change(endpoint, {"concurrency": 9})
    records.remove(endpoint)
    assert Source.objects.get(name="endpoint:x").completions.count() == 1
    with pytest.raises(Conflict, match="has or had"):
        records.create(project, {"name": "x", "url": "http://127.0.0.1/v1", "model": "m"}, None)


def test_an_endpoint_at_a_private_address_is_refused_unless_it_is_allowed(project, settings):
    settings.ENDPOINT_NETWORKS = []
    with pytest.raises(Invalid, match="ACCORD_ENDPOINT_NETWORKS"):
        records.create(project, {"name": "x", "url": "http://127.0.0.1:8000/v1", "model": "m"}, None)


@pytest.mark.full
def test_a_key_of_another_secret_key_is_asked_for_again(endpoint, settings):
    settings.SECRET_KEY = "another secret key, long enough for the tests"
    assert "write it again" in records.call_once(endpoint).error
