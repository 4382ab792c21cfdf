"""Gold tests annotators before and during work without their knowledge; no model learns from its rankings."""

from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from feedback import imports
from feedback.actions import ranking_undo, rankings
from feedback.errors import Conflict, Invalid, NotFound
from feedback.export import ranking_record
from feedback.models import Comparison, Lease, Membership
from feedback.quality import agreement
from feedback.queue import blinding, gold, leases
from feedback.reports import progress
from tests.factories import URL, client_of, lines, membership, rank_next

pytestmark = pytest.mark.django_db


@pytest.fixture
def add_gold(project):
    """Add `count` gold comparisons of two, whose first completion is the better one."""

    def add(count):
        start = project.prompts.count()
        rows = [{"prompt": f"gold {start + index}", "completions": ["good", "bad"]} for index in range(count)]
        groups = imports.add_prompts(project, rows).completion_ids
        return imports.add_gold(project, [{"completion_ids": ids, "ranks": [1, 2]} for ids in groups])

    return add


def ask(project, **settings):
    for name, value in settings.items():
        setattr(project, name, value)
    project.save()


def rank_by_text(member, best):
    """Rank the next comparison with the completion `best` first."""
    lease = leases.lease_next(member)
    ranks = [1 if text == best else 2 for text in lease.comparison.texts(lease.display_order)]
    return rankings.record_ranking(member, lease.pk, ranks, idempotency_key=uuid4(), seconds=1.0)


def test_gold_is_not_leased_as_real_work(ann, add_gold):
    add_gold(3)
    assert leases.lease_next(ann) is None


@pytest.fixture
def draw(project, monkeypatch):
    """Set how much gold comes before some comparisons. None comes before others."""

    def give(drawn):
        ask(project, gold_percent=50)
        before = {comparison.pk: count for comparison, count in drawn.items()}
        monkeypatch.setattr("feedback.queue.blinding.gold_before", lambda _project, _person, pk: before.get(pk, 0))

    return give


def served(member):
    """Rank all comparisons that come; return (reason, comparison id) of each."""
    ranked = []
    while ranking := rank_next(member):
        ranked.append(ranking)
    return [(ranking.reason, ranking.comparison_id) for ranking in ranked]


def test_gold_is_leased_before_the_real_work_that_it_was_drawn_for(ann, add_gold, work, draw):
    gold = add_gold(3)
    first, second, third = [work(1, priority=place)[0] for place in (3, 2, 1)]
    draw({second: 2, third: 1})
    found = served(ann)
    assert [reason for reason, _ in found] == ["sampled", "gold", "gold", "sampled", "gold", "sampled"]
    assert [pk for reason, pk in found if reason == "sampled"] == [first.pk, second.pk, third.pk]
    assert sorted(pk for reason, pk in found if reason == "gold") == gold


def test_there_is_no_more_gold_than_there_is(ann, add_gold, work, draw):
    add_gold(1)
    (only,) = work(1)
    draw({only: 4})
    assert [reason for reason, _ in served(ann)] == ["gold", "sampled"]


def test_no_gold_is_leased_after_the_last_real_work(ann, cole, project, add_gold, work):
    add_gold(50)
    work(5)
    ask(project, gold_percent=50)
    assert served(ann)[-1][0] == "sampled"
    assert leases.lease_next(ann) is None
    assert leases.lease_next(cole) is None


@pytest.mark.slow
def test_the_share_of_gold_is_the_projects(project, ann):
    ask(project, gold_percent=30)
    counts = [blinding.gold_before(project, ann.user_id, pk) for pk in range(20_000)]
    share = sum(counts) / (sum(counts) + len(counts))
    assert share == pytest.approx(0.3, abs=0.01)  # three standard deviations
    assert sum(count >= 2 for count in counts) / len(counts) == pytest.approx(0.09, abs=0.01)


@pytest.mark.slow
def test_the_remaining_count_falls_by_one_for_gold_and_for_real_work(ann, project, add_gold, work):
    add_gold(20)
    work(20)
    ask(project, gold_percent=40)
    left = progress.counts(membership(ann.user, project)).remaining
    assert left > 20
    reasons = set()
    while lease := leases.lease_next(ann):
        reasons.add(lease.reason)
        assert progress.counts(membership(ann.user, project)).remaining == left
        rankings.skip_comparison(ann, lease.pk) if left % 3 else rank_next(ann)
        left -= 1
        assert progress.counts(membership(ann.user, project)).remaining == left
    assert (left, reasons) == (0, {"gold", "sampled"})


