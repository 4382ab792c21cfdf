"""The quality snapshot, which all pages and API answers read, and which states when it is outdated."""

import random
from contextlib import suppress
from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone, translation

from feedback import imports
from feedback.actions import ranking_undo, rankings, review_undo, reviews
from feedback.errors import AccordError
from feedback.export import ranking_record
from feedback.models import Membership, QualitySnapshot, Ranking, Review
from feedback.quality import agreement, checks
from feedback.queue import gold, leases
from feedback.reports import quality_snapshot
from tests.factories import add_work, membership, person, rank_next
from tests.lengths import length

pytestmark = pytest.mark.django_db


@pytest.fixture
def long_record(monkeypatch):
    """Treat every record as too long to be counted by its reader."""
    monkeypatch.setattr(quality_snapshot, "MAX_COUNTED_BY_READER", 0)
    monkeypatch.setattr(quality_snapshot, "MAX_WORKER_SHARE", float("inf"))


def recount(project):
    return agreement.measure(project), gold.pass_rates(project), checks.check_project(project)


def figures_of(quality):
    return quality.agreement, quality.gold, quality.checks


class World:
    """People who rank, revise, withdraw, skip and leave, and a reviewer who decides and undoes, at random."""

    def __init__(self, project, seed):
        self.random, self.project = random.Random(seed), project
        project.gold_percent, project.extra_rankings = 30, 1
        project.save()
        self.people = [membership(person(project, f"p{n}", "annotator"), project) for n in range(3)]
        self.reviewer = membership(person(project, "reviewer", "reviewer"), project)
        for size in (2, 3):
            add_work(project, 4, size, wanted_rankings=2)
        rows = [{"prompt": f"gold {n}", "completions": ["a", "b", "c"]} for n in range(3)]
        ids = imports.add_prompts(project, rows).completion_ids
        imports.add_gold(project, [{"completion_ids": each, "ranks": [1, 2, 2]} for each in ids])

    def act(self):
        """One random act; one that is refused changes nothing."""
        acts = (
            [self.rank] * 8
            + [self.revise] * 2
            + [self.skip, self.withdraw, self.return_ranking, self.discard, self.discard_since]
        )
        acts += [self.adjudicate, self.undo_decision, self.number_rankings, self.remove_member]
        with suppress(AccordError):
            self.random.choice(acts)()

    def rank(self):
        member = self.random.choice([*self.people, self.reviewer])
        lease = leases.lease_next(member)
        if lease is not None:
            key_and_time = {"idempotency_key": uuid4(), "seconds": self.random.uniform(1, 30)}
            rankings.record_ranking(member, lease.pk, self.ranks(lease.size), **key_and_time)

    def ranks(self, size):
        return [self.random.randint(1, size) for _ in range(size)]

    def random_live_ranking(self):
        return self.random.choice(list(Ranking.objects.filter(is_live=True).order_by("pk")) or [None])

    def revise(self):
        if ranking := self.random_live_ranking():
            member = Membership.objects.filter(project=self.project, user=ranking.annotator).first() or self.reviewer
            key_and_time = {"idempotency_key": uuid4(), "seconds": 1.0}
            rankings.revise_ranking(member, ranking.pk, self.ranks(ranking.size), **key_and_time)

    def skip(self):
        member = self.random.choice(self.people)
        if lease := leases.lease_next(member):
            rankings.skip_comparison(member, lease.pk)

    def withdraw(self):
        ranking_undo.undo_last(self.random.choice(self.people))

    def return_ranking(self):
        if ranking := self.random_live_ranking():
            reviews.return_ranking(self.reviewer, ranking.pk, reason="again")

    def discard(self):
        if ranking := self.random_live_ranking():
            reviews.discard(self.reviewer, ranking.pk, reason="no")

    def discard_since(self):
        about = self.random.choice(self.people).user_id, timezone.now() - timedelta(days=1)
        found = reviews.discard_preview(self.reviewer, *about)
        reviews.discard_since(self.reviewer, *about, reason="no", expected=found.rankings)

    def adjudicate(self):
        if ranking := self.random_live_ranking():
            key_and_time = {"idempotency_key": uuid4(), "seconds": 1.0}
            reviews.adjudicate(self.reviewer, ranking.comparison_id, self.ranks(ranking.size), **key_and_time)

    def undo_decision(self):
        if last := Review.objects.filter(undone_at__isnull=True).order_by("-pk").first():
            review_undo.undo(self.reviewer, last.pk)

    def number_rankings(self):
        ranking_record.sequence_cutoff(self.project)

    def remove_member(self):
        if len(self.people) > 2 and self.random.random() < 0.2:
            self.people.pop().delete()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.full) for seed in (1, 2, 3))])
