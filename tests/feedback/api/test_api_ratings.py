"""Ratings of sources over HTTP, against the functions that compute them."""

import math
from uuid import uuid4

import pytest

from feedback.actions import rankings
from feedback.quality import ratings
from feedback.queue import leases
from feedback.reports import source_ratings
from tests.factories import URL, rank_by_position

pytestmark = pytest.mark.django_db


def rank_for(member, preferences):
    """Rank comparisons of two completions: the first preferences are for source-0, the others for source-1."""
    for is_first in preferences:
        rank_by_position(member, [1, 2] if is_first else [2, 1])


def test_managers_see_ratings_with_the_counts_behind_them(as_manager, ann, project, work):
    work(9)
    rank_for(ann, [True] * 6 + [False] * 3)
    body = as_manager.get(f"{URL}/ratings").json()
    best, worst = body["ratings"]
    assert (best["source"], best["kind"], best["status"]) == ("source-0", "import", "rated")
    assert (best["wins"], best["ties"], best["losses"]) == (6, 0, 3)
    assert best["value"] == pytest.approx(math.log(2) / 2)
    assert worst["value"] == pytest.approx(-math.log(2) / 2)
    assert best["low"] < best["value"] < best["high"]
    assert body["counts"] == {"sources": ["source-0", "source-1"], "wins": [[0, 6], [3, 0]], "ties": [[0, 0], [0, 0]]}
    assert (body["preferences"], body["prompts"], body["annotators"]) == (9, 9, 1)
    assert (body["covers_annotators"], body["log_nu"], body["style"]) == (False, None, [])


def test_the_interval_of_a_difference_follows_from_the_covariance(as_manager, ann, project, work):
    work(9)
    rank_for(ann, [True] * 6 + [False] * 3)
    covariance = as_manager.get(f"{URL}/ratings").json()["covariance"]
    (first, crossed), (_, second) = covariance["values"]
    margin = covariance["quantile"] * math.sqrt(first + second - 2 * crossed)
    result = ratings.rate(project)
    difference = result.difference(*result.rated)
    assert covariance["sources"] == ["source-0", "source-1"]
    assert difference.high - difference.value == pytest.approx(margin)


def test_a_source_that_won_everything_has_no_rating(as_manager, ann, work):
    work(2)
    rank_for(ann, [True, True])
    body = as_manager.get(f"{URL}/ratings").json()
    statuses = {row["source"]: (row["status"], row["value"]) for row in body["ratings"]}
    assert statuses == {"source-0": ("only_wins", None), "source-1": ("only_losses", None)}
    assert body["first_shown"] is None
    assert body["covariance"]["sources"] == []


def test_the_style_is_controlled_on_request(as_manager, ann, work):
    comparisons = work(12)
    for number, comparison in enumerate(comparisons):
        completion = comparison.items.get(position=0).completion
        completion.text = "long " * (number % 4 + 1)
        completion.save()
    ids = [comparison.pk for comparison in comparisons]
    for _ in ids:  # the order of the queue is random, the preferences are not
        lease = leases.lease_next(ann)
        is_first = ids.index(lease.comparison_id) % 3 == 0
        ranks = [1 if (position == 0) == is_first else 2 for position in lease.display_order]
        rankings.record_ranking(ann, lease.pk, ranks, idempotency_key=uuid4(), seconds=2.0)
    (length,) = as_manager.get(f"{URL}/ratings?style=true").json()["style"]
    assert length["name"] == "log_length"
    assert length["low"] < length["value"] < length["high"]


def test_a_project_without_rankings_has_no_ratings(as_manager, project):
    body = as_manager.get(f"{URL}/ratings").json()
    assert (body["ratings"], body["preferences"], body["first_shown"]) == ([], 0, None)


def test_a_misspelt_parameter_is_refused(as_manager, project):
    assert as_manager.get(f"{URL}/ratings?styles=true").status_code == 400
    assert as_manager.get(f"{URL}/ratings?style=perhaps").status_code == 400


def test_a_record_that_takes_too_long_is_refused(as_manager, ann, work, monkeypatch):
    monkeypatch.setattr(source_ratings, "MAX_RECORD", 1)
    work(2)
    rank_for(ann, [True, False])
    response = as_manager.get(f"{URL}/ratings")
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert "2 rankings" in response.json()["message"]
