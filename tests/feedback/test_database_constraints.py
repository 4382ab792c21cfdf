"""Database constraints refuse invalid rows, whatever code writes them."""

import hashlib
import uuid

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from feedback.models import Comparison, ComparisonItem, Completion, Lease, Prompt, Ranking, Review, Source

pytestmark = pytest.mark.django_db


@pytest.fixture
def source(project):
    return Source.objects.create(project=project, name="first", kind="import")


@pytest.fixture
def prompt(project):
    return make_prompt(project, "one")


def make_prompt(project, text):
    messages = [{"role": "user", "content": text}]
    return Prompt.objects.create(project=project, messages=messages, digest=text, split="train")


def make_completion(prompt, source, text):
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Completion.objects.create(prompt=prompt, source=source, text=text, digest=digest)


def make_comparison(prompt, completions, size=None, positions=None):
    comparison = Comparison.objects.create(
        project=prompt.project, prompt=prompt, size=size or len(completions), shuffle_key=0.5
    )
    for index, completion in enumerate(completions):
        ComparisonItem.objects.create(
            comparison=comparison,
            prompt=prompt,
            completion=completion,
            digest=completion.digest,
            position=positions[index] if positions else index,
        )
    return comparison


@pytest.fixture
def three(prompt, source):
    return make_comparison(prompt, [make_completion(prompt, source, text) for text in ("a", "b", "c")])


def refused(constraint, write):
    """Run `write`, check deferred constraints as a commit would, and assert that this constraint refuses it."""
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        write()
        connection.check_constraints()


def ranking(comparison, annotator, **changes):
    fields = {
        "project_id": comparison.project_id,
        "size": comparison.size,
        "ranks": [1, 2, 3],
        "display_order": [2, 0, 1],
        "seconds": 1.0,
        "idempotency_key": uuid.uuid4(),
    }
    return Ranking.objects.create(comparison=comparison, annotator=annotator, **{**fields, **changes})


def lease(comparison, annotator, **changes):
    now = timezone.now()
    fields = {"project_id": comparison.project_id, "size": comparison.size, "display_order": [2, 0, 1]}
    fields |= {"taken_at": now, "expires_at": now}
    return Lease.objects.create(comparison=comparison, annotator=annotator, **{**fields, **changes})


def test_a_comparison_has_as_many_items_as_its_size(prompt, source):
    completions = [make_completion(prompt, source, text) for text in "ab"]
    refused("comparison_whole", lambda: make_comparison(prompt, completions, size=3))
    refused("comparison_whole", lambda: make_comparison(prompt, [], size=2))


def test_a_comparison_with_too_many_items_is_refused(three, prompt, source):
    connection.check_constraints()
    extra = make_completion(prompt, source, "d")
    refused(
        "comparison_whole",
        lambda: ComparisonItem.objects.create(
            comparison=three, prompt=prompt, completion=extra, digest=extra.digest, position=3
        ),
    )


def test_a_comparison_with_too_few_items_is_refused(three):
    refused("comparison_whole", lambda: three.items.filter(position=1).delete())


def test_positions_leave_no_gap(prompt, source):
    completions = [make_completion(prompt, source, text) for text in "ab"]
    refused("comparison_whole", lambda: make_comparison(prompt, completions, positions=[0, 2]))


def test_a_size_cannot_change_afterwards(three):
    refused("comparison_whole", lambda: Comparison.objects.filter(pk=three.pk).update(size=2))


@pytest.mark.parametrize("size", [1, 10])
def test_a_comparison_shows_two_to_nine(prompt, size):
    refused("comparison_size", lambda: make_comparison(prompt, [], size=size))


def test_a_completion_of_another_prompt_is_refused(project, prompt, source):
    other = make_completion(make_prompt(project, "two"), source, "b")
    refused("item_completion_of_prompt", lambda: make_comparison(prompt, [make_completion(prompt, source, "a"), other]))


def test_an_item_carries_the_digest_of_its_text(three):
    refused("item_completion_of_prompt", lambda: three.items.filter(position=0).update(digest="f" * 64))


def test_the_same_text_does_not_come_twice(project, prompt, source):
    again = Source.objects.create(project=project, name="second", kind="import")
    twins = [make_completion(prompt, source, "a"), make_completion(prompt, again, "a")]
    refused("item_text_once", lambda: make_comparison(prompt, twins))


