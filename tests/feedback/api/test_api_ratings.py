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


@pytest.mark.slow
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
    length, *formatting = as_manager.get(f"{URL}/ratings?style=true").json()["style"]
    assert length["name"] == "log_length"
    assert [one["value"] for one in formatting] == [None] * 3, "the texts have no formatting"
    assert length["low"] < length["value"] < length["high"]


def test_a_project_without_rankings_has_no_ratings(as_manager, project):
    body = as_manager.get(f"{URL}/ratings").json()
    assert (body["ratings"], body["preferences"], body["first_shown"]) == ([], 0, None)


def test_a_misspelt_parameter_is_refused(as_manager, project):
    assert as_manager.get(f"{URL}/ratings?styles=true").status_code == 400
    assert as_manager.get(f"{URL}/ratings?style=perhaps").status_code == 400


def test_a_long_record_is_answered_from_the_last_stored_ratings(as_manager, ann, project, work, monkeypatch):
    monkeypatch.setattr(source_ratings, "MAX_COMPUTED_BY_READER", 1)
    work(3)
    rank_for(ann, [True, False])
    response = as_manager.get(f"{URL}/ratings")
    assert (response.status_code, response.json()["code"]) == (409, "not_computed_yet")
    source_ratings.take_snapshot(project)
    rank_for(ann, [True])
    body = as_manager.get(f"{URL}/ratings").json()
    assert (body["preferences"], body["is_current"]) == (2, False)


def test_win_rates_are_those_of_the_counts(as_manager, ann, work):
    work(12)
    rank_for(ann, [True] * 8 + [False] * 4)
    body = as_manager.get(f"{URL}/ratings").json()
    (rate,) = body["win_rates"]
    assert (rate["source"], rate["other"], rate["wins"], rate["losses"]) == ("source-0", "source-1", 8, 4)
    assert rate["value"] == pytest.approx(8 / 12)
    assert rate["low"] < rate["value"] < rate["high"]
    assert [row["rankings"] for row in body["ratings"]] == [12, 12]
    assert body["is_current"]


@pytest.mark.slow
def test_the_win_rate_by_slice_names_split_length_and_metadata(as_manager, ann, project, work):
    work(24)
    for n, prompt in enumerate(project.prompts.order_by("pk")):
        prompt.metadata = {"topic": "billing" if n % 2 else "parcels"}
        prompt.save()
    rank_for(ann, [True, False, False] * 8)
    body = as_manager.get(f"{URL}/ratings/slices?source=source-1&other=source-0").json()
    topics = [one for one in body["slices"] if one["key"] == "topic"]
    assert [(one["kind"], one["slice"], one["source"]) for one in topics] == [
        ("metadata", "billing", "source-1"),
        ("metadata", "parcels", "source-1"),
    ]
    assert sum(one["wins"] for one in topics) == 16
    assert topics[0]["difference"] == pytest.approx(-topics[1]["difference"])
    assert (body["is_current"], body["is_stored"]) == (True, True)


def test_slices_of_an_unknown_source_are_not_found(as_manager, project):
    assert as_manager.get(f"{URL}/ratings/slices?source=nobody&other=nobody").status_code == 404
    assert as_manager.get(f"{URL}/ratings/slices?source=nobody").status_code == 400
