"""Simulated annotators at work, over real HTTP against the product's own pages and tables."""

from time import monotonic, sleep

import pytest
from django.db.models import Count

from feedback import imports
from feedback.models import ApiToken, Comparison, Project, Ranking, Source, User
from training.demo import labelling, simulate
from training.demo.annotators import Annotator
from training.demo.client import Client, Refused
from training.demo.labelling import Worker, rank
from training.demo.projects import SUPPORT

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

REPLIES = (
    "That is your own problem. Do not write again.",
    "I am sorry for the trouble. It looks as if your kettle was damaged on the road. I will ship a replacement today.",
    "Let us wait and see.",
)


@pytest.fixture
def demo(manager):
    project = Project.objects.create(slug=f"{SUPPORT.slug}-demo", name="Demo", wanted_rankings=2)
    project.memberships.create(user=manager, role="manager")
    prompts = imports.add_prompts(project, [{"prompt": f"My kettle {n} arrived broken."} for n in range(10)])
    source = imports.get_source(project, "base", Source.Kind.IMPORT)
    rows = [{"prompt_id": pk, "text": text} for pk in prompts.prompt_ids for text in REPLIES]
    ids = imports.add_completions(project, source, rows)
    imports.add_comparisons(project, [ids[n : n + 3] for n in range(0, len(ids), 3)])
    return project


def test_several_annotators_make_exactly_the_requested_number_of_rankings(demo, live_server):
    with simulate.keys(demo) as (_, workers):
        assert rank(live_server.url, demo.slug, workers, 13) == 13
    assert Ranking.objects.filter(project=demo).count() == 13


def test_the_annotators_stop_when_nothing_is_left_and_no_comparison_has_too_many_rankings(demo, live_server):
    with simulate.keys(demo) as (_, workers):
        assert rank(live_server.url, demo.slug, workers, 100) == 20
    counted = Comparison.objects.filter(project=demo).annotate(made=Count("rankings"))
    assert {each.made for each in counted} == {2}


def test_all_annotators_stop_when_one_is_refused(monkeypatch):
    left = []

    def rank_from_quota(client, annotator, quota):
        if annotator.seed == 1:
            raise Refused("Your key is not valid.")
        deadline = monotonic() + 240
        while not quota.empty() and monotonic() < deadline:
            sleep(0.01)
        left.append(quota.qsize())

    monkeypatch.setattr(labelling, "rank_from_quota", rank_from_quota)
    with pytest.raises(Refused):
        rank("http://127.0.0.1:9", "support", [Worker(Annotator(1), "a"), Worker(Annotator(2), "b")], 100)
    assert left == [0]


def test_simulated_annotators_submit_the_ranks_that_they_perceive(demo, live_server):
    with simulate.keys(demo) as (_, workers):
        honest = [Worker(Annotator(1, noise=0.0), workers[0].token)]
        assert rank(live_server.url, demo.slug, honest, 5) == 5
    for ranking in Ranking.objects.filter(project=demo):
        by_text = dict(zip(ranking.comparison.texts(), ranking.ranks, strict=True))
        assert [by_text[text] for text in REPLIES] == [3, 1, 2]


def test_a_second_run_reuses_its_annotators_and_leaves_no_token_behind(demo):
    for _ in range(2):
        with simulate.keys(demo):
            assert ApiToken.objects.count() == 1 + simulate.ANNOTATORS
        assert not ApiToken.objects.exists()
    assert User.objects.filter(username__startswith="simulated-").count() == simulate.ANNOTATORS


def test_a_simulated_annotator_cannot_sign_in_with_a_password(demo, client):
    with simulate.keys(demo):
        pass
    assert not client.login(username="simulated-1", password="")


def test_a_wrong_key_is_refused_with_the_services_own_sentence(demo, live_server):
    with Client(live_server.url, demo.slug, "acc_wrong") as stranger, pytest.raises(Refused, match="401"):
        stranger.take()


def test_the_agreement_that_is_reported_is_the_projects(demo, live_server):
    with simulate.keys(demo) as (manager_key, workers):
        honest = [Worker(Annotator(number, noise=0.0), worker.token) for number, worker in enumerate(workers)]
        rank(live_server.url, demo.slug, honest, 20)
        with Client(live_server.url, demo.slug, manager_key) as manager:
            assert manager.agreement() == 1.0
