"""Access to pages, and what pages must not reveal."""

import re
from uuid import uuid4

import pytest
from django.apps import apps

from feedback import imports
from feedback.api.projects import SETTINGS
from feedback.models import Membership, Ranking
from feedback.queue import leases
from feedback.web import urls as feedback_urls
from tests.factories import person, rank_next
from training.web import urls as training_urls

# Every page of a project is taken from the URL patterns, and is for managers only unless it is named here.
FOR_MEMBERS = {
    *("rank", "rank-tour", "rank-next", "rank-submit", "rank-skip", "rank-undo", "rank-demonstrate", "rank-renew"),
    *("rank-revise", "guidelines", "own-figures"),
}
FOR_REVIEWERS = {
    *("review", "review-people", "review-decisions", "review-case", "review-work", "review-adjudicate"),
    *("review-return", "review-discard", "review-undo", "review-discard-since", "review-flagged", "review-keep"),
    *("review-demonstrations", "discard-demonstration", "review-surprising", "review-surprising-keep"),
}
PAGES = {
    url.name: str(url.pattern).replace("<slug:slug>", "support")
    for patterns in (feedback_urls.urlpatterns, training_urls.urlpatterns)
    for url in patterns
    if "<slug:slug>" in str(url.pattern)
}
FOR_MANAGERS = set(PAGES) - FOR_MEMBERS - FOR_REVIEWERS
MISSING, REFUSED, WRONG_VERB = 404, 403, 405


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("plain_static_files")]


def at(path: str) -> str:
    return f"/projects/support/{path}"


def address_of(name: str, slug: str = "support") -> str:
    return re.sub("<int:[a-z_]+>", "1", f"/{PAGES[name]}").replace("support", slug)


def answers(client, name: str, slug: str = "support") -> set[int]:
    """Return the statuses that a page answers GET and POST with, without that of a verb it does not know."""
    data = {"role": "manager", "ranking": 1, "reason": "x"}
    requests = (client.get(address_of(name, slug)), client.post(address_of(name, slug), data))
    return {answer.status_code for answer in requests} - {WRONG_VERB}


def test_the_patterns_have_the_pages_of_the_lists():
    assert set(PAGES) >= FOR_MEMBERS | FOR_REVIEWERS
    assert {"prompts", "export", "project-settings", "console", "round"} <= FOR_MANAGERS


def test_a_stranger_can_read_and_write_nothing(client, project, stranger):
    client.force_login(stranger)
    for name in PAGES:
        assert answers(client, name) == answers(client, name, "nowhere") == {MISSING}, name


def test_anonymous_users_are_sent_to_the_sign_in_page(client, project):
    before = rows_in_the_database()
    for name in PAGES:
        assert client.get(address_of(name)).url == f"/sign-in/?next={address_of(name)}"
        posted = client.post(address_of(name), {"role": "manager"})  # a form is kept until somebody signs in
        assert posted.status_code == WRONG_VERB or "sign-in" in posted.get("Location", posted.content.decode()), name
    assert rows_in_the_database() == before


def test_an_annotator_cannot_manage_or_review(client, annotator):
    client.force_login(annotator)
    for name in sorted(FOR_REVIEWERS | FOR_MANAGERS):
        assert answers(client, name) == {REFUSED}, name
    assert Membership.objects.get(user=annotator).role == "annotator"


def test_a_reviewer_cannot_manage(client, project):
    client.force_login(person(project, "rita", "reviewer"))
    for name in sorted(FOR_MANAGERS):
        assert answers(client, name) == {REFUSED}, name


def test_opening_a_page_writes_nothing(client, project, manager):
    """A link or a preview sends GET, which must not carry an act out."""
    client.force_login(manager)
    before = rows_in_the_database()
    for name in PAGES:
        assert client.get(address_of(name)).status_code not in (REFUSED, 500), name
        assert rows_in_the_database() == before, name


def rows_in_the_database() -> dict[str, int]:
    """Return the number of rows by table, without stored counts."""
    models = (*apps.get_app_config("feedback").get_models(), *apps.get_app_config("training").get_models())
    return {model.__name__: model.objects.count() for model in models if not model.__name__.endswith("Snapshot")}


def test_addresses_that_change_data_refuse_get(client, manager):
    client.force_login(manager)
    acts = (
        "invite",
        "password-link",
        "rank-submit",
        "rank-skip",
        "rank-undo",
        "change-role",
        "undo-import",
        "review-discard",
        "round-start",
    )
    for name in (*acts, "roll-back", "checkpoint-promote", "round-cancel", "review-undo", "remove-member"):
        assert client.get(address_of(name)).status_code == WRONG_VERB, name


@pytest.mark.parametrize("role", ["annotator", "reviewer"])
def test_everybody_may_open_the_pages_of_their_role(client, project, role):
    client.force_login(person(project, "rita", role))
    for name in FOR_MEMBERS if role == "annotator" else FOR_REVIEWERS:
        assert REFUSED not in answers(client, name), name


