"""Trials: started from stored completions, in a queue of their own, ended with a decision."""

from uuid import uuid4

import pytest
from django.contrib import admin
from django.db import IntegrityError, connection, transaction
from django.test import RequestFactory
from django.utils import timezone

from feedback import imports
from feedback.actions import members, projects, ranking_undo, rankings, trials
from feedback.errors import Conflict, Invalid
from feedback.models import Comparison, Completion, Lease, Project, Prompt, Skip, Source, Trial
from feedback.queue import blinding, claim, leases
from feedback.reports import progress
from tests.factories import add_work, rank_next
from training.checkpoints import promotions

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


def add_answers(project, count=6, names=("served", "candidate"), text="{source} answers {number}"):
    """Store one completion of each source on each of `count` new prompts; return the sources."""
    start = project.prompts.count()
    rows = [
        {
            "prompt": f"trial question {number}",
            "completions": [{"text": text.format(source=name, number=number), "source": name} for name in names],
        }
        for number in range(start, start + count)
    ]
    imports.add_prompts(project, rows)
    return [Source.objects.get(project=project, name=name) for name in names]


def split(project, held_out):
    """Make the first `held_out` prompts held out and all others training prompts."""
    ids = list(project.prompts.order_by("pk").values_list("pk", flat=True))
    project.prompts.filter(pk__in=ids[:held_out]).update(split=Prompt.Split.HELD_OUT)
    project.prompts.filter(pk__in=ids[held_out:]).update(split=Prompt.Split.TRAIN)


@pytest.fixture
def sources(project):
    found = add_answers(project)
    split(project, 2)
    return found


def test_a_trial_has_one_comparison_for_each_common_prompt(project, sources, manager):
    imports.add_prompts(project, [{"prompt": "more", "completions": [{"text": "alone", "source": "served"}]}])
    trial = trials.start_trial(project, sources, share=40, worthwhile_share=0.55, actor=manager)
    assert (trial.number, trial.share, trial.worthwhile_share, trial.started_by) == (1, 40, 0.55, manager)
    assert [row.source for row in trial.trial_sources.all()] == sources
    rows = list(trial.comparisons.select_related("prompt"))
    assert len(rows) == 6
    assert {(row.wanted_rankings, row.open_slots) for row in rows} == {(1, 1)}
    assert {row.priority for row in rows if row.prompt.split == "held_out"} == {1}
    assert {row.priority for row in rows if row.prompt.split == "train"} == {0}
    for row in rows:
        items = row.items.order_by("position").values_list("completion__source", flat=True)
        assert list(items) == [source.pk for source in sources]
    assert project.trial_percent == Project.objects.get().trial_percent == 40


def test_equal_texts_make_no_comparison_and_are_counted(project):
    served, candidate = add_answers(project, 3)
    add_answers(project, 2, text="the same {number} ")
    imports.import_completions(project, "served", [{"prompt_id": project.prompts.last().pk, "text": "the same 4"}])
    trial = trials.start_trial(project, [served, candidate])
    assert (trial.identical, trial.partly_identical, trial.comparisons.count()) == (2, 0, 3)


def test_a_prompt_on_which_some_of_three_sources_agree_is_left_out(project):
    names = ("served", "b", "c")
    sources = add_answers(project, 2, names)
    add_answers(project, 1, names, text="all write this")
    (prompt_id,) = imports.add_prompts(project, [{"prompt": "partly"}]).prompt_ids
    for source, text in zip(sources, ("one", "one", "other"), strict=True):
        imports.add_completions(project, source, [{"prompt_id": prompt_id, "text": text}])
    trial = trials.start_trial(project, sources)
    assert (trial.identical, trial.partly_identical, trial.comparisons.count()) == (1, 1, 2)
    assert set(trial.comparisons.values_list("size", flat=True)) == {3}


def test_a_limit_takes_held_out_prompts_first(project, sources):
    trial = trials.start_trial(project, sources, most_prompts=3)
    splits = sorted(trial.comparisons.values_list("prompt__split", flat=True))
    assert splits == ["held_out", "held_out", "train"]


