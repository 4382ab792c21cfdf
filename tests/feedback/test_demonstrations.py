"""Demonstrations: storing an answer and its pair, undoing it and discarding it."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.urls import reverse
from django.utils import timezone

from feedback import imports
from feedback.actions import demonstrations, ranking_undo, review_undo, reviews
from feedback.errors import Conflict, Forbidden, Invalid, NotFound
from feedback.export import formats, ranking_record
from feedback.export.demonstrations import demonstrations as exported
from feedback.models import Completion, Demonstration, Lease, Ranking, Source
from feedback.quality import reliability
from feedback.queue import blinding, leases
from feedback.reports import progress, review_cases, statistics
from tests.factories import URL, client_of, rank_next, rows_of


@pytest.fixture
def lease(ann, work) -> Lease:
    work(1, size=3)
    return leases.lease_next(ann)


def write(member, lease, text="A better answer.", place=0):
    number = blinding.comparison_number(member, lease.comparison_id)
    return demonstrations.record_demonstration(member, number, text, place=place)


def pairs(project):
    rows = formats.lines(project, "trl")
    return [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]


@pytest.mark.slow
def test_an_edited_answer_is_ranked_above_its_origin_in_every_export(ann, lease, project):
    origin = lease.comparison.texts(lease.display_order)[1]
    demonstration = write(ann, lease, place=1)
    completion = demonstration.completion
    assert (completion.source.kind, completion.author, completion.text) == ("person", ann.user, "A better answer.")
    assert pairs(project) == [("A better answer.", origin)]
    (row,) = formats.lines(project, "rankings")
    assert (row["ranks"], row["reason"], row["completions"]) == ([1, 2], "demonstration", ["A better answer.", origin])
    assert [row["completion"] for row in exported(project)] == ["A better answer."]


def test_an_answer_from_an_empty_page_is_a_demonstration_without_a_pair(ann, lease, project):
    assert write(ann, lease, place=None).pair is None
    assert pairs(project) == []
    assert len(list(exported(project))) == 1


@pytest.mark.slow
def test_the_pair_is_leased_to_nobody_and_counts_in_no_figure_about_annotators(ann, lease, cole, project):
    comparison = write(ann, lease).pair
    assert leases.lease_next(cole) is None
    rank_next(ann)
    assert not Ranking.objects.live_in(project).filter(comparison=comparison).exists()
    mine = [person for person in statistics.figures_of_everybody(project) if person.user == ann.user]
    assert [person.done.total for person in mine] == [1]
    of_record = reliability.rankings_until(project, ranking_record.sequence_cutoff(project))
    assert [row.comparison_id for row in of_record] == [lease.comparison_id]
    inventory = progress.inventory(project)
    assert (inventory.comparisons, inventory.rankings, inventory.demonstrations) == (1, 1, 1)
    assert progress.counts(ann).today == 1


def test_the_same_answer_sent_twice_is_stored_once(ann, lease, project):
    first = write(ann, lease)
    assert write(ann, lease) == first
    assert Ranking.objects.filter(project=project).count() == 1


def test_invalid_answers_are_refused(ann, cole, lease):
    text = lease.comparison.texts(lease.display_order)[0]
    with pytest.raises(Invalid, match="Change the text first"):
        write(ann, lease, text + "\n")
    with pytest.raises(Invalid, match="no completion at this position"):
        write(ann, lease, place=3)
    with pytest.raises(NotFound, match="do not hold"):
        write(cole, lease)
    assert not Demonstration.objects.exists() and not Ranking.objects.exists()


@pytest.mark.slow
def test_undo_withdraws_the_answer_and_its_pair_and_readers_by_cursor_learn_of_it(ann, lease, project):
    write(ann, lease, place=2)
    cursor = ranking_record.sequence_cutoff(project)
    undone = demonstrations.withdraw_if_last(ann)
    assert undone.completion.text == "A better answer." and demonstrations.place_of_origin(ann, undone) == 2
    assert pairs(project) == list(exported(project)) == []
    (row,) = formats.lines(project, "trl", after=cursor)
    assert row["retracted"] == "withdrawn"
    assert demonstrations.withdraw_if_last(ann) is None
    # the same answer again counts again
    assert write(ann, lease, place=2) == undone
    assert len(pairs(project)) == len(list(exported(project))) == 1


@pytest.mark.slow
def test_undo_goes_back_through_answers_and_rankings_in_their_order(ann, lease):
    write(ann, lease)
    rank_next(ann)
    assert demonstrations.withdraw_if_last(ann) is None
    ranking_undo.undo_last(ann)
    assert demonstrations.withdraw_if_last(ann) is not None
    with pytest.raises(NotFound):
        ranking_undo.undo_last(ann)


@pytest.mark.slow
def test_an_answer_older_than_a_day_cannot_be_undone(ann, lease):
    write(ann, lease)
    Demonstration.objects.update(created_at=timezone.now() - timedelta(days=2))
    assert demonstrations.withdraw_if_last(ann) is None


@pytest.mark.slow
def test_a_reviewer_discards_an_answer_and_undoes_that(ann, mona, lease, project):
    demonstration = write(ann, lease)
    review = demonstrations.discard(mona, demonstration.pk, reason="a phone number in it")
    assert pairs(project) == list(exported(project)) == []
    with pytest.raises(Conflict, match="discarded already"):
        demonstrations.discard(mona, demonstration.pk, reason="again")
    with pytest.raises(Conflict, match="A reviewer has discarded"):
        write(ann, lease)
    with pytest.raises(Conflict, match="A reviewer has discarded your last answer"):
        demonstrations.withdraw_if_last(ann)
    assert list(review_cases.decisions(project)) == [review]
    review_undo.undo(mona, review.pk)
    assert len(pairs(project)) == len(list(exported(project))) == 1
    demonstrations.discard(mona, demonstration.pk, reason="after all")
    assert pairs(project) == []


def test_only_reviewers_discard_and_only_with_a_reason(ann, mona, lease):
    demonstration = write(ann, lease)
    with pytest.raises(Forbidden):
        demonstrations.discard(ann, demonstration.pk, reason="no")
    with pytest.raises(Invalid):
        demonstrations.discard(mona, demonstration.pk, reason=" ")
    with pytest.raises(NotFound):
        demonstrations.discard(mona, demonstration.pk + 1, reason="what?")


def test_the_pair_is_no_ranking_to_return_discard_settle_or_revise(ann, mona, lease):
    pair = write(ann, lease).pair
    ranking = Ranking.objects.get(comparison=pair)
    for decide in (reviews.return_ranking, reviews.discard):
        with pytest.raises(Conflict, match="discard the demonstration instead"):
            decide(mona, ranking.pk, reason="why not")
    with pytest.raises(Conflict, match="discard the demonstration instead"):
        reviews.adjudicate(mona, pair.pk, [1, 2], idempotency_key=uuid4(), seconds=3.0)
    assert not review_cases.case(mona, pair.pk).rankings[0].can_be_changed


def test_a_round_gets_the_demonstrations_stored_before_its_start(ann, lease, project):
    write(ann, lease, "first")
    start = timezone.now()
    write(ann, lease, "second")
    assert [row["completion"] for row in exported(project, until=start)] == ["first"]


def test_a_flag_not_for_training_holds_for_the_answer_too(ann, lease, project):
    project.flags = ["personal data"]
    project.save()
    write(ann, lease)
    rank_next(ann, flags=["personal data"])
    assert list(exported(project)) == []
    assert len(list(exported(project, include_flagged=True))) == 1


def test_demonstrations_can_be_imported_and_undoing_the_import_removes_them(project, manager):
    rows = [{"prompt": "Hello", "completions": ["Hm.", {"text": "Good morning!", "demonstration": True}]}]
    with imports.record_import(project, "api", manager) as record:
        imports.add_prompts(project, rows, made_by_import=record)
    (row,) = exported(project)
    assert (row["completion"], row["messages"]) == ("Good morning!", [{"role": "user", "content": "Hello"}])
    assert record.counts["demonstrations"] == 1
    imports.undo_import(record, manager)
    assert not Completion.objects.exists() and not Demonstration.objects.exists()


def test_a_known_completion_becomes_a_demonstration(project):
    added = imports.add_prompts(project, [{"prompt": "Hello", "completions": ["Good morning!"]}])
    source = Source.objects.get()
    row = {"prompt_id": added.prompt_ids[0], "text": "Good morning!", "demonstration": True}
    for _ in range(2):
        assert imports.add_completions(project, source, [row]) == added.completion_ids[0]
    assert len(list(exported(project))) == 1


@pytest.mark.parametrize("completion", [{"text": " ", "demonstration": True}, {"text": "a", "demonstration": 1}])
def test_a_demonstration_without_a_text_is_refused(project, completion):
    with pytest.raises(Invalid, match="emonstration"):
        imports.add_prompts(project, [{"prompt": "Hello", "completions": [completion]}])


@pytest.mark.slow
def test_the_reviewers_page_lists_and_discards(ann, mona, lease, client, plain_static_files):
    demonstration = write(ann, lease)
    client.force_login(mona.user)
    at = reverse("review-demonstrations", args=["support"])
    page = client.get(at).content.decode()
    assert "A better answer." in page and "beside its origin" in page
    address = reverse("discard-demonstration", args=["support", demonstration.pk])
    page = client.post(address, {"reason": "wrong"}, follow=True).content.decode()
    assert "Discarded: no round imitates it." in page
    assert (
        "discarded a demonstration of ann" in client.get(reverse("review-decisions", args=["support"])).content.decode()
    )
    pair = client.get(reverse("review-case", args=["support", demonstration.pair_id])).content.decode()
    assert "edited from" in pair and "chips" not in pair


@pytest.mark.slow
def test_the_api_lists_and_discards(ann, mona, lease):
    demonstration, api = write(ann, lease), client_of(mona.user)
    (row,) = api.get(f"{URL}/review/demonstrations").json()
    assert (row["text"], row["author"], row["pair"]) == ("A better answer.", "ann", demonstration.pair_id)
    address = f"{URL}/review/demonstrations/{demonstration.pk}/discard"
    assert api.post(address, {}, format="json").status_code == 400
    decision = api.post(address, {"reason": "wrong"}, format="json").json()
    assert (decision["kind"], decision["demonstration"]) == ("demonstration", demonstration.pk)
    assert rows_of(api.get(f"{URL}/demonstrations")) == []
