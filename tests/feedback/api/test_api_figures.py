"""Figures over HTTP, by the functions that the pages call."""

import pytest

from tests.factories import URL, rank_next

pytestmark = pytest.mark.django_db


def test_managers_see_the_figures_of_all_members(as_manager, ann, cole, work):
    work(2, wanted_rankings=2)
    for member in (ann, cole):
        while rank_next(member):
            pass
    figures = {row["username"]: row for row in as_manager.get(f"{URL}/figures").json()}
    assert figures["ann"]["done"] | {"last_at": None} == {
        "today": 2, "week": 2, "total": 2, "taken_out": 0, "seconds": 2.0, "last_at": None,
    }  # fmt: skip
    assert figures["ann"]["days"][-1] == 2
    assert figures["ann"]["agreement"]["comparisons"] == 2
    assert figures["mona"]["done"]["total"] == 0
    assert figures["mona"]["is_member"]


def test_own_figures_leave_out_the_quality_that_the_project_hides(as_annotator, ann, work):
    work(1)
    rank_next(ann)
    own = as_annotator.get(f"{URL}/figures/mine").json()
    assert own["done"]["total"] == 1
    assert (own["agreement"], own["gold"], own["returned"]) == (None, None, 0)