def test_named_completions_alone_are_compared(project, sources):
    prompt = project.prompts.first()
    imports.add_completions(project, sources[1], [{"prompt_id": prompt.pk, "text": "a later answer"}])
    later = Completion.objects.get(text="a later answer")
    other = Completion.objects.get(prompt=prompt, source=sources[0])
    trial = trials.start_trial(project, sources, completions=[later.pk, other.pk])
    (comparison,) = trial.comparisons.all()
    assert set(comparison.completions.all()) == {later, other}


def test_a_completion_is_in_one_trial_only(project, sources, ann):
    first = trials.start_trial(project, sources)
    rank_next(ann)
    trials.end_trial(first, decision="undecided")
    again = trials.start_trial(project, sources)
    assert (again.number, again.comparisons.count()) == (2, 5)


def test_a_second_trial_waits_for_the_end_of_the_first(project, sources):
    trials.start_trial(project, sources)
    with pytest.raises(Conflict, match="Trial 1 is open"):
        trials.start_trial(project, sources)
    with pytest.raises(IntegrityError), transaction.atomic():
        Trial.objects.create(project=project, number=2)


def test_a_trial_needs_a_prompt_with_different_texts(project, sources):
    other = imports.get_source(project, "other", Source.Kind.IMPORT)
    with pytest.raises(Conflict, match="no prompt that all sources have answered"):
        trials.start_trial(project, [sources[0], other])
    same = add_answers(project, 2, ("x", "y"), text="the same {number}")
    with pytest.raises(Conflict, match="nothing to compare"):
        trials.start_trial(project, same)
    assert not Trial.objects.exists()


def test_an_archived_project_starts_no_trial(project, sources):
    Project.objects.update(archived_at=timezone.now())
    with pytest.raises(Conflict, match="archived"):
        trials.start_trial(project, sources)


def test_values_out_of_range_are_refused(project, sources):
    stranger = Source.objects.create(project=Project.objects.create(slug="o", name="O"), name="s", kind="import")
    for arguments, options in [
        (sources[:1], {}),
        ([sources[0], sources[0]], {}),
        ([sources[0], stranger], {}),
        (sources, {"share": 0}),
        (sources, {"share": 101}),
        (sources, {"worthwhile_share": 0.4}),
        (sources, {"worthwhile_share": 1.0}),
        (sources, {"most_prompts": 0}),
        (sources, {"completions": [10**9]}),
    ]:
        with pytest.raises(Invalid):
            trials.start_trial(project, arguments, **options)


def test_the_end_keeps_what_people_have_worked_on(project, sources, ann, cole, manager):
    trial = trials.start_trial(project, sources, share=100)
    ranked = rank_next(ann).comparison_id
    skipped = rankings.skip_comparison(ann, leases.lease_next(ann).pk).comparison_id
    held = leases.lease_next(ann)
    ended = trials.end_trial(trial, decision="better", chosen=sources[1], note="Clearly.", actor=manager)
    assert (ended.decision, ended.chosen, ended.decision_note, ended.ended_by) == (
        "better", sources[1], "Clearly.", manager
    )  # fmt: skip
    assert set(trial.comparisons.values_list("pk", flat=True)) == {ranked, skipped, held.comparison_id}
    assert Project.objects.get().trial_percent == 0
    # Nobody gets what is left, and no count mentions it.
    assert leases.lease_next(cole) is None
    assert progress.counts(cole).remaining == progress.inventory(project).open_comparisons == 0
    kept = rankings.record_ranking(ann, held.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0)
    assert kept.comparison_id == held.comparison_id


def test_gold_that_was_given_up_ends_with_the_trial_of_its_stand_in(project, sources, ann, monkeypatch):
    texts = [{"text": "right", "source": "gold"}, {"text": "wrong", "source": "gold"}]
    (ids,) = imports.add_prompts(project, [{"prompt": "gold", "completions": texts}], compare=False).completion_ids
    imports.add_gold(project, [{"completion_ids": ids, "ranks": [1, 2]}])
    Comparison.objects.filter(gold_ranks=None).delete()
    trial = trials.start_trial(project, sources, share=100)
    Project.objects.update(gold_percent=50)
    monkeypatch.setattr(blinding, "gold_before", lambda *known: 1)
    lease = leases.lease_next(ann)
    assert (lease.reason, lease.stand_in.trial) == ("gold", trial)
    leases.release(ann, lease.pk)
    assert progress.counts(members.membership_of(ann.user, "support")).remaining == 7
    trials.end_trial(trial, decision="undecided")
    assert leases.lease_next(ann) is None
    assert progress.counts(members.membership_of(ann.user, "support")).remaining == 0


