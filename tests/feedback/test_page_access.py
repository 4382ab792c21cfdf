"""Access to pages, and what pages must not reveal."""

from uuid import uuid4

import pytest

from feedback import imports
from feedback.api.projects import SETTINGS
from feedback.models import Membership, Ranking
from feedback.queue import leases, sampling
from tests.factories import person, rank_next

FOR_MEMBERS = ("rank/", "guidelines/", "rank/next/", "figures/mine/")
NOT_FOR_ANNOTATORS = (
    *("review/", "review/people/", "review/decisions/", "review/1/", "review/people/1/", "figures/"),
    *("review/flagged/", "review/demonstrations/"),
)
FOR_MANAGERS = ("prompts/", "people/", "settings/")
WRITES = (
    "rank/submit/",
    "rank/skip/",
    "rank/undo/",
    "rank/renew/",
    "rank/demonstrate/",
    "rank/1/revise/",
    "people/1/role/",
    "people/1/remove/",
    *(REVIEWS := ("review/1/adjudicate/", "review/return/", "review/discard/", "review/decisions/1/undo/")),
    *(MORE_REVIEWS := ("review/1/keep/", "review/demonstrations/1/discard/")),
    "review/people/1/discard/",
    "imports/1/undo/",
)


pytestmark = pytest.mark.usefixtures("plain_static_files")


def at(path: str) -> str:
    return f"/projects/support/{path}"


@pytest.mark.parametrize("path", FOR_MEMBERS + NOT_FOR_ANNOTATORS + FOR_MANAGERS)
def test_a_stranger_learns_nothing(client, project, stranger, path):
    client.force_login(stranger)
    here = client.get(at(path))
    nowhere = client.get(at(path).replace("support", "nowhere"))
    assert here.status_code == nowhere.status_code == 404
    assert b"Support" not in here.content


@pytest.mark.parametrize("path", WRITES)
def test_a_stranger_writes_nothing(client, project, stranger, path):
    client.force_login(stranger)
    assert client.post(at(path), {"role": "manager"}).status_code == 404


@pytest.mark.parametrize("path", FOR_MEMBERS + NOT_FOR_ANNOTATORS + FOR_MANAGERS)
def test_nobody_in_particular_is_sent_to_sign_in(client, project, path):
    assert client.get(at(path)).url == f"/sign-in/?next={at(path)}"


@pytest.mark.parametrize("path", (*FOR_MANAGERS, "people/1/role/", "people/1/remove/", "imports/1/undo/"))
def test_an_annotator_manages_nothing(client, annotator, path):
    client.force_login(annotator)
    assert client.post(at(path), {"role": "manager"}).status_code == 403
    assert Membership.objects.get(user=annotator).role == "annotator"


@pytest.mark.parametrize("path", NOT_FOR_ANNOTATORS)
def test_an_annotator_looks_at_nobody_elses_work(client, annotator, path):
    client.force_login(annotator)
    assert client.get(at(path)).status_code == 403


@pytest.mark.parametrize("path", (*REVIEWS, *MORE_REVIEWS, "review/people/1/discard/"))
def test_an_annotator_decides_nothing(client, annotator, path):
    client.force_login(annotator)
    assert client.post(at(path), {"ranking": 1, "reason": "x"}).status_code == 403


def test_a_reviewer_looks_at_work_and_manages_nothing(client, project):
    client.force_login(person(project, "rita", "reviewer"))
    assert client.get(at("review/")).status_code == 200
    assert client.get(at("figures/")).status_code == 403


@pytest.mark.parametrize("path", WRITES)
def test_writes_are_posts(client, manager, path):
    client.force_login(manager)
    assert client.get(at(path)).status_code == 405


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
    said = {"lease": lease.pk, "key": uuid4(), "seconds": "1.5", "rank-0": 1, "rank-1": 1}
    answers = [client.post(at("rank/submit/"), said, headers={"HX-Request": "true"}) for _ in range(2)]
    assert all(b"<form" in answer.content for answer in answers)
    assert Ranking.objects.get().seconds == 1.5
    assert client.post(at("rank/submit/"), said).url == at("rank/")
    assert Ranking.objects.count() == 1


def test_the_page_cannot_claim_more_seconds_than_the_leases_age(client, project, annotator):
    imports.add_prompts(project, [{"prompt": "Hello?", "completions": ["a", "b"]}], compare=True)
    lease = leases.lease_next(annotator.memberships.get())
    client.force_login(annotator)
    said = {"lease": lease.pk, "key": uuid4(), "seconds": "80000", "rank-0": 1, "rank-1": 1}
    client.post(at("rank/submit/"), said, headers={"HX-Request": "true"})
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
    said = {"lease": uuid4(), "key": uuid4(), "seconds": "1", "rank-0": 1, "rank-1": 2} | change
    answer = client.post(at("rank/submit/"), said, headers={"HX-Request": "true"})
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
    said = {"lease": lease, "key": uuid4(), "seconds": "1", "rank-0": 1, "rank-1": 2} | change
    headers = {"HX-Request": "true", "Accept-Language": "zh-CN"}
    answer = client.post(at("rank/submit/"), said, headers=headers)
    assert answer.status_code == (400 if change else 404)
    assert sentence in answer.content.decode()
    assert not Ranking.objects.exists()


def test_managers_may_set_on_the_page_what_the_api_lets_them(client, project, manager):
    client.force_login(manager)
    form = client.get(at("settings/")).context["form"]
    assert set(form.fields) == set(SETTINGS) - {"sampling_rule"}  # there is one rule, so there is no choice
    assert len(sampling.RULES) == 1
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
