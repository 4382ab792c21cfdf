"""Changing and deleting prompts, completions and comparisons; pages and fields of lists."""

import pytest

from feedback.models import Comparison, Completion, Lease, Prompt
from tests.factories import URL, client_of, rank_next

pytestmark = pytest.mark.django_db
DATA = f"{URL}/data"


@pytest.fixture
def comparison(work):
    work(1)
    return Comparison.objects.get()


def paths(comparison):
    completions = comparison.completions.order_by("pk")
    return (
        f"{DATA}/comparisons/{comparison.pk}",
        [f"{DATA}/completions/{completion.pk}" for completion in completions],
        f"{DATA}/prompts/{comparison.prompt_id}",
    )


def test_unused_rows_are_deleted_from_the_comparison_to_the_prompt(as_manager, comparison):
    path, completions, prompt = paths(comparison)
    for early in (*completions, prompt):
        answer = as_manager.delete(early)
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert "first" in answer.json()["detail"]
    for gone in (path, *completions, prompt):
        assert as_manager.delete(gone).status_code == 204
        assert as_manager.delete(gone).status_code == as_manager.get(gone).status_code == 404
    assert not (Prompt.objects.exists() or Completion.objects.exists() or Comparison.objects.exists())


def test_a_comparison_that_somebody_has_worked_on_stays(as_manager, as_annotator, ann, comparison):
    path, *_ = paths(comparison)
    lease = as_annotator.post(f"{URL}/leases", {}, format="json").json()["lease"]["lease"]
    held = as_manager.delete(path)
    assert (held.status_code, "on a page" in held.json()["detail"]) == (409, True)
    as_annotator.post(f"{URL}/leases/{lease}/skip", {}, format="json")
    assert "skipped" in as_manager.delete(path).json()["detail"]
    assert Comparison.objects.exists()


def test_a_ranked_comparison_stays_with_all_that_it_shows(as_manager, ann, comparison):
    rank_next(ann, [1, 2])
    path, completions, prompt = paths(comparison)
    assert "ranked" in as_manager.delete(path).json()["detail"]
    assert {as_manager.delete(other).status_code for other in (*completions, prompt)} == {409}


def test_rows_of_another_project_are_not_there(client_of_other, comparison):
    path, completions, prompt = paths(comparison)
    for elsewhere in (path, *completions, prompt):
        assert client_of_other.delete(elsewhere.replace("support", "other")).status_code == 404
    assert client_of_other.patch(prompt.replace("support", "other"), {"metadata": {}}, format="json").status_code == 404
    assert Comparison.objects.exists()


@pytest.fixture
def client_of_other(stranger):
    return client_of(stranger)


def test_references_and_metadata_of_a_prompt_are_replaced(as_manager, comparison):
    _path, _completions, prompt = paths(comparison)
    answer = as_manager.patch(prompt, {"references": ["Yes."], "metadata": {"tags": ["a"]}}, format="json").json()
    assert (answer["references"], answer["metadata"]) == (["Yes."], {"tags": ["a"]})
    assert as_manager.patch(prompt, {"metadata": {}}, format="json").json()["references"] == ["Yes."]
    for wrong in ({"messages": []}, {"references": [""]}, {"references": "x"}, {"metadata": []}):
        assert as_manager.patch(prompt, wrong, format="json").status_code == 400, wrong


@pytest.mark.slow
def test_wanted_rankings_open_and_close_slots(as_manager, ann, comparison):
    path, *_ = paths(comparison)
    rank_next(ann, [1, 2])
    answer = as_manager.patch(path, {"wanted_rankings": 3, "priority": 5}, format="json")
    assert (answer.status_code, answer.json()["wanted_rankings"]) == (200, 3)
    comparison.refresh_from_db()
    assert (comparison.open_slots, comparison.priority) == (2, 5)
    assert as_manager.patch(path, {"wanted_rankings": 1}, format="json").status_code == 200
    comparison.refresh_from_db()
    assert (comparison.open_slots, comparison.wanted_rankings) == (0, 1)
    assert as_manager.patch(path, {"wanted_rankings": 0}, format="json").status_code == 400
    Comparison.objects.update(wanted_rankings=2, open_slots=0)  # two at work
    refused = as_manager.patch(path, {"wanted_rankings": 1}, format="json")
    assert (refused.status_code, "cannot want fewer" in refused.json()["detail"]) == (409, True)


def test_gold_has_no_number_of_rankings_to_change(as_manager, comparison):
    Comparison.objects.update(gold_ranks=[1, 2])
    assert as_manager.patch(paths(comparison)[0], {"wanted_rankings": 2}, format="json").status_code == 409


def test_single_members_invitations_and_tokens_are_read(as_manager, annotator, project):
    member = as_manager.get(f"{URL}/members/{annotator.pk}").json()
    assert member in as_manager.get(f"{URL}/members").json() and member["username"] == annotator.username
    made = as_manager.post(f"{URL}/invitations", {"role": "annotator"}, format="json").json()
    assert as_manager.get(f"{URL}/invitations/{made['id']}").json()["id"] == made["id"]
    (token,) = as_manager.get("/api/v1/tokens").json()
    assert as_manager.get(f"/api/v1/tokens/{token['id']}").json()["name"] == token["name"]
    assert as_manager.get(f"/api/v1/tokens/{token['id'] + 999}").status_code == 404
    assert as_manager.get(f"{URL}/members/{annotator.pk + 999}").status_code == 404
    assert as_manager.get(f"{URL}/invitations/{made['id'] + 999}").status_code == 404


@pytest.mark.parametrize("name", ["members", "invitations"])
def test_a_list_is_read_in_pages_by_its_links(as_manager, annotator, colleague, project, name):
    for _ in range(3 if name == "invitations" else 0):
        as_manager.post(f"{URL}/invitations", {"role": "annotator"}, format="json")
    whole = as_manager.get(f"{URL}/{name}")
    pages, address = [], f"{URL}/{name}?limit=1"
    while address:
        page = as_manager.get(address)
        pages += page.json()
        address = page.headers.get("Link", "").partition(">")[0].removeprefix("<http://testserver")
    assert pages == whole.json() and len(pages) >= 3 and not whole.has_header("Link")


def test_a_wrong_page_is_refused(as_manager, project):
    for query in ("limit=0", "limit=201", "cursor=x", "cursor=9223372036854775808", "fields=id,colour"):
        answer = as_manager.get(f"{URL}/invitations?{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid"), query
    assert "colour" in answer.json()["detail"] and "places" in answer.json()["detail"]


def test_rows_have_only_the_fields_that_are_asked_for(as_manager, comparison):
    assert as_manager.get(f"{URL}/members?fields=role,username").json()[0].keys() == {"role", "username"}
    rows = as_manager.get(f"{DATA}/prompts?fields=prompt").json()["rows"]
    assert rows == [{"prompt": comparison.prompt_id}]
    assert not Lease.objects.exists()