def test_a_trial_ends_once_and_with_a_decision_of_its_own(project, sources):
    trial = trials.start_trial(project, sources)
    other = imports.get_source(project, "other", Source.Kind.IMPORT)
    for options in ({"decision": "open"}, {"decision": ""}, {"decision": "better", "chosen": other}):
        with pytest.raises(Invalid):
            trials.end_trial(trial, **options)
    trials.end_trial(trial, decision="futile")
    with pytest.raises(Conflict, match="has ended already"):
        trials.end_trial(Trial.objects.get(), decision="better")


def test_the_trial_has_its_share_of_the_work(project, sources, ann):
    project.trial_percent = 25
    draws = [blinding.is_trial_first(project, 7, of_trial, other) for of_trial in range(50) for other in range(80)]
    assert abs(sum(draws) / 4000 - 0.25) < 0.035  # five standard deviations
    project.trial_percent = 100
    assert all(blinding.is_trial_first(project, 7, of_trial, 3) for of_trial in range(50))


def test_held_out_prompts_come_first_and_each_queue_falls_back_to_the_other(project, sources, ann):
    trial = trials.start_trial(project, sources, share=100)
    Comparison.objects.filter(trial=None).delete()
    ordinary = [comparison.pk for comparison in add_work(project, 2)]
    order = [rank_next(ann).comparison for _ in range(8)]
    assert [comparison.trial_id for comparison in order] == [trial.pk] * 6 + [None] * 2
    assert [comparison.prompt.split for comparison in order[:2]] == ["held_out", "held_out"]
    assert {comparison.pk for comparison in order[6:]} == set(ordinary)


def test_the_draw_decides_which_queue_the_work_comes_of(project, sources, ann, monkeypatch):
    trials.start_trial(project, sources, share=50)
    Comparison.objects.filter(trial=None).delete()
    add_work(project, 6)
    drawn = [True, True, False, True, False, False, True, False]
    draws = iter(drawn)
    monkeypatch.setattr(blinding, "is_trial_first", lambda *known: next(draws))
    kinds = [rank_next(ann).comparison.trial_id is not None for _ in drawn]
    assert kinds == drawn


def test_work_that_is_given_back_comes_again_whichever_queue_it_is_of(project, sources, ann):
    """Give back each comparison once: if another one came, the annotator would learn that there are two queues."""
    trials.start_trial(project, sources, share=50, most_prompts=3)
    Comparison.objects.filter(trial=None).delete()
    add_work(project, 3)
    while lease := leases.lease_next(ann):
        assert claim.first_in_queue(ann) is not None or progress.counts(ann).remaining == 1
        leases.release(ann, lease.pk)
        again = leases.lease_next(ann)
        assert again.comparison_id == lease.comparison_id
        rankings.record_ranking(ann, again.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0)


@pytest.mark.full
def test_the_first_in_the_queue_is_the_one_that_is_claimed(project, sources, ann):
    trials.start_trial(project, sources, share=50)
    Comparison.objects.filter(trial=None).delete()
    add_work(project, 6)
    while first := claim.first_in_queue(members.membership_of(ann.user, "support")):
        assert rank_next(ann).comparison_id == first


def test_the_counts_contain_the_comparisons_of_an_open_trial(project, sources, ann):
    ordinary = Comparison.objects.count()
    trials.start_trial(project, sources)
    assert progress.counts(members.membership_of(ann.user, "support")).remaining == ordinary + 6
    assert progress.inventory(Project.objects.get()).open_comparisons == ordinary + 6


@pytest.mark.full
def test_an_author_does_not_get_their_own_completion_in_a_trial(project, sources, ann):
    Completion.objects.filter(source=sources[1]).update(author=ann.user)
    Comparison.objects.all().delete()
    trials.start_trial(project, sources, share=100)
    assert leases.lease_next(ann) is None


