"""Gold tests people, before they start and afterwards, without their knowing; what they say of it trains nothing."""

from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction

from feedback import agreement, export, gold, intake, judging, progress, queue
from feedback.errors import Conflict, Invalid
from feedback.models import Comparison, Lease, Membership
from tests.feedback.api.conftest import URL, client_of, lines
from tests.feedback.conftest import rank_next

pytestmark = pytest.mark.django_db


@pytest.fixture
def add_gold(project):
    """`count` gold comparisons of two, whose first completion is the better one."""

    def add(count):
        start = project.prompts.count()
        rows = [{"prompt": f"gold {start + index}", "completions": ["good", "bad"]} for index in range(count)]
        groups = intake.add_prompts(project, rows).completion_ids
        return intake.add_gold(project, [{"completion_ids": ids, "ranks": [1, 2]} for ids in groups])

    return add


def ask(project, **settings):
    for name, value in settings.items():
        setattr(project, name, value)
    project.save()


def rank_by_text(member, best):
    """Rank the next comparison with the completion `best` first."""
    lease = queue.lease_next(member)
    ranks = [1 if text == best else 2 for text in lease.comparison.texts(lease.display_order)]
    return judging.record(member, lease.pk, ranks, idempotency_key=uuid4(), seconds=1.0)


def test_gold_is_no_ordinary_work(ann, add_gold):
    add_gold(3)
    assert queue.lease_next(ann) is None


def test_gold_comes_now_and_then_to_whoever_asks(ann, project, add_gold, work, monkeypatch):
    ids = add_gold(1)
    work(3)
    ask(project, gold_percent=50)
    draws = iter([0.9, 0.1, 0.1, 0.1])  # due when below a half
    monkeypatch.setattr("feedback.gold.random.random", lambda: next(draws))
    served = [rank_next(ann) for _ in range(3)]
    assert [ranking.comparison_id in ids for ranking in served] == [False, True, False]
    assert [ranking.reason for ranking in served] == ["sampled", "gold", "sampled"]


def test_what_is_left_to_do_does_not_tell_gold_from_other_work(ann, project, add_gold, work, monkeypatch):
    add_gold(1)
    work(3)
    ask(project, gold_percent=50)
    draws = iter([0.0, 0.9])
    monkeypatch.setattr("feedback.gold.random.random", lambda: next(draws))
    for reason in ("gold", "sampled"):
        lease = queue.lease_next(ann)
        assert (lease.reason, progress.counts(ann).remaining) == (reason, 3)
        queue.release(ann, lease.pk) if reason == "sampled" else judging.skip(ann, lease.pk)


def test_nobody_gets_the_same_gold_twice(ann, cole, project, add_gold):
    add_gold(2)
    ask(project, qualification_items=2, qualification_percent=0)
    first = {rank_next(ann).comparison_id for _ in range(2)}
    second = {rank_next(cole).comparison_id for _ in range(2)}
    assert len(first) == 2
    assert first == second


def test_an_annotator_qualifies_before_real_work(ann, project, add_gold, work):
    ids = add_gold(3)
    (real,) = work(1, priority=9)
    ask(project, qualification_items=3)
    for _ in range(3):
        ranking = rank_by_text(ann, "good")
        assert ranking.comparison_id in ids
        assert ranking.reason == Lease.Reason.QUALIFICATION
    assert Membership.objects.get(pk=ann.pk).qualified_at is not None
    assert queue.lease_next(ann).comparison == real


def test_one_who_fails_gets_more_gold_and_may_still_pass(ann, project, add_gold, work):
    add_gold(4)
    work(1)
    ask(project, qualification_items=2, qualification_percent=100)
    for best in ("bad", "good"):
        rank_by_text(ann, best)
    assert gold.must_qualify(Membership.objects.get(pk=ann.pk))
    rank_by_text(ann, "good")
    assert not gold.must_qualify(Membership.objects.get(pk=ann.pk))


def test_one_for_whom_no_gold_is_left_is_told_so(ann, project, add_gold, work):
    add_gold(1)
    work(1)
    ask(project, qualification_items=2)
    rank_by_text(ann, "good")
    with pytest.raises(Conflict, match="managers can add more"):
        queue.lease_next(ann)