def test_a_comparison_belongs_to_its_prompts_project(prompt, stranger):
    other = stranger.memberships.get().project
    refused("comparison_prompt_in_project", lambda: Comparison.objects.create(
        project=other, prompt=prompt, size=2, shuffle_key=0.1
    ))  # fmt: skip


@pytest.mark.parametrize(
    "ratings",
    [
        [],
        {"helpful": 5},
        {"helpful": [5, 4]},
        {"helpful": [5, 4, 3, 2]},
        {"helpful": [0, 4, 3]},
        {"helpful": [6, 4, 3]},
        {"helpful": [2.5, 4, 3]},
        {"helpful": ["5", 4, 3]},
        {"helpful": [[5], 4, 3]},
        {"helpful": [5, 4, 3], "honest": None},
    ],
)
def test_ratings_are_one_to_five_for_every_completion(three, annotator, ratings):
    refused("ranking_ratings", lambda: ranking(three, annotator, ratings=ratings))
    assert ranking(three, annotator, ratings={"helpful": [5, None, 1], "honest": [None, None, None]}).pk


def span(completion, start, end, mark="bad"):
    return {"completion": completion, "start": start, "end": end, "mark": mark}


@pytest.mark.parametrize(
    "spans",
    [
        {},
        [span(3, 0, 1)],
        [span(-1, 0, 1)],
        [span(0, 1, 1)],
        [span(0, -1, 1)],
        [span(0, 0, 1, "ugly")],
        [span(0, 0, 1, None)],
        [{"completion": 0, "start": 0, "end": 1}],
        [span(1, 0, 1), span(0, 0, 1)],
        [span(0, 4, 6), span(0, 0, 2)],
        [span(0, 0, 4), span(0, 3, 6)],
    ],
)
def test_spans_are_sorted_and_do_not_overlap(three, annotator, spans):
    refused("ranking_spans", lambda: ranking(three, annotator, spans=spans))
    assert ranking(three, annotator, spans=[span(0, 0, 4), span(0, 4, 6, "good"), span(2, 0, 1)]).pk


@pytest.mark.parametrize(("field", "most"), [("flags", 12), ("attributes", 6)])
def test_a_project_asks_for_no_more_than_a_page_can_show(project, field, most):
    setattr(project, field, [str(each) for each in range(most)])
    project.save()
    setattr(project, field, [str(each) for each in range(most + 1)])
    refused(f"project_{field}", project.save)


@pytest.mark.parametrize("ranks", [[1, 2], [0, 1, 2], [1, 3, 4], [2, 2, 2], [1, 2, 4], [1, 1, 3], []])
def test_ranks_are_dense_and_cover_every_completion(three, annotator, ranks):
    refused("ranking_ranks", lambda: ranking(three, annotator, ranks=ranks))


@pytest.mark.parametrize("ranks", [[1, 1, 1], [1, 2, 2], [3, 1, 2], [2, 1, 1]])
def test_every_weak_order_is_accepted(three, annotator, ranks):
    ranking(three, annotator, ranks=ranks)
    connection.check_constraints()


@pytest.mark.parametrize("order", [[0, 1], [0, 1, 3], [0, 0, 1], [1, 2, 3], []])
def test_a_display_order_is_a_permutation(three, annotator, order):
    refused("ranking_display_order", lambda: ranking(three, annotator, display_order=order))
    refused("lease_display_order", lambda: lease(three, annotator, display_order=order))


def test_a_null_inside_an_order_is_refused(three, annotator):
    refused("ranking_display_order", lambda: ranking(three, annotator, display_order=[0, 1, None]))
    refused("ranking_ranks", lambda: ranking(three, annotator, ranks=[1, 2, None]))


def test_a_ranking_has_the_size_and_project_of_its_comparison(three, annotator, stranger):
    smaller = {"size": 2, "ranks": [1, 2], "display_order": [1, 0]}
    refused("ranking_comparison_sized", lambda: ranking(three, annotator, **smaller))
    other = stranger.memberships.get().project
    refused("ranking_comparison_sized", lambda: ranking(three, annotator, project_id=other.pk))
    refused("lease_comparison_sized", lambda: lease(three, annotator, size=2, display_order=[1, 0]))


def test_one_live_ranking_an_annotator_and_comparison(three, annotator):
    ranking(three, annotator)
    refused("one_live_ranking", lambda: ranking(three, annotator, revision=2))


