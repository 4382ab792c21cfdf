"""Agreement between annotators over HTTP, for managers."""

import pytest

from tests.factories import URL, rank_next

pytestmark = pytest.mark.django_db


def test_agreement_without_overlap_is_null_with_a_sentence(as_manager, project):
    shown = as_manager.get(f"{URL}/agreement").json()
    assert shown["pairwise"]["value"] is None
    assert "two people" in shown["pairwise"]["sentence"]
    assert shown["by_annotator"] == shown["by_two"] == shown["by_week"] == []


def test_agreement_is_shown_with_names(as_manager, ann, cole, work):
    work(4, wanted_rankings=2)
    for member in (ann, cole):
        while rank_next(member):
            pass
    shown = as_manager.get(f"{URL}/agreement").json()
    assert 0 <= shown["pairwise"]["low"] <= shown["pairwise"]["value"] <= shown["pairwise"]["high"] <= 1
    assert sorted(shown["by_two"][0]["usernames"]) == ["ann", "cole"]
    assert {each["username"] for each in shown["by_annotator"]} == {"ann", "cole"}
    assert len(shown["by_week"]) >= 1
    assert shown["by_annotator"][0]["speed"]["rankings"] == 4
    assert shown["by_annotator"][0]["gold"] is None
