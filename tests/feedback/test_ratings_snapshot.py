"""Ratings of long records: computed and stored by the worker, read with their time."""

from uuid import uuid4

import pytest

from feedback import imports
from feedback.actions import rankings
from feedback.errors import NotComputedYet
from feedback.models import RatingsSnapshot
from feedback.queue import leases
from feedback.reports import source_ratings
from tests.factories import rank_by_position
from training import tasks

pytestmark = pytest.mark.django_db


@pytest.fixture
def long_record(monkeypatch):
    """Treat every record as too long to be computed by its reader."""
    monkeypatch.setattr(source_ratings, "MAX_COMPUTED_BY_READER", 0)
    monkeypatch.setattr(source_ratings, "MAX_WORKER_SHARE", float("inf"))


@pytest.fixture
def ranked(ann, project):
    """Twenty-four ranked comparisons of three sources, on prompts with a tag."""
    rows = [
        {
            "prompt": f"question {n}",
            "metadata": {"tag": "odd" if n % 2 else "even"},
            "completions": [{"text": f"**{'long ' * (1 + n * p % 5)}**{p}", "source": f"source-{p}"} for p in range(3)],
        }
        for n in range(24)
    ]
    compared = imports.add_prompts(project, rows, compare=True)
    ids = [row.pk for row in project.prompts.order_by("pk")]
    assert compared.prompt_ids == ids
    for _ in ids:  # the order of the queue is random, the ranks are not
        lease = leases.lease_next(ann)
        n = ids.index(lease.comparison.prompt_id)
        by_position = [[1, 2, 3], [2, 1, 3], [3, 1, 1]][n % 3]
        ranks = [by_position[position] for position in lease.display_order]
        rankings.record_ranking(ann, lease.pk, ranks, idempotency_key=uuid4(), seconds=2.0)


@pytest.mark.parametrize("with_style", [False, True])
def test_stored_ratings_are_those_that_a_reader_would_compute(ranked, project, monkeypatch, with_style):
    computed = source_ratings.get_ratings(project, with_style=with_style)
    source_ratings.take_snapshot(project)
    monkeypatch.setattr(source_ratings, "MAX_COMPUTED_BY_READER", 0)
    stored = source_ratings.get_ratings(project, with_style=with_style)
    assert computed.rankings == dict.fromkeys(computed.sources, 24)
    for name in ("ratings", "win_rates", "rankings", "sources", "is_current"):
        assert getattr(stored, name) == getattr(computed, name), name


def test_stored_slices_are_those_that_a_reader_would_compute(ranked, project, monkeypatch):
    first, second, _ = (source.pk for source in project.sources.order_by("name"))
    computed = source_ratings.get_slices(project, second, first)
    source_ratings.take_snapshot(project)
    monkeypatch.setattr(source_ratings, "MAX_COMPUTED_BY_READER", 0)
    stored = source_ratings.get_slices(project, second, first)
    assert {one.value for one in computed.rates} >= {"odd", "even"}
    assert stored.rates == computed.rates
    assert {(one.rate.source_id, one.rate.other_id) for one in stored.rates} == {(second, first)}


def test_only_the_pairs_with_most_preferences_have_stored_slices(ranked, project, monkeypatch):
    monkeypatch.setattr(source_ratings, "MAX_SLICED", 1)
    source_ratings.take_snapshot(project)
    monkeypatch.setattr(source_ratings, "MAX_COMPUTED_BY_READER", 0)
    ids = sorted(source.pk for source in project.sources.all())
    stored = [source_ratings.get_slices(project, *two).is_stored for two in ((ids[0], ids[1]), (ids[1], ids[2]))]
    assert stored == [True, False]


def test_a_reader_of_a_long_record_gets_the_last_ratings_with_their_time(ann, project, work, long_record):
    work(9)
    for n in range(8):
        rank_by_position(ann, [1, 2] if n % 3 else [2, 1])
    with pytest.raises(NotComputedYet):
        source_ratings.get_ratings(project)
    tasks.rate_sources()
    first = source_ratings.get_ratings(project)
    rank_by_position(ann, [1, 2])
    outdated = source_ratings.get_ratings(project)
    assert (first.is_current, outdated.is_current) == (True, False)
    assert outdated.ratings == first.ratings
    assert outdated.as_of == first.as_of == RatingsSnapshot.objects.get().computed_at
    tasks.rate_sources()
    assert source_ratings.get_ratings(project).ratings.preferences == 9


def test_the_worker_computes_only_outdated_ratings_of_long_records(ann, project, work, long_record, monkeypatch):
    work(2)
    rank_by_position(ann, [1, 2])
    assert (source_ratings.refresh(), source_ratings.refresh()) == (1, 0)
    rank_by_position(ann, [1, 2])
    monkeypatch.setattr(source_ratings, "MAX_WORKER_SHARE", 1e-9)
    assert source_ratings.refresh() == 0, "the worker has other work"
    monkeypatch.setattr(source_ratings, "MAX_COMPUTED_BY_READER", 2)
    monkeypatch.setattr(source_ratings, "MAX_WORKER_SHARE", float("inf"))
    assert source_ratings.refresh() == 0
    assert source_ratings.get_ratings(project).ratings.preferences == 2, "computed by the reader"
