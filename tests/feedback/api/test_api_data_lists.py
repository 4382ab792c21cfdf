"""The lists of all data in the API: filters, cursors, single rows."""

import pytest

from feedback import imports
from feedback.models import Comparison
from feedback.reports.data.lists import LISTS
from tests.factories import URL, rank_next

DATA = f"{URL}/data"


@pytest.fixture
def stored(project, ann):
    """Three prompts with two completions each; ann ranked one comparison, with a comment."""
    for n in range(3):
        completions = [{"text": f"Answer {name} {n}", "source": name} for name in ("one", "two")]
        imports.add_prompts(project, [{"prompt": f"Parcel {n}?", "completions": completions}], compare=True)
    rank_next(ann, [1, 1], comment="Both late", flags=["all bad"])
    return project


def test_a_client_reads_a_whole_list_by_its_cursors(as_manager, stored):
    visited, cursor = [], ""
    while cursor is not None:
        answer = as_manager.get(f"{DATA}/completions", {"limit": 4, "cursor": cursor, "sort": "oldest"}).json()
        visited += [(row["source"], row["excerpt"]) for row in answer["rows"]]
        cursor = answer["next"]
    assert sorted(visited) == [(name, f"Answer {name} {n}") for name in ("one", "two") for n in range(3)]
    assert visited == sorted(visited, key=lambda row: row[1][-1])  # the prompts were added one after the other


def test_the_filters_are_those_of_the_pages(as_manager, stored):
    def rows_of(path, **query):
        return as_manager.get(f"{DATA}/{path}", query).json()["rows"]

    (row,) = rows_of("rankings", search="late", annotator="ann", flag="all bad", has_comment=True)
    assert (row["annotator"], row["ranks"], row["comment"], row["standing"]) == ("ann", [1, 1], "Both late", "counts")
    assert rows_of("rankings", until="2020-01-01T00:00:00Z") == rows_of("rankings", flag="all good") == []
    assert [row["comparison"] for row in rows_of("comparisons", state="ranked")] == [row["comparison"]]
    assert [row["excerpt"] for row in rows_of("prompts", search="2")] == ["Parcel 2?"]
    assert {row["source"] for row in rows_of("completions", source="two")} == {"two"}
    assert rows_of("demonstrations") == rows_of("skips") == []


@pytest.mark.parametrize("query", ["sort=longest", "cursor=x", "limit=0", "source=nobody", "state=open", "since=never"])
def test_a_wrong_parameter_is_refused_with_its_reason(as_manager, stored, query):
    answer = as_manager.get(f"{DATA}/completions?{query}")
    assert answer.status_code == 400
    assert answer.json()["message"]


def test_a_comparison_has_its_sources_and_events(as_manager, stored):
    comparison = Comparison.objects.get(ranking_count=1)
    answer = as_manager.get(f"{DATA}/comparisons/{comparison.pk}").json()
    assert [item["source"] for item in answer["completions"]] == ["one", "two"]
    assert [(event["event"], event["who"]) for event in answer["events"]] == [("made", ""), ("ranking", "ann")]
    assert answer["events"][1]["ranking"]["flags"] == ["all bad"]
    assert answer["gold_ranks"] is None
    prompt = as_manager.get(f"{DATA}/prompts/{answer['prompt']}").json()
    assert prompt["comparisons"] == [comparison.pk]
    assert {item["completion"] for item in answer["completions"]} == set(prompt["completions"])


def test_an_unknown_row_is_not_found(as_manager, stored):
    for path in ("prompts/0", "comparisons/0", "completions/0"):
        assert as_manager.get(f"{DATA}/{path}").status_code == 404, path


def test_every_list_of_the_pages_is_in_the_api(as_manager, project):
    for name in LISTS:
        assert as_manager.get(f"{DATA}/{name}").json() == {"rows": [], "next": None}, name