def test_a_skip_that_is_undone_after_the_end_gives_the_comparison_back(project, sources, ann):
    trial = trials.start_trial(project, sources, share=100)
    lease = leases.lease_next(ann)
    rankings.skip_comparison(ann, lease.pk)
    trials.end_trial(trial, decision="undecided")
    assert ranking_undo.undo_last(ann).comparison_id == lease.comparison_id
    assert not Skip.objects.exists()


@pytest.mark.full
def test_a_lapsed_lease_keeps_its_comparison_at_the_end(project, sources, ann):
    trial = trials.start_trial(project, sources, share=100)
    lease = leases.lease_next(ann)
    Lease.objects.update(lapsed_at=timezone.now())
    Comparison.objects.filter(pk=lease.comparison_id).update(open_slots=1)
    trials.end_trial(trial, decision="undecided")
    assert list(trial.comparisons.values_list("pk", flat=True)) == [lease.comparison_id]


def test_a_trial_asks_for_no_extra_ranking(project, sources, ann, cole):
    Project.objects.update(extra_rankings=3)
    trials.start_trial(project, sources, share=100)
    Comparison.objects.filter(trial__isnull=False).update(wanted_rankings=2, open_slots=2)
    first = rank_next(ann, [1, 2])
    order = blinding.display_order(project, first.comparison_id, cole.user_id, 2)
    opposite = [1, 2] if order != first.display_order else [2, 1]
    assert rank_next(cole, opposite).comparison_id == first.comparison_id
    first.comparison.refresh_from_db()
    assert (first.comparison.disagreement, first.comparison.extra_rankings) == (1.0, 0)


def test_a_promotion_leaves_the_order_of_a_trial(project, sources):
    trial = trials.start_trial(project, sources)
    before = dict(trial.comparisons.values_list("pk", "priority"))
    promotions.put_first(sources[1])
    assert dict(trial.comparisons.values_list("pk", "priority")) == before


def test_comparing_the_completions_of_a_trial_makes_an_ordinary_comparison(project, sources):
    Comparison.objects.all().delete()
    trial = trials.start_trial(project, sources)
    group = list(trial.comparisons.first().items.values_list("completion", flat=True))
    added = imports.add_comparisons(project, [group])
    assert Comparison.objects.get(pk=added.created[0]).trial is None


def test_saved_settings_do_not_end_the_share_of_a_trial(project, sources):
    read_before = Project.objects.get()
    trials.start_trial(project, sources)
    read_before.name = "New name"
    projects.save_settings(read_before)
    stored = Project.objects.get()
    assert (stored.name, stored.trial_percent) == ("New name", 25)


def test_a_project_is_deleted_with_its_trials(project, sources, ann):
    trial = trials.start_trial(project, sources, share=100)
    rank_next(ann)
    trials.end_trial(trial, decision="better", chosen=sources[1])
    project.delete()
    assert not Trial.objects.exists()


@pytest.mark.full
def test_the_admin_site_keeps_the_share_of_a_trial_that_has_just_started(project, sources):
    read_before = Project.objects.get()
    trials.start_trial(project, sources)
    site = admin.site._registry[Project]
    form = site.get_form(None, obj=read_before, change=True)
    values = form(instance=read_before).initial | {"name": "New name"}
    bound = form({name: value for name, value in values.items() if value is not None}, instance=read_before)
    site.save_model(RequestFactory().post("/"), bound.save(commit=False), bound, change=True)
    stored = Project.objects.get()
    assert (stored.name, stored.trial_percent) == ("New name", 25)


def test_the_database_keeps_trial_and_comparison_in_one_project(project, sources):
    trial = trials.start_trial(project, sources)
    elsewhere = Project.objects.create(slug="elsewhere", name="Elsewhere")
    (comparison,) = add_work(elsewhere, 1)
    with pytest.raises(IntegrityError, match="comparison_trial_in_project"), transaction.atomic():
        Comparison.objects.filter(pk=comparison.pk).update(trial=trial)
        connection.check_constraints()
    for changes in ({"ended_at": timezone.now()}, {"decision": "better"}, {"chosen": sources[0]}):
        with pytest.raises(IntegrityError, match="trial_ends_with_a_decision"), transaction.atomic():
            Trial.objects.filter(pk=trial.pk).update(**changes)
