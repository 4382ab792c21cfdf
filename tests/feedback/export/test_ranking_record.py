"""The record of rankings and its export by cursor."""

import json
import random
from uuid import uuid4

import pytest

from feedback import imports
from feedback.actions import ranking_undo, rankings, review_undo, reviews
from feedback.actions.spans import Span
from feedback.errors import Conflict, NotFound
from feedback.export import formats, ranking_record
from feedback.export.demonstrations import demonstrations
from feedback.models import Ranking
from tests.factories import membership, person, rank_next
from tests.lengths import length

pytestmark = pytest.mark.django_db


def pairs(project, *cursor, **options):
    return formats.lines(project, "trl", *cursor, **options)


def revise(member, ranking, ranks):
    return rankings.revise_ranking(member, ranking.pk, ranks, idempotency_key=uuid4(), seconds=1.0)


def test_an_empty_project_exports_nothing(project):
    assert ranking_record.sequence_cutoff(project) == 0
    assert list(ranking_record.rankings(project)) == []
    assert list(pairs(project)) == []
    assert list(demonstrations(project)) == []


@pytest.mark.slow
def test_the_record_is_numbered_from_one_without_gaps(ann, project, work):
    work(5)
    for _ in range(3):
        rank_next(ann)
    assert ranking_record.sequence_cutoff(project) == 3
    for _ in range(2):
        rank_next(ann)
    assert ranking_record.sequence_cutoff(project) == 5
    assert [row["sequence"] for row in ranking_record.rankings(project)] == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_each_project_has_a_record_of_its_own(ann, project, stranger, work):
    work(2)
    rank_next(ann)
    elsewhere = stranger.memberships.get().project
    assert ranking_record.sequence_cutoff(elsewhere) == 0
    assert ranking_record.sequence_cutoff(project) == 1
    assert list(ranking_record.rankings(elsewhere)) == []


@pytest.mark.slow
def test_an_exported_ranking_has_everything_that_a_learner_needs(ann, project, work):
    (comparison,) = work(1, size=3)
    project.information_flags, project.attributes = ["rude"], ["helpful"]
    project.save()
    fields = {"flags": ["rude"], "ratings": {"helpful": [5, None, 1]}, "spans": [Span(0, 0, 6, "good")]}
    ranking = rank_next(ann, [2, 1, 2], comment="private", **fields)
    (row,) = ranking_record.rankings(project)
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
        "reliability": None,
        "strength": None,
        "flags": ["rude"],
        "ratings": {"helpful": [{0: 5, 1: None, 2: 1}[ranking.display_order.index(each)] for each in range(3)]},
        "spans": [{"completion": ranking.display_order[0], "start": 0, "end": 6, "mark": "good"}],
        "seconds": 2.0,
        "reason": "sampled",
        "trial": None,
    }
    json.dumps(row)


def test_an_exported_ranking_contains_no_username(cole, project, work):
    work(1)
    rank_next(cole)
    assert cole.user.username not in json.dumps([*ranking_record.rankings(project), *pairs(project)])


@pytest.mark.slow
def test_a_reader_continues_from_its_cursor(ann, project, work):
    work(5)
    for _ in range(3):
        rank_next(ann)
    first = ranking_record.sequence_cutoff(project)
    assert len(list(ranking_record.rankings(project, until=first))) == 3
    for _ in range(2):
        rank_next(ann)
    assert [row["sequence"] for row in ranking_record.rankings(project, after=first)] == [4, 5]


def test_pages_of_the_record_join_without_gaps_or_repetitions(ann, project, work, monkeypatch):
    monkeypatch.setattr(ranking_record, "PAGE_SIZE", 2)
    work(5)
    while rank_next(ann):
        pass
    assert [row["sequence"] for row in ranking_record.rankings(project)] == [1, 2, 3, 4, 5]


def test_only_the_last_revision_is_exported(ann, project, work):
    work(1)
    second = revise(ann, rank_next(ann, [1, 2]), [2, 1])
    assert [(row["ranking_id"], row["revision"]) for row in ranking_record.rankings(project)] == [(second.pk, 2)]


def test_a_frozen_cutoff_gives_the_same_rows_after_a_revision(ann, project, work):
    work(2)
    first, _ = rank_next(ann), rank_next(ann)
    cutoff = ranking_record.sequence_cutoff(project)
    before = list(ranking_record.rankings(project, until=cutoff))
    second = revise(ann, first, [2, 1])
    assert list(ranking_record.rankings(project, until=cutoff)) == before
    assert [row["ranking_id"] for row in ranking_record.rankings(project, after=cutoff)] == [second.pk]