def test_managers_and_reviewers_need_not_qualify(mona, project, add_gold, work):
    add_gold(1)
    (real,) = work(1)
    ask(project, qualification_items=1)
    assert queue.lease_next(mona).comparison == real


def test_the_pass_rate_is_the_share_of_gold_preferences(ann, cole, project, add_gold):
    add_gold(4)
    ask(project, qualification_items=4, qualification_percent=100)
    for best in ("good", "good", "good", "bad"):
        rank_by_text(ann, best)
    rates = gold.pass_rates(project)
    assert rates[ann.user_id].value == 0.75
    assert "75% of 4 gold preferences" in rates[ann.user_id].sentence
    assert cole.user_id not in rates


@pytest.mark.parametrize(
    ("ranks", "gold_ranks", "expected"),
    [([1, 2], [1, 2], (1, 1)), ([1, 1], [1, 2], (0, 1)), ([1, 2], [1, 1], (0, 0)), ([1, 3, 2], [1, 2, 3], (2, 3))],
)
def test_a_tie_in_place_of_a_preference_does_not_pass(ranks, gold_ranks, expected):
    assert gold.counted(ranks, gold_ranks) == expected


def test_gold_goes_into_no_export_and_no_agreement(ann, cole, project, add_gold):
    add_gold(2)
    ask(project, qualification_items=2, qualification_percent=100)
    for member in (ann, cole):
        for _ in range(2):
            rank_next(member)
    assert list(export.rankings(project)) == []
    assert agreement.measure(project).pairwise.value is None


def test_the_database_refuses_gold_that_is_no_ranking(add_gold):
    (pk,) = add_gold(1)
    for ranks in ([1], [1, 3], [0, 1]):
        with pytest.raises(IntegrityError, match="comparison_gold_ranks"), transaction.atomic():
            Comparison.objects.filter(pk=pk).update(gold_ranks=ranks)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"completion_ids": [1, 2]}, "equally long"),
        ({"completion_ids": [1, 2], "ranks": [1]}, "equally long"),
        ({"completion_ids": [1, 2], "ranks": [0, 1]}, "whole number"),
        ({"completion_ids": [1, 2], "ranks": [1, "2"]}, "whole number"),
        ({"completion_ids": [1, 2], "ranks": [3, 3]}, "tests nobody"),
        ({"completion_ids": ["a", 2], "ranks": [1, 2]}, "whole numbers"),
        ({"completion_ids": [2**40, 2**41], "ranks": [1, 2]}, "no completion"),
        ([1, 2], "must be an object"),
    ],
)
def test_gold_that_cannot_be_used_is_refused(project, row, sentence):
    with pytest.raises(Invalid, match=sentence):
        intake.add_gold(project, [row])


def test_gold_with_the_same_text_twice_is_refused(project):
    (ids,) = intake.add_prompts(project, [{"prompt": "a", "completions": ["x", "x ", "y"]}]).completion_ids
    with pytest.raises(Invalid, match="same text"):
        intake.add_gold(project, [{"completion_ids": ids, "ranks": [1, 2, 3]}])
    assert not Comparison.objects.exists()


def test_gold_comes_in_over_the_api_and_a_lease_of_it_looks_like_any_other(project, manager, annotator):
    (ids,) = intake.add_prompts(project, [{"prompt": "a", "completions": ["x", "y"]}]).completion_ids
    url, body = f"{URL}/gold", lines({"completion_ids": ids, "ranks": [2, 9]})
    response = client_of(manager).post(url, body, content_type="application/x-ndjson")
    assert response.status_code == 201
    assert Comparison.objects.get(pk=response.json()["comparison_ids"][0]).gold_ranks == [1, 2]
    ask(project, qualification_items=1)
    lease = client_of(annotator).post(f"{URL}/leases", {}, format="json").json()["lease"]
    assert set(lease) == {"lease", "comparison", "expires_at", "messages", "completions", "returned"}
    assert lease["returned"] is None