def test_after_any_sequence_of_actions_the_figures_equal_a_full_recount(project, seed):
    world = World(project, seed)
    for _ in range(length(full=60, short=40)):
        world.act()
        quality = quality_snapshot.get_quality(project, by_two=True)
        assert quality.is_current
        assert figures_of(quality) == recount(project)
    assert Ranking.objects.count() > 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.full)])
def test_the_figures_of_a_long_record_stay_until_the_worker_counts_again(project, seed, long_record):
    world = World(project, seed)
    quality_snapshot.get_quality(project)
    counted = recount(project)
    for _ in range(40):
        before = quality_snapshot.record_length(project)
        world.act()
        quality = quality_snapshot.get_quality(project, by_two=True)
        assert quality.is_current == (quality_snapshot.record_length(project) == before)
        assert figures_of(quality) == counted
        if not quality.is_current:
            assert quality.as_of == QualitySnapshot.objects.get().counted_at
            assert quality_snapshot.refresh() == 1
            counted = recount(project)
            refreshed = quality_snapshot.get_quality(project, by_two=True)
            assert refreshed.is_current
            assert figures_of(refreshed) == counted
        assert quality_snapshot.refresh() == 0


def test_only_a_long_record_is_counted_by_the_worker(ann, project, work):
    work(2)
    rank_next(ann)
    assert quality_snapshot.refresh() == 0
    assert not QualitySnapshot.objects.exists()


def test_counting_takes_a_twentieth_of_the_workers_time_at_most(ann, project, work, monkeypatch):
    monkeypatch.setattr(quality_snapshot, "MAX_COUNTED_BY_READER", 0)
    work(3)
    rank_next(ann)
    assert quality_snapshot.refresh() == 1
    rank_next(ann)
    QualitySnapshot.objects.update(seconds=30, counted_at=timezone.now() - timedelta(seconds=599))
    assert quality_snapshot.refresh() == 0
    QualitySnapshot.objects.update(counted_at=timezone.now() - timedelta(seconds=601))
    assert quality_snapshot.refresh() == 1


def test_the_pass_mark_of_the_project_is_used(ann, project, work):
    work(1)
    rank_next(ann)
    counted = quality_snapshot.get_quality(project)
    project.qualification_percent = 60
    project.save()
    quality_snapshot.get_quality(project)
    assert QualitySnapshot.objects.get().qualification_percent == 60
    assert counted.is_current


def test_each_reader_gets_the_sentences_in_their_own_language(ann, project, work, long_record):
    work(1)
    rank_next(ann)
    with translation.override("de"):
        quality_snapshot.take_snapshot(project)
    quality = quality_snapshot.get_quality(project)
    assert quality.agreement.pairwise.sentence == agreement.measure(project).pairwise.sentence
    with translation.override("de"):
        assert quality.agreement.pairwise.sentence == agreement.measure(project).pairwise.sentence


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "sentence"),
    [("figures/", "checks were computed"), ("review/people/", "The checks ran"), ("console/", "Counted")],
)
def test_a_page_says_when_outdated_figures_were_counted(
    ann, mona, project, work, client, long_record, plain_static_files, page, sentence
):
    work(2)
    rank_next(ann)
    quality_snapshot.refresh()
    client.force_login(mona.user)
    address = f"/projects/{project.slug}/{page}"
    assert sentence not in client.get(address).content.decode()
    rank_next(ann)
    QualitySnapshot.objects.update(counted_at=timezone.now() - timedelta(minutes=3))
    assert f"{sentence} 3\xa0minutes ago" in client.get(address).content.decode()


@pytest.mark.parametrize("endpoint", ["trust", "agreement", "figures"])
def test_an_api_response_has_the_time_of_its_figures(ann, mona, project, work, client, long_record, endpoint):
    work(2)
    rank_next(ann)
    quality_snapshot.refresh()
    client.force_login(mona.user)
    rank_next(ann)
    counted_at = QualitySnapshot.objects.get().counted_at
    answer = client.get(f"/api/v1/projects/{project.slug}/{endpoint}").json()
    for each in answer if isinstance(answer, list) else [answer]:
        assert not each["is_current"]
        assert each["as_of"] == counted_at.isoformat().replace("+00:00", "Z")