@pytest.mark.slow
def test_a_split_can_be_left_out(ann, project, work):
    work(40)
    while rank_next(ann):
        pass
    parts = {split: list(ranking_record.rankings(project, split=split)) for split in ("train", "held_out")}
    assert {row["split"] for row in parts["train"]} == {"train"}
    assert {row["split"] for row in parts["held_out"]} == {"held_out"}
    assert len(parts["train"]) + len(parts["held_out"]) == 40


def test_a_ranking_of_four_is_six_preferences_best_first(ann, project, work):
    work(1, size=4)
    ranking = rank_next(ann)
    best_first = [f"answer {position} to 0" for position in ranking.display_order]
    rows = list(pairs(project))
    texts = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]
    assert texts == [(best_first[i], best_first[j]) for i in range(4) for j in range(i + 1, 4)]
    assert rows[0]["prompt"] == [{"role": "user", "content": "question 0"}]
    assert rows[0]["chosen"][0]["role"] == rows[0]["rejected"][0]["role"] == "assistant"


def test_ties_make_no_preference(ann, project, work):
    work(1, size=3)
    rank_next(ann, [1, 1, 2])
    assert len(list(pairs(project))) == 2
    work(1, size=3)
    rank_next(ann, [1, 1, 1])
    assert len(list(pairs(project))) == 2


def test_the_export_needs_a_constant_number_of_queries(ann, project, work, django_assert_num_queries):
    work(12)
    while rank_next(ann):
        pass
    cutoff = ranking_record.sequence_cutoff(project)
    with django_assert_num_queries(3):  # a page of rankings, its items, and the end
        assert len(list(ranking_record.rankings(project, until=cutoff))) == 12


def test_demonstrations_can_be_exported_for_fine_tuning(ann, project, work):
    (comparison,) = work(1)
    imports.add_demonstration(ann, comparison.prompt, "as I would say it")
    (row,) = demonstrations(project)
    assert row == {
        "messages": comparison.prompt.messages,
        "completion": "as I would say it",
        "prompt_id": comparison.prompt_id,
        "split": comparison.prompt.split,
    }


def test_hostile_text_is_exported_unchanged(ann, project):
    text = '<script>alert("x")</script>\u2028\u202e \U0001f9d1‍🚀\n"quoted" \\u0000'
    added = imports.add_prompts(project, [{"prompt": text, "completions": [text, "plain"]}], compare=True)
    assert added.comparison_ids[0]
    rank_next(ann)
    (row,) = ranking_record.rankings(project)
    assert row["messages"][0]["content"] == text
    assert text in json.loads(json.dumps(row))["completions"]
    assert Ranking.objects.count() == 1


@pytest.fixture
def rita(project):
    return membership(person(project, "rita", "reviewer"), project)


def follow(read, project, kept, after):
    """Update the kept rows as a reader by cursor does, by the rule of the module; return the next cursor."""
    until = ranking_record.sequence_cutoff(project)
    for line in read(project, after, until):
        ranking = (line["comparison_id"], line["annotator"])
        lines = [each for each in kept.get(ranking, []) if each["revision"] >= line["revision"]]
        kept[ranking] = lines if "retracted" in line else [*lines, line]
    return until


@pytest.mark.slow
def test_a_discarded_ranking_is_not_exported_and_readers_by_cursor_get_a_retraction(ann, rita, project, work):
    work(2)
    first, second = rank_next(ann), rank_next(ann)
    cursor = ranking_record.sequence_cutoff(project)
    reviews.discard(rita, first.pk, reason="no")
    for read in (ranking_record.rankings, pairs):
        assert {row["ranking_id"] for row in read(project)} == {second.pk}
        (row,) = read(project, after=cursor)
        assert row == {
            "ranking_id": Ranking.objects.get(standing="discarded").pk,
            "sequence": 3,
            "revision": 2,
            "comparison_id": first.comparison_id,
            "prompt_id": first.comparison.prompt_id,
            "split": first.comparison.prompt.split,
            "annotator": f"annotator-{ann.user_id}",
            "retracted": "discarded",
        }
        assert list(read(project, after=cursor, split={"train": "held_out", "held_out": "train"}[row["split"]])) == []


def test_a_reader_who_never_read_a_ranking_gets_no_retraction_of_it(ann, rita, project, work):
    work(2)
    rank_next(ann)
    cursor = ranking_record.sequence_cutoff(project)
    reviews.discard(rita, rank_next(ann).pk, reason="no")
    assert list(ranking_record.rankings(project, after=cursor)) == []