def test_one_lease_an_annotator_and_comparison(three, annotator):
    lease(three, annotator)
    refused("lease_once", lambda: lease(three, annotator))


def test_no_more_slots_are_given_than_rankings_are_wanted(three):
    refused("comparison_open_slots", lambda: Comparison.objects.filter(pk=three.pk).update(open_slots=-1))
    refused("comparison_open_slots", lambda: Comparison.objects.filter(pk=three.pk).update(open_slots=2))


def decision(comparison, reviewer, **changes):
    fields = {"project_id": comparison.project_id, "kind": "discard", "annotator": reviewer, "reason": "x"}
    return Review.objects.create(comparison=comparison, reviewer=reviewer, **{**fields, **changes})


def test_a_ranking_that_was_taken_out_is_not_live_and_refers_to_a_decision(three, annotator):
    refused("ranking_standing_has_a_reason", lambda: ranking(three, annotator, standing="discarded", is_live=False))
    decided = decision(three, annotator)
    refused("ranking_live_stands", lambda: ranking(three, annotator, standing="discarded", review=decided))
    refused("ranking_live_stands", lambda: ranking(three, annotator, standing="returned", review=decided))
    refused("ranking_(standing|live_stands)", lambda: ranking(three, annotator, standing="lost", review=decided))
    ranking(three, annotator, standing="overruled", review=decided)
    connection.check_constraints()


def test_a_decision_belongs_to_the_project_of_its_rankings(three, annotator, stranger):
    elsewhere = decision(three, annotator, project_id=stranger.memberships.get().project_id)
    refused("ranking_review_in_project", lambda: ranking(three, annotator, review=elsewhere))


@pytest.mark.parametrize(
    ("constraint", "changes"),
    [
        ("review_kind", {"kind": "praise"}),
        ("review_says_of_what_and_why", {"reason": ""}),
        ("review_says_of_what_and_why", {"kind": "return", "annotator": None}),
        ("review_says_of_what_and_why", {"kind": "adjudication", "comparison_id": None}),
        ("review_undone_by_somebody", {"undone_at": "2026-01-01T00:00Z"}),
    ],
)
def test_a_decision_has_its_object_and_its_reason(three, annotator, constraint, changes):
    refused(constraint, lambda: Review.objects.create(**{
        "project_id": three.project_id, "kind": "discard", "annotator": annotator, "reviewer": annotator,
        "comparison_id": three.pk, "reason": "x", **changes,
    }))  # fmt: skip


def test_a_comparison_is_adjudicated_once_and_then_wants_no_rankings(three, annotator):
    decision(three, annotator, kind="adjudication")
    refused("one_adjudication", lambda: decision(three, annotator, kind="adjudication"))
    settled = {"adjudicated_at": timezone.now()}
    refused("comparison_adjudicated_is_settled", lambda: Comparison.objects.filter(pk=three.pk).update(**settled))
    Comparison.objects.filter(pk=three.pk).update(open_slots=0, **settled)
    refused("comparison_adjudicated_is_settled", lambda: Comparison.objects.update(gold_ranks=[1, 2, 3]))


def test_deleting_a_project_deletes_all_its_rows(project, three, annotator):
    lease(three, annotator)
    ranking(three, annotator, review=decision(three, annotator))
    project.delete()
    connection.check_constraints()
    assert not ComparisonItem.objects.exists()


def test_no_foreign_key_repeats_a_part_of_another():
    """Each one is looked up for every deleted row: at 10,000 rows a needless one costs 0.15 s."""
    repeated = """
        SELECT part.conname FROM pg_constraint AS part JOIN pg_constraint AS whole
            ON whole.conrelid = part.conrelid AND whole.confrelid = part.confrelid AND whole.oid <> part.oid
            AND part.conkey <@ whole.conkey AND part.confkey <@ whole.confkey
        JOIN pg_attribute AS may_be_null
            ON may_be_null.attrelid = part.conrelid AND may_be_null.attnum = ANY (whole.conkey)
        WHERE part.contype = 'f' AND whole.contype = 'f' AND part.conrelid::regclass::text LIKE 'feedback%'
        GROUP BY part.conname HAVING bool_and(may_be_null.attnotnull)
    """
    with connection.cursor() as cursor:
        cursor.execute(repeated)
        assert cursor.fetchall() == []
