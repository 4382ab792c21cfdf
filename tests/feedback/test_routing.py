"""Routing rules, groups and limits of members: who gets which work."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from feedback import imports
from feedback.actions import ranking_undo, rankings, reviews, routing, trials
from feedback.errors import Conflict, Invalid
from feedback.models import Comparison, Lease, Ranking, Source
from feedback.queue import claim, leases
from feedback.reports import progress
from feedback.reports import routing as reports
from tests.factories import membership, person, rank_next

pytestmark = pytest.mark.django_db


def tagged(project, count: int, *tags: str, **settings) -> list[int]:
    """Return ids of new comparisons whose prompts have these tags."""
    start = project.prompts.count()
    rows = [
        {"prompt": f"question {start + n}", "metadata": {"tags": list(tags)}, "completions": ["yes", "no"]}
        for n in range(count)
    ]
    added = imports.add_prompts(project, rows)
    return imports.add_comparisons(project, added.completion_ids, **settings).created


def grouped(member, *groups: str):
    routing.change_work(member.project, member.user_id, groups=groups)
    member.refresh_from_db()
    return member


def everything(member) -> set[int]:
    """Rank until nothing is left; return the ids of the comparisons."""
    ranked = set()
    while ranking := rank_next(member):
        ranked.add(ranking.comparison_id)
    return ranked


@pytest.mark.slow
def test_prompts_go_only_to_members_of_a_group_that_their_rules_name(project, ann, cole, mona):
    medical, german = tagged(project, 3, "medical"), tagged(project, 2, "german", "long")
    both, plain = tagged(project, 2, "medical", "german"), tagged(project, 2)
    routing.save_rules(project, [(["medical", "surgery"], ["doctors", "nurses"]), (["german"], ["German speakers"])])
    grouped(ann, "nurses"), grouped(mona, "German speakers", "doctors")
    assert reports.overview(project).waiting[1].members == 1  # german and medical
    assert everything(cole) == set(plain)
    assert everything(ann) == set(medical)
    assert everything(mona) == {*german, *both}


def test_a_comparison_added_after_the_rules_obeys_them_and_so_does_a_tag_added_later(project, ann):
    routing.save_rules(project, [(["medical"], ["doctors"])])
    (added,) = tagged(project, 1, "medical")
    assert Comparison.objects.get(pk=added).route == "medical"
    assert leases.lease_next(ann) is None
    (plain,) = tagged(project, 1)
    prompt = Comparison.objects.get(pk=plain).prompt
    prompt.metadata = {"tags": "medical"}
    prompt.save()
    assert Comparison.objects.get(pk=plain).route == "medical"
    assert leases.lease_next(ann) is None
    routing.save_rules(project, [])
    assert everything(ann) == {added, plain}
    assert set(Comparison.objects.values_list("route", flat=True)) == {""}


@pytest.mark.full
def test_a_claim_obeys_the_tags_of_the_prompt_where_the_route_is_outdated(project, ann):
    (pk,) = tagged(project, 1, "medical")
    routing.save_rules(project, [(["medical"], ["doctors"])])
    Comparison.objects.filter(pk=pk).update(route="")
    assert leases.lease_next(ann) is None
    assert leases.lease_next(grouped(ann, "doctors")).comparison_id == pk


def test_a_held_comparison_goes_to_others_when_a_rule_is_made(project, ann, cole):
    (pk,) = tagged(project, 1, "medical")
    grouped(cole, "doctors")
    lease = leases.lease_next(ann)
    routing.save_rules(project, [(["medical"], ["doctors"])])
    assert leases.lease_next(ann) is None
    with pytest.raises(Conflict):
        rankings.record_ranking(ann, lease.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0)
    with pytest.raises(Conflict):
        leases.renew(ann, lease.pk)
    assert leases.lease_next(cole).comparison_id == pk


def test_a_returned_ranking_and_an_undo_obey_the_rules(project, ann, cole, mona):
    tagged(project, 2, "medical")
    grouped(cole, "doctors")
    ranking = rank_next(ann)
    rank_next(ann)
    routing.save_rules(project, [(["medical"], ["doctors"])])
    with pytest.raises(Conflict):
        ranking_undo.undo_last(ann)
    reviews.return_ranking(mona, ranking.pk, reason="Look again.")
    assert leases.lease_next(ann) is None
    assert leases.lease_next(cole).comparison_id == ranking.comparison_id


def test_gold_obeys_the_rules(project, ann, cole):
    (gold,) = tagged(project, 1, "medical")
    Comparison.objects.filter(pk=gold).update(gold_ranks=[1, 2], wanted_rankings=100, open_slots=100)
    plain = tagged(project, 2, wanted_rankings=2)
    project.gold_percent = 50
    project.save()
    routing.save_rules(project, [(["medical"], ["doctors"])])
    grouped(cole, "doctors")
    for member, most in ((ann, 0), (cole, 1)):
        while rank_next(member):
            pass
        assert Ranking.objects.filter(annotator=member.user, comparison=gold).count() <= most
        assert Ranking.objects.filter(annotator=member.user, comparison__in=plain).count() == 2


@pytest.mark.full
def test_gold_that_was_given_up_is_not_given_again_to_a_member_who_may_not_rank_it_any_more(project, ann):
    (gold,) = tagged(project, 1, "medical")
    Comparison.objects.filter(pk=gold).update(gold_ranks=[1, 2], wanted_rankings=100, open_slots=100)
    (plain,) = tagged(project, 1)
    project.gold_percent = 50
    project.save()
    grouped(ann, "doctors")
    now = timezone.now()
    Lease.objects.create(
        project=project, comparison_id=gold, annotator=ann.user, size=2, display_order=[0, 1], reason="gold",
        taken_at=now, expires_at=now, lapsed_at=now, stand_in_id=plain,
    )  # fmt: skip
    routing.save_rules(project, [(["medical"], ["surgeons"])])
    assert leases.lease_next(ann).comparison_id == plain


@pytest.mark.full
def test_an_extra_ranking_goes_to_a_member_of_the_group(project, ann, cole):
    (pk,) = tagged(project, 1, "medical", wanted_rankings=2)
    project.extra_rankings = 1
    project.save()
    bea, dora = (membership(person(project, name, "annotator"), project) for name in ("bea", "dora"))
    routing.save_rules(project, [(["medical"], ["doctors"])])
    for member, by_position in ((ann, [1, 2]), (bea, [2, 1])):
        grouped(member, "doctors")
        lease = leases.lease_next(member)
        shown = [by_position[position] for position in lease.display_order]
        rankings.record_ranking(member, lease.pk, shown, idempotency_key=uuid4(), seconds=1.0)
    assert Comparison.objects.get(pk=pk).open_slots == 1
    assert leases.lease_next(cole) is None
    assert leases.lease_next(grouped(dora, "doctors")).reason == Lease.Reason.DISAGREEMENT


def test_a_trial_obeys_the_rules(project, ann, cole):
    rows = [{"prompt": f"q{n}", "metadata": {"tags": ["medical"]}} for n in range(4)]
    prompts = imports.add_prompts(project, rows).prompt_ids
    sources = [imports.get_source(project, name, Source.Kind.IMPORT) for name in ("new", "old")]
    for source in sources:
        imports.add_completions(project, source, [{"prompt_id": pk, "text": f"{source.name} {pk}"} for pk in prompts])
    trial = trials.start_trial(project, sources, share=100)
    assert trial.comparisons.count() == 4
    routing.save_rules(project, [(["medical"], ["doctors"])])
    assert leases.lease_next(ann) is None
    assert leases.lease_next(grouped(cole, "doctors")).comparison.trial_id == trial.pk


@pytest.mark.full
def test_work_is_found_behind_the_heads_of_all_routes(project, ann, cole, monkeypatch):
    monkeypatch.setattr("feedback.queue.claim.HEAD_SIZE", 1)
    monkeypatch.setattr("feedback.queue.claim.LOOK_SIZE", 1)
    wanted = {*tagged(project, 3, "a", wanted_rankings=2), *tagged(project, 3, "b", wanted_rankings=2)}
    tagged(project, 3, "c")
    routing.save_rules(project, [(["a", "b"], ["x"]), (["c"], ["y"])])
    assert everything(grouped(ann, "x")) == wanted
    assert everything(grouped(cole, "x")) == wanted
    assert claim.first_in_queue(grouped(cole, "x")) is None


@pytest.mark.full
def test_the_order_of_the_queue_holds_across_routes(project, ann):
    first, second = tagged(project, 1, "b", priority=2), tagged(project, 1, "a", priority=1)
    routing.save_rules(project, [(["a", "b"], ["x"])])
    plain = tagged(project, 1)
    grouped(ann, "x")
    assert [rank_next(ann).comparison_id for _ in range(3)] == [*first, *second, *plain]


def test_a_member_gets_no_more_than_their_limit_or_the_projects(project, ann, cole, work):
    work(8, wanted_rankings=3)
    project.total_limit = 3
    project.save()
    assert len(everything(ann)) == 3
    assert "3 rankings that you may make in this project" in reports.reason_for_nothing(ann)
    routing.change_work(project, cole.user_id, total_limit=0, share_limit=25)  # of 24
    cole.refresh_from_db()
    assert progress.counts(cole).remaining == 6
    assert leases.lease_next(cole)
    assert progress.counts(cole).remaining == 6  # that one included
    assert len(everything(cole)) == 6
    assert "25 % of this project" in reports.reason_for_nothing(cole)
    ranking_undo.undo_last(cole)
    assert leases.lease_next(cole)  # what was undone; and nothing more beside it
    assert (
        leases.lease_next(cole, beside=Lease.objects.filter(annotator=cole.user).values_list("pk", flat=True)) is None
    )


@pytest.mark.full
def test_a_daily_limit_begins_again_at_midnight(project, ann, work):
    work(4)
    routing.change_work(project, ann.user_id, daily_limit=2)
    ann.refresh_from_db()
    assert len(everything(ann)) == 2
    assert "after midnight" in reports.reason_for_nothing(ann)
    Ranking.objects.update(created_at=timezone.now() - timedelta(days=1))
    assert len(everything(ann)) == 2


@pytest.mark.full
def test_gold_counts_in_a_limit_like_real_work(project, ann, work):
    (gold,) = work(1)
    Comparison.objects.filter(pk=gold.pk).update(gold_ranks=[1, 2], wanted_rankings=100, open_slots=100)
    work(5)
    project.qualification_items, project.qualification_percent, project.total_limit = 1, 0, 3
    project.save()
    assert len(everything(ann)) == 3
    assert Ranking.objects.filter(annotator=ann.user, comparison=gold).count() == 1


def test_the_overview_says_what_nobody_can_rank_and_what_lacks_people(project, ann, cole):
    tagged(project, 12, "medical")
    tagged(project, 1, "legal", wanted_rankings=2)
    rank_next(ann)
    routing.save_rules(project, [(["medical"], ["doctors"]), (["legal", "lgeal"], ["lawyers"])])
    grouped(cole, "lawyers")
    overview = reports.overview(project)
    sentences = [waiting.sentence for waiting in overview.waiting]
    assert sentences[0] == "Comparisons tagged legal want 2 rankings, and only 1 may rank them (1 wait)."
    left = Comparison.objects.filter(route="medical", open_slots__gt=0).count()
    assert sentences[1] == f"{left} comparisons tagged medical have nobody: no member meets their rules."
    assert overview.ranked_before == 1
    assert overview.unknown_tags == ["lgeal"]
    assert overview.empty_groups == ["doctors"]
    assert overview.tags == [("medical", 12), ("legal", 1)]
    ann.refresh_from_db()
    assert "for members of other groups" in reports.reason_for_nothing(ann)


@pytest.mark.full
def test_rules_and_groups_are_checked(project, ann):
    for rules in ([([" "], ["x"])], [(["a"], [])], [(["a"] * 1, ["x" * 51])], [(["a"], ["x"])] * 101):
        with pytest.raises(Invalid):
            routing.save_rules(project, rules)
    routing.save_rules(project, [([" a  b ", "a b"], ["x", "y"])])
    assert project.routing_rules.get().tags == ["a b"]
    with pytest.raises(Invalid):
        routing.change_work(project, ann.user_id, groups=[str(n) for n in range(21)])