def test_the_page_never_names_a_source(client, project, annotator):
    texts = [{"text": "One.", "source": "checkpoint-7"}, {"text": "Two.", "source": "base-model"}]
    imports.add_prompts(project, [{"prompt": "Hello?", "completions": texts}], compare=True)
    client.force_login(annotator)
    page = client.get(at("rank/")).content
    assert b"One." in page
    assert b"Two." in page
    assert b"checkpoint-7" not in page
    assert b"base-model" not in page


def test_the_answer_to_a_submit_carries_the_next_comparison(client, project, annotator):
    rows = [{"prompt": f"{n}?", "completions": ["a", "b"]} for n in range(3)]
    imports.add_prompts(project, rows, compare=True)
    lease = leases.lease_next(annotator.memberships.get())
    client.force_login(annotator)
    data = {"lease": lease.pk, "key": uuid4(), "seconds": "1.5", "rank-0": 1, "rank-1": 1}
    answers = [client.post(at("rank/submit/"), data, headers={"HX-Request": "true"}) for _ in range(2)]
    assert all(b"<form" in answer.content for answer in answers)
    assert Ranking.objects.get().seconds == 1.5
    assert client.post(at("rank/submit/"), data).url == at("rank/")
    assert Ranking.objects.count() == 1


def test_the_page_cannot_claim_more_seconds_than_the_leases_age(client, project, annotator):
    imports.add_prompts(project, [{"prompt": "Hello?", "completions": ["a", "b"]}], compare=True)
    lease = leases.lease_next(annotator.memberships.get())
    client.force_login(annotator)
    data = {"lease": lease.pk, "key": uuid4(), "seconds": "80000", "rank-0": 1, "rank-1": 1}
    client.post(at("rank/submit/"), data, headers={"HX-Request": "true"})
    assert Ranking.objects.get().seconds < 60


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"key": "x"}, "key: "),
        ({"lease": ""}, "lease: "),
        ({"rank-1": "x"}, "Every completion needs a rank"),
        ({"seconds": "-1"}, "seconds: "),
    ],
)
def test_a_malformed_submit_is_refused_with_a_sentence(client, project, annotator, change, sentence):
    client.force_login(annotator)
    data = {"lease": uuid4(), "key": uuid4(), "seconds": "1", "rank-0": 1, "rank-1": 2} | change
    answer = client.post(at("rank/submit/"), data, headers={"HX-Request": "true"})
    assert answer.status_code == 400
    assert sentence in answer.content.decode()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, "这组对比不在您手上。"),
        ({"strength": "2"}, "本项目不询问偏好强度：请不要填写。"),
        ({"flags": ["rude"]}, "本项目没有标记“rude”：现有标记是 all bad, all good。"),
        ({"rating-0-helpful": "3"}, "本项目不评“helpful”：评分属性是 –。"),
        ({"comment": "a\x00"}, "comment: "),
        ({"span": "0:0:1:bad"}, "无法读取评分或标出的片段。"),
        ({"rating-7-helpful": "3"}, "无法读取评分或标出的片段。"),
    ],
)
def test_a_refusal_speaks_the_readers_language(client, project, annotator, change, sentence):
    imports.add_prompts(project, [{"prompt": "?", "completions": ["a", "b"]}], compare=True)
    lease = leases.lease_next(annotator.memberships.get()).pk if change else uuid4()
    client.force_login(annotator)
    data = {"lease": lease, "key": uuid4(), "seconds": "1", "rank-0": 1, "rank-1": 2} | change
    headers = {"HX-Request": "true", "Accept-Language": "zh-CN"}
    answer = client.post(at("rank/submit/"), data, headers=headers)
    assert answer.status_code == (400 if change else 404)
    assert sentence in answer.content.decode()
    assert not Ranking.objects.exists()


def test_the_settings_page_accepts_the_same_values_as_the_api(client, project, manager):
    client.force_login(manager)
    form = client.get(at("settings/")).context["form"]
    assert set(form.fields) == set(SETTINGS) - {"sampling_rule"}  # there is one rule, so there is no choice
    changed = {"gold_percent": 10, "qualification_items": 5, "extra_rankings": 2}
    answer = client.post(at("settings/"), form.initial | changed)
    assert answer.status_code == 302, answer.context["form"].errors
    project.refresh_from_db()
    assert (project.gold_percent, project.qualification_items, project.extra_rankings) == (10, 5, 2)


def test_every_page_forbids_what_it_does_not_need(client, annotator):
    client.force_login(annotator)
    policy = client.get("/")["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


def test_a_ranking_is_undone_by_its_own_annotator_alone(client, annotator, colleague, ann, work):
    work(1)
    rank_next(ann)
    client.force_login(colleague)
    assert client.post(at("rank/undo/")).status_code == 404
    client.force_login(annotator)
    assert b"does not count until you submit it again" in client.post(at("rank/undo/")).content
