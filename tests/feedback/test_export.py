"""What goes out: whole, in order, once, and as others can read it."""

import json
from uuid import uuid4

import pytest

from feedback import export, intake, judging
from feedback.models import Ranking
from feedback.spans import Span
from tests.feedback.conftest import rank_next

pytestmark = pytest.mark.django_db


def revise(member, ranking, ranks):
    return judging.revise(member, ranking.pk, ranks, idempotency_key=uuid4(), seconds=1.0)


def test_an_empty_project_exports_nothing(project):
    assert export.sequence_cutoff(project) == 0
    assert list(export.rankings(project)) == []
    assert list(export.preferences(project)) == []
    assert list(export.demonstrations(project)) == []


def test_the_record_is_numbered_from_one_without_gaps(ann, project, work):
    work(5)
    for _ in range(3):
        rank_next(ann)
    assert export.sequence_cutoff(project) == 3
    for _ in range(2):
        rank_next(ann)
    assert export.sequence_cutoff(project) == 5
    assert [row["sequence"] for row in export.rankings(project)] == [1, 2, 3, 4, 5]


def test_each_project_has_a_record_of_its_own(ann, project, stranger, work):
    work(2)
    rank_next(ann)
    elsewhere = stranger.memberships.get().project
    assert export.sequence_cutoff(elsewhere) == 0
    assert export.sequence_cutoff(project) == 1
    assert list(export.rankings(elsewhere)) == []


def test_a_ranking_says_all_that_a_learner_needs(ann, project, work):
    (comparison,) = work(1, size=3)
    project.flags, project.attributes = ["rude"], ["helpful"]
    project.save()
    said = {"flags": ["rude"], "ratings": {"helpful": [5, None, 1]}, "spans": [Span(0, 0, 6, "good")]}
    ranking = rank_next(ann, [2, 1, 2], comment="private", **said)
    (row,) = export.rankings(project)
    assert row == {
        "ranking_id": ranking.pk,
        "sequence": 1,
        "revision": 1,
        "comparison_id": comparison.pk,
        "prompt_id": comparison.prompt_id,
        "split": comparison.prompt.split,
        "messages": [{"role": "user", "content": "question 0"}],
        "completions": ["answer 0 to 0", "answer 1 to 0", "answer 2 to 0"],
        "completion_ids": list(comparison.items.order_by("position").values_list("completion_id", flat=True)),
        "sources": ["source-0", "source-1", "source-2"],
        "ranks": ranking.ranks,
        "display_order": ranking.display_order,
        "annotator": f"annotator-{ann.user_id}",
        "weight": 1.0,
        "strength": None,
        "flags": ["rude"],
        "ratings": {"helpful": [{0: 5, 1: None, 2: 1}[ranking.display_order.index(each)] for each in range(3)]},
        "spans": [{"completion": ranking.display_order[0], "start": 0, "end": 6, "mark": "good"}],
        "seconds": 2.0,
        "reason": "sampled",
    }
    json.dumps(row)


def test_a_ranking_names_nobody(cole, project, work):
    work(1)
    rank_next(cole)
    assert cole.user.username not in json.dumps([*export.rankings(project), *export.preferences(project)])


def test_a_reader_goes_on_where_it_stopped(ann, project, work):
    work(5)
    for _ in range(3):
        rank_next(ann)
    first = export.sequence_cutoff(project)
    assert len(list(export.rankings(project, until=first))) == 3
    for _ in range(2):
        rank_next(ann)
    assert [row["sequence"] for row in export.rankings(project, after=first)] == [4, 5]


def test_pages_of_the_record_join_without_a_seam(ann, project, work, monkeypatch):
    monkeypatch.setattr(export, "PAGE", 2)
    work(5)
    while rank_next(ann):
        pass
    assert [row["sequence"] for row in export.rankings(project)] == [1, 2, 3, 4, 5]


def test_only_the_last_revision_comes(ann, project, work):
    work(1)
    second = revise(ann, rank_next(ann, [1, 2]), [2, 1])
    assert [(row["ranking_id"], row["revision"]) for row in export.rankings(project)] == [(second.pk, 2)]


def test_a_frozen_cutoff_gives_the_same_rows_after_a_revision(ann, project, work):
    work(2)
    first, _ = rank_next(ann), rank_next(ann)
    cutoff = export.sequence_cutoff(project)
    before = list(export.rankings(project, until=cutoff))
    second = revise(ann, first, [2, 1])
    assert list(export.rankings(project, until=cutoff)) == before
    assert [row["ranking_id"] for row in export.rankings(project, after=cutoff)] == [second.pk]


def test_a_split_can_be_left_out(ann, project, work):
    work(40)
    while rank_next(ann):
        pass
    parts = {split: list(export.rankings(project, split=split)) for split in ("train", "held_out")}
    assert {row["split"] for row in parts["train"]} == {"train"}
    assert {row["split"] for row in parts["held_out"]} == {"held_out"}
    assert len(parts["train"]) + len(parts["held_out"]) == 40


def test_a_ranking_of_four_is_six_preferences_best_first(ann, project, work):
    work(1, size=4)
    ranking = rank_next(ann)
    best_first = [f"answer {position} to 0" for position in ranking.display_order]
    rows = list(export.preferences(project))
    pairs = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]
    assert pairs == [(best_first[i], best_first[j]) for i in range(4) for j in range(i + 1, 4)]
    assert rows[0]["prompt"] == [{"role": "user", "content": "question 0"}]
    assert rows[0]["chosen"][0]["role"] == rows[0]["rejected"][0]["role"] == "assistant"


def test_ties_make_no_preference(ann, project, work):
    work(1, size=3)
    rank_next(ann, [1, 1, 2])
    assert len(list(export.preferences(project))) == 2
    work(1, size=3)
    rank_next(ann, [1, 1, 1])
    assert len(list(export.preferences(project))) == 2


def test_the_export_asks_the_database_a_fixed_number_of_times(ann, project, work, django_assert_num_queries):
    work(12)
    while rank_next(ann):
        pass
    cutoff = export.sequence_cutoff(project)
    with django_assert_num_queries(3):  # a page of rankings, its items, and the end
        assert len(list(export.rankings(project, until=cutoff))) == 12


def test_demonstrations_go_out_for_imitation(ann, project, work):
    (comparison,) = work(1)
    intake.add_demonstration(ann, comparison.prompt, "as I would say it")
    (row,) = export.demonstrations(project)
    assert row == {
        "messages": comparison.prompt.messages,
        "completion": "as I would say it",
        "prompt_id": comparison.prompt_id,
        "split": comparison.prompt.split,
    }


def test_hostile_text_goes_out_as_it_came_in(ann, project):
    text = '<script>alert("x")</script>\u2028\u202e \U0001f9d1‍🚀\n"quoted" \\u0000'
    added = intake.add_prompts(project, [{"prompt": text, "completions": [text, "plain"]}], compare=True)
    assert added.comparison_ids[0]
    rank_next(ann)
    (row,) = export.rankings(project)
    assert row["messages"][0]["content"] == text
    assert text in json.loads(json.dumps(row))["completions"]
    assert Ranking.objects.count() == 1
