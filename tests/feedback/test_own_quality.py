"""Quality figures that annotators see of themselves: stored once per full batch, and equal to a full recount."""

from datetime import timedelta

import pytest
from django.db.models import F
from django.utils import timezone

from feedback import imports
from feedback.actions import ranking_undo, reviews
from feedback.models import Comparison, OwnQualitySnapshot, Ranking
from feedback.reports import own_quality
from tests.factories import rank_next
from tests.feedback.test_quality_snapshot import World
from tests.lengths import length

pytestmark = pytest.mark.django_db


@pytest.fixture
def small_batches(monkeypatch):
    """Treat two rankings as a batch, which is shown at once."""
    monkeypatch.setattr(own_quality, "BATCH", 2)
    monkeypatch.setattr(own_quality, "midnight", timezone.now)


@pytest.fixture
def uncounted(monkeypatch):
    """Fail when figures are counted again."""

    def refuse(*arguments):
        raise AssertionError("the figures were counted again")

    return lambda: monkeypatch.setattr(own_quality, "count_own_quality", refuse)


@pytest.fixture
def ranked_by_two(ann, cole, project, work):
    """Ann and Cole ranked the same six comparisons an hour ago."""
    project.annotators_see_quality = True
    project.save()
    work(6, wanted_rankings=2)
    for member in (ann, cole):
        while rank_next(member):
            pass
    Ranking.objects.update(created_at=timezone.now() - timedelta(hours=1))


def recounted(member):
    until = own_quality._end_of_full_batches(member)
    return until and own_quality.count_own_quality(member, until)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.full)])
def test_after_any_sequence_of_actions_the_stored_figures_equal_a_full_recount(project, seed, small_batches):
    world = World(project, seed)
    shown = []
    for _ in range(length(full=80, short=60)):  # with 40, one run in many shows no agreement yet
        world.act()
        member = world.random.choice(world.people)
        quality = own_quality.get_own_quality(member)
        assert quality == recounted(member)
        shown.append(quality)
    assert any(quality.agreement.value is not None for quality in shown if quality)


@pytest.mark.slow
def test_reopening_a_page_does_not_count_again(ann, cole, ranked_by_two, small_batches, uncounted, work):
    first = own_quality.get_own_quality(ann)
    assert first.agreement.comparisons == 6
    uncounted()
    assert own_quality.get_own_quality(ann) == first
    work(1, wanted_rankings=2)
    rank_next(cole)
    rank_next(ann)  # not a full batch
    assert own_quality.get_own_quality(ann) == first


def test_a_decision_about_an_earlier_ranking_is_counted(ann, cole, mona, ranked_by_two, small_batches):
    before = own_quality.get_own_quality(ann)
    reviews.discard(mona, Ranking.objects.filter(annotator=cole.user).first().pk, reason="no")
    after = own_quality.get_own_quality(ann)
    assert (before.agreement.comparisons, after.agreement.comparisons) == (6, 5)


@pytest.mark.slow
def test_a_withdrawn_ranking_of_a_full_batch_does_not_reveal_gold(ann, ranked_by_two, small_batches):
    before = own_quality.get_own_quality(ann)
    OwnQualitySnapshot.objects.all().delete()
    ranking_undo.undo_last(ann)
    assert Ranking.objects.filter(annotator=ann.user, is_live=True).count() == 5
    assert own_quality.get_own_quality(ann) == before


@pytest.mark.slow
def test_the_worker_counts_each_member_once_a_day(
    ann, cole, mona, project, ranked_by_two, monkeypatch, uncounted, client, plain_static_files
):
    monkeypatch.setattr(own_quality, "BATCH", 6)
    Ranking.objects.update(created_at=F("created_at") - timedelta(days=1))
    assert own_quality.refresh() == 3
    assert own_quality.refresh() == 0
    uncounted()
    client.force_login(ann.user)
    page = client.get(f"/projects/{project.slug}/figures/mine/").content.decode()
    assert "95 % interval" in page
    OwnQualitySnapshot.objects.update(counted_at=F("counted_at") - timedelta(days=1))
    monkeypatch.undo()
    assert own_quality.refresh() == 3


def test_the_worker_counts_where_annotators_see_their_quality_only(ann, project, ranked_by_two):
    project.annotators_see_quality = False
    project.save()
    assert own_quality.refresh() == 0


def test_gold_is_stored_with_its_sentence(ann, project, small_batches):
    added = imports.add_prompts(project, [{"prompt": f"g{n}", "completions": ["a", "b"]} for n in range(2)])
    imports.add_gold(project, [{"completion_ids": ids, "ranks": [1, 2]} for ids in added.completion_ids])
    Comparison.objects.update(gold_ranks=None)
    for _ in range(2):
        rank_next(ann)
    Comparison.objects.update(gold_ranks=[1, 2])
    first, stored = own_quality.get_own_quality(ann), own_quality.get_own_quality(ann)
    assert first.gold.comparisons == 2
    assert first.gold.sentence == stored.gold.sentence == recounted(ann).gold.sentence