@pytest.mark.parametrize("let_go", ["given back", "ran out", "skipped by mistake"])
def test_gold_that_is_let_go_is_leased_again_like_real_work(ann, add_gold, work, draw, let_go):
    add_gold(3)
    first, _second = [work(1, priority=place)[0] for place in (2, 1)]
    draw({first: 1})
    lease = leases.lease_next(ann)
    assert lease.reason == Lease.Reason.GOLD
    again = give_up_and_lease_again(ann, lease, let_go)
    assert again.comparison_id == lease.comparison_id
    rank_next(ann)
    assert leases.lease_next(ann).comparison == first


def give_up_and_lease_again(member, lease, how):
    """Let a comparison go in one of three ways and ask for the next one."""
    if how == "given back":
        leases.release(member, lease.pk)
    elif how == "ran out":
        Lease.objects.filter(pk=lease.pk).update(expires_at=timezone.now())
    else:
        rankings.skip_comparison(member, lease.pk)
        return ranking_undo.undo_last(member)
    return leases.lease_next(member)


def test_gold_that_is_let_go_is_not_leased_again_once_its_stand_in_is_taken(ann, add_gold, work, draw):
    """Real work would not be leased again either, because others have taken it."""
    add_gold(3)
    first, second = [work(1, priority=place)[0] for place in (2, 1)]
    draw({first: 1})
    lease = leases.lease_next(ann)
    rankings.skip_comparison(ann, lease.pk)
    Comparison.objects.filter(pk=first.pk).update(open_slots=0)
    with pytest.raises(Conflict, match="Others have ranked"):
        ranking_undo.undo_last(ann)
    assert leases.lease_next(ann).comparison == second


@pytest.mark.slow
def test_withdrawn_gold_that_is_released_is_not_leased_again_like_real_work(ann, add_gold, work, draw):
    add_gold(1)
    first, second = [work(1, priority=place)[0] for place in (2, 1)]
    draw({first: 1})
    assert rank_next(ann).reason == Lease.Reason.GOLD
    lease = ranking_undo.undo_last(ann)
    assert lease.reason == Lease.Reason.GOLD
    leases.release(ann, lease.pk)
    assert rank_next(ann).comparison == first
    leases.release(ann, ranking_undo.undo_last(ann).pk)
    assert rank_next(ann).comparison == second


def test_a_withdrawn_answer_to_gold_does_not_help_to_qualify(ann, add_gold, project):
    add_gold(1)
    ask(project, qualification_items=1, qualification_percent=100)
    rank_by_text(ann, "bad")
    lease = ranking_undo.undo_last(ann)
    ranks = [1 if text == "good" else 2 for text in lease.comparison.texts(lease.display_order)]
    rankings.record_ranking(ann, lease.pk, ranks, idempotency_key=uuid4(), seconds=1)
    assert Membership.objects.get(pk=ann.pk).qualified_at is None


def test_a_late_submit_of_gold_is_refused_like_real_work(ann, add_gold, work, draw):
    add_gold(3)
    (only,) = work(1)
    draw({only: 1})
    lease = leases.lease_next(ann)
    Lease.objects.filter(pk=lease.pk).update(expires_at=timezone.now())
    leases.reclaim(ann.project_id)
    Comparison.objects.filter(pk=only.pk).update(open_slots=0)
    for act in (lambda: rank(ann, lease), lambda: leases.renew(ann, lease.pk)):
        with pytest.raises(Conflict, match="ran out"):
            act()


def rank(member, lease):
    return rankings.record_ranking(member, lease.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0)


def test_a_released_lease_cannot_be_used_whether_it_was_gold_or_not(ann, add_gold, work, draw):
    add_gold(1)
    (first,) = work(1)
    draw({first: 1})
    for reason in ("gold", "sampled"):
        lease = leases.lease_next(ann)
        assert lease.reason == reason
        leases.release(ann, lease.pk)
        with pytest.raises(NotFound):
            rank(ann, lease)
        again = leases.lease_next(ann)
        assert again.pk != lease.pk
        rank(ann, again)


