"""The page and the API of groups, routing rules and limits."""

import pytest

from feedback import imports
from feedback.models import Membership
from tests.factories import URL, client_of, rank_next

PAGE = "/projects/support/people/routing/"
pytestmark = pytest.mark.django_db


@pytest.fixture
def medical(project) -> None:
    rows = [{"prompt": f"q{n}", "metadata": {"tags": ["medical"]}, "completions": ["yes", "no"]} for n in range(2)]
    imports.add_prompts(project, rows, compare=True)


@pytest.mark.slow
def test_a_manager_makes_a_rule_and_learns_that_nobody_meets_it(client, manager, annotator, project, medical):
    client.force_login(manager)
    assert b"No rules yet" in client.get(PAGE).content
    client.post(PAGE, {"tags": "medical", "groups": "doctors, nurses"})
    page = client.get(PAGE).content.decode()
    assert "2 comparisons tagged medical have nobody: no member meets their rules." in page
    assert "These groups have no member: doctors, nurses." in page
    client.post(f"/projects/support/people/{annotator.pk}/work/", {"groups": "nurses", "daily_limit": "7"})
    member = Membership.objects.get(user=annotator)
    assert (member.groups, member.daily_limit, member.total_limit) == (["nurses"], 7, None)
    assert "have nobody" not in client.get(PAGE).content.decode()
    (rule,) = project.routing_rules.all()
    client.post(f"{PAGE}{rule.pk}/remove/")
    assert not project.routing_rules.exists()


@pytest.mark.full
def test_a_wrong_rule_or_limit_is_refused_beside_its_field(client, manager, annotator):
    client.force_login(manager)
    answer = client.post(PAGE, {"tags": "medical", "groups": " "})
    assert answer.context["form"].errors["groups"]
    answer = client.post(f"/projects/support/people/{annotator.pk}/work/", {"share_limit": "101"})
    assert b"less than or equal to 100" in answer.content
    assert client.post("/projects/support/people/0/work/", {}).status_code == 404


def test_the_page_of_an_annotator_for_whom_nothing_is_left_says_why(client, manager, annotator, project, medical):
    client_of(manager).patch(f"{URL}/routing", {"rules": [{"tags": ["medical"], "groups": ["doctors"]}]}, format="json")
    client.force_login(annotator)
    assert "for members of other groups: 2 comparisons" in client.get("/projects/support/rank/").content.decode()
    answer = client.get("/projects/support/rank/next/", headers={"HX-Request": "true"})
    assert "for members of other groups" in answer.content.decode()


def test_the_api_replaces_rules_and_reports_what_they_leave_without_people(manager, annotator, project, medical):
    api = client_of(manager)
    rules = [{"tags": ["medical"], "groups": ["doctors"]}]
    answer = api.patch(f"{URL}/routing", {"rules": rules}, format="json").json()
    assert answer["rules"] == rules
    assert answer["waiting"][0] | {"problem": ""} == {
        "tags": ["medical"], "comparisons": 2, "wanted_rankings": 1, "members": 0, "problem": "",
    }  # fmt: skip
    changed = api.patch(f"{URL}/members/{annotator.pk}", {"groups": ["doctors"], "share_limit": 10}, format="json")
    assert (changed.json()["groups"], changed.json()["share_limit"]) == (["doctors"], 10)
    assert api.get(f"{URL}/routing").json()["waiting"][0]["problem"] == ""
    assert rank_next(Membership.objects.select_related("project").get(user=annotator))
    assert api.patch(f"{URL}/members/{annotator.pk}", {}, format="json").status_code == 400
    assert api.patch(f"{URL}/routing", {"rules": [{"tags": [], "groups": ["x"]}]}, format="json").status_code == 400
    assert api.patch(f"{URL}/routing", {}, format="json").status_code == 400