@pytest.mark.slow
def test_a_withdrawn_ranking_is_retracted_until_it_is_submitted_again(ann, project, work):
    work(1)
    ranking = rank_next(ann)
    cursor = ranking_record.sequence_cutoff(project)
    lease = ranking_undo.undo_last(ann)
    (row,) = ranking_record.rankings(project, after=cursor)
    assert (row["comparison_id"], row["retracted"]) == (ranking.comparison_id, "withdrawn")
    assert list(ranking_record.rankings(project)) == []
    again = rankings.record_ranking(ann, lease.pk, [2, 1], idempotency_key=uuid4(), seconds=1)
    assert [row["ranking_id"] for row in ranking_record.rankings(project)] == [again.pk]


@pytest.mark.slow
def test_a_frozen_cutoff_gives_the_same_rows_unless_only_rankings_that_still_count_are_requested(
    ann, rita, project, work
):
    work(3)
    first, second, third = (rank_next(ann) for _ in range(3))
    cutoff = ranking_record.sequence_cutoff(project)
    before = list(ranking_record.rankings(project, until=cutoff))
    decision = reviews.discard(rita, first.pk, reason="no")
    reviews.return_ranking(rita, second.pk, reason="no")
    assert list(ranking_record.rankings(project, until=cutoff)) == before
    still = [row["ranking_id"] for row in ranking_record.rankings(project, until=cutoff, still_counting=True)]
    assert still == [third.pk]
    review_undo.undo(rita, decision.pk)
    still = [row["ranking_id"] for row in ranking_record.rankings(project, until=cutoff, still_counting=True)]
    assert still == [first.pk, third.pk]


def test_a_revision_that_prefers_nothing_takes_the_pairs_back(ann, project, work):
    work(1)
    ranking = rank_next(ann)
    cursor = ranking_record.sequence_cutoff(project)
    revise(ann, ranking, [1, 1])
    (row,) = pairs(project, after=cursor)
    assert row["retracted"] == "tied"


@pytest.mark.slow
@pytest.mark.parametrize("read", [ranking_record.rankings, pairs])
def test_readers_by_cursor_end_with_the_same_rows_as_a_new_reader(project, rita, work, read):
    """Random work, decisions and undoing; one reader looks often, one seldom, one never before the end."""
    generator = random.Random(5)
    members = [membership(person(project, f"p{index}", "annotator"), project) for index in range(3)]
    comparisons = work(8, size=3, wanted_rankings=3)
    decisions, often, seldom, at = [], {}, {}, {"often": 0, "seldom": 0}
    for step in range(length(full=150, short=90)):
        member = generator.choice(members)
        ranks = [generator.randint(1, 2) for _ in range(3)]
        live = list(Ranking.objects.filter(is_live=True, annotator=member.user))
        act = generator.choice(["rank", "rank", "revise", "withdraw", "discard", "return", "adjudicate", "undo"])
        try:
            if act == "rank":
                rank_next(member, ranks)
            elif act == "withdraw" and live:
                ranking_undo.undo_last(member)
            elif act == "revise" and live:
                revise(member, generator.choice(live), ranks)
            elif act == "adjudicate":
                fields = {"idempotency_key": uuid4(), "seconds": 1.0}
                decided = reviews.adjudicate(rita, generator.choice(comparisons).pk, ranks, **fields)
                decisions.append(decided.review_id)
            elif act == "undo" and decisions:
                review_undo.undo(rita, decisions.pop(generator.randrange(len(decisions))))
            elif live and act in ("discard", "return"):
                decide = reviews.discard if act == "discard" else reviews.return_ranking
                decisions.append(decide(rita, generator.choice(live).pk, reason="x").pk)
        except (Conflict, NotFound):
            continue
        if step % 3 == 0:
            at["often"] = follow(read, project, often, at["often"])
        if step % 40 == 39:
            at["seldom"] = follow(read, project, seldom, at["seldom"])
    fresh: dict = {}
    follow(read, project, fresh, 0)
    assert fresh
    for kept, after in ((often, at["often"]), (seldom, at["seldom"])):
        follow(read, project, kept, after)
        assert {ranking: lines for ranking, lines in kept.items() if lines} == fresh
    standing = set(Ranking.objects.values_list("standing", flat=True))
    assert standing == {"counts", "overruled", "returned", "discarded", "withdrawn"}  # all of it happened