def test_an_annotator_never_gets_the_same_gold_twice(ann, cole, project, add_gold):
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
    assert leases.lease_next(ann).comparison == real


def test_an_annotator_who_fails_gets_more_gold_and_may_still_pass(ann, project, add_gold, work):
    add_gold(4)
    work(1)
    ask(project, qualification_items=2, qualification_percent=100)
    for best in ("bad", "good"):
        rank_by_text(ann, best)
    assert gold.must_qualify(Membership.objects.get(pk=ann.pk))
    rank_by_text(ann, "good")
    assert not gold.must_qualify(Membership.objects.get(pk=ann.pk))


def test_an_annotator_without_gold_left_to_qualify_gets_the_reason(ann, project, add_gold, work):
    add_gold(1)
    work(1)
    ask(project, qualification_items=2)
    rank_by_text(ann, "good")
    with pytest.raises(Conflict, match="ask its managers to add more"):
        leases.lease_next(ann)


def test_managers_and_reviewers_need_not_qualify(mona, project, add_gold, work):
    add_gold(1)
    (real,) = work(1)
    ask(project, qualification_items=1)
    assert leases.lease_next(mona).comparison == real


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
    assert gold.shared_preferences(ranks, gold_ranks) == expected


def test_gold_is_in_no_export_and_no_agreement(ann, cole, project, add_gold):
    add_gold(2)
    ask(project, qualification_items=2, qualification_percent=100)
    for member in (ann, cole):
        for _ in range(2):
            rank_next(member)
    assert list(ranking_record.rankings(project)) == []
    assert agreement.measure(project).pairwise.value is None


def test_the_database_refuses_gold_that_is_no_ranking(add_gold):
    (pk,) = add_gold(1)
    for ranks in ([1], [1, 3], [0, 1]):
        with pytest.raises(IntegrityError, match="comparison_gold_ranks"), transaction.atomic():
            Comparison.objects.filter(pk=pk).update(gold_ranks=ranks)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"completion_ids": [1, 2]}, "the same length"),
        ({"completion_ids": [1, 2], "ranks": [1]}, "the same length"),
        ({"completion_ids": [1, 2], "ranks": [0, 1]}, "whole number"),
        ({"completion_ids": [1, 2], "ranks": [1, "2"]}, "whole number"),
        ({"completion_ids": [1, 2], "ranks": [3, 3]}, "at least one preference"),
        ({"completion_ids": ["a", 2], "ranks": [1, 2]}, "whole numbers"),
        ({"completion_ids": [2**40, 2**41], "ranks": [1, 2]}, "no completion"),
        ([1, 2], "must be an object"),
    ],
)
def test_gold_that_cannot_be_used_is_refused(project, row, sentence):
    with pytest.raises(Invalid, match=sentence):
        imports.add_gold(project, [row])


def test_gold_with_the_same_text_twice_is_refused(project):
    (ids,) = imports.add_prompts(project, [{"prompt": "a", "completions": ["x", "x ", "y"]}]).completion_ids
    with pytest.raises(Invalid, match="same text"):
        imports.add_gold(project, [{"completion_ids": ids, "ranks": [1, 2, 3]}])
    assert not Comparison.objects.exists()


def test_gold_is_added_by_the_api_and_its_lease_looks_like_any_other(project, manager, annotator):
    (ids,) = imports.add_prompts(project, [{"prompt": "a", "completions": ["x", "y"]}]).completion_ids
    url, body = f"{URL}/gold", lines({"completion_ids": ids, "ranks": [2, 9]})
    response = client_of(manager).post(url, body, content_type="application/x-ndjson")
    assert response.status_code == 201
    assert Comparison.objects.get(pk=response.json()["comparison_ids"][0]).gold_ranks == [1, 2]
    ask(project, qualification_items=1)
    lease = client_of(annotator).post(f"{URL}/leases", {}, format="json").json()["lease"]
    assert set(lease) == {"lease", "comparison", "expires_at", "messages", "completions", "turns", "returned"}
    assert lease["returned"] is None
