"""The round's state machine."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from feedback import imports
from feedback.errors import Conflict, Invalid
from feedback.models import Project, Ranking
from tests.factories import add_comparisons, rank
from training import reports
from training.models import LoopSettings, Metric, Round
from training.rounds import lifecycle
from training.rounds.schedule import configure, is_due, start_due
from training.rounds.start import check_can_start, start_round, start_sampling


def read(round_id):
    return Round.objects.get(pk=round_id)


def test_a_round_rewarded_by_a_metric_alone_needs_references_and_no_rankings(project, base, comparisons):
    metric = {"ppo": {"rewards": [{"name": "token_f1"}, {"name": "length", "target": 9}]}}
    with pytest.raises(Invalid, match='No training prompt has reference answers, which the reward term "token_f1"'):
        start_round(project, None, metric)
    with pytest.raises(Invalid, match="no rankings to learn from"):
        start_round(project, None)
    project.prompts.update(references=["Soon."])
    configure(project, None, metric)
    check_can_start(project)
    started = start_round(project, None)
    assert (started.learns, started.learns_from_rankings, started.ranking_count) == (True, False, 0)


def test_flagged_rankings_alone_start_no_round(project, base, rankings):
    Ranking.objects.update(flags=["personal data"])
    with pytest.raises(Invalid, match="So far every ranking has a flag that means"):
        start_round(project, None)
    assert not is_due(configure(project, 1))


def test_samples_are_scored_by_the_rewards_of_the_policy_only(project, base, rankings):
    with pytest.raises(Invalid, match="scores its samples by the rewards of its policy"):
        start_round(project, None, {"sample": {"rewards": [{"name": "length", "target": 9}]}})


def test_a_round_learns_from_every_ranking_there_is(waiting, base, manager):
    assert (waiting.number, waiting.status, waiting.stage) == (1, "waiting", "snapshot")
    assert (waiting.ranking_count, waiting.cutoff) == (6, 6)
    assert (waiting.base, waiting.started_by, waiting.learns) == (base, manager, True)
    assert waiting.settings["ppo"]["seed"] == 1


def test_a_ranking_after_the_start_is_left_to_the_next_round(waiting, project, annotator):
    rank(project, annotator, 2)
    claim = lifecycle.claim(waiting.pk, "gpu-1:100")
    lifecycle.fail(claim, "It broke.")
    assert start_round(project, None).cutoff == 8
    assert read(waiting.pk).cutoff == 6


def test_a_revised_ranking_counts_once(project, base, rankings, annotator):
    from uuid import uuid4

    from feedback.actions import members
    from feedback.actions.rankings import revise_ranking

    first = Ranking.objects.first()
    membership = members.membership_of(annotator, project.slug)
    revise_ranking(membership, first.pk, [2, 1, 1], idempotency_key=uuid4(), seconds=1.0)
    started = start_round(project, None)
    assert (started.ranking_count, started.cutoff) == (6, 7)


def test_no_round_starts_without_rankings(project, base, comparisons):
    with pytest.raises(Invalid, match="no rankings"):
        start_round(project, None)


def test_rounds_do_not_learn_from_gold(project, base, comparisons, annotator):
    """Exports leave gold out, so no round counts it, waits for it or starts because of it."""
    prompts = imports.add_prompts(
        project, [{"prompt": f"gold {n}", "completions": ["good", "bad", "?"]} for n in (1, 2)]
    )
    imports.add_gold(project, [{"completion_ids": ids, "ranks": [1, 2, 2]} for ids in prompts.completion_ids])
    LoopSettings.objects.create(project=project, round_every=2)
    Project.objects.filter(pk=project.pk).update(qualification_items=2, qualification_percent=0)
    rank(project, annotator, 2)
    assert start_due() == []
    with pytest.raises(Invalid, match="no rankings"):
        start_round(project, None)
    loop = reports.loop_of(project)
    assert (loop.ranking_count, loop.new_rankings, loop.open_comparisons) == (0, 0, len(comparisons))

    rank(project, annotator, 2)
    (started,) = start_due()
    assert started.ranking_count == 2


def test_no_round_starts_without_a_served_checkpoint(project, rankings):
    with pytest.raises(Conflict, match="No checkpoint is served"):
        start_round(project, None)


def test_no_round_starts_while_another_is_active(waiting, project):
    with pytest.raises(Conflict, match="Round 1 is still waiting"):
        start_round(project, None)
    assert Round.objects.count() == 1


def test_the_database_holds_one_active_round_a_project(waiting, project):
    with pytest.raises(IntegrityError), transaction.atomic():
        Round.objects.create(project=project, number=9, base=waiting.base, cutoff=0, ranking_count=0)


def test_an_unknown_setting_starts_nothing(project, base, rankings):
    with pytest.raises(Invalid, match="'stepz'"):
        start_round(project, None, {"ppo": {"stepz": 3}})
    assert not Round.objects.exists()


def test_a_setting_that_the_database_cannot_keep_starts_nothing(project, base, rankings):
    with pytest.raises(Invalid, match="NUL"):
        start_round(project, None, {"ppo": {"rewards": [{"name": "reward_model", "note": "a\0b"}]}})


def test_settings_of_the_start_override_those_of_the_project(project, base, rankings):
    LoopSettings.objects.create(project=project, settings={"ppo": {"steps": 7, "epochs": 2}})
    settings = start_round(project, None, {"ppo": {"steps": 9}}).settings
    assert (settings["ppo"]["steps"], settings["ppo"]["epochs"]) == (9, 2)


def test_a_projects_first_sampling_is_round_0(project, base, comparisons):
    sampling = start_sampling(project, None)
    assert (sampling.number, sampling.learns, sampling.ranking_count) == (0, False, 0)
    lifecycle.request_cancel(sampling)
    assert start_sampling(project, None).number == 1


def test_sampling_needs_prompts(project, base):
    with pytest.raises(Invalid, match="no prompts"):
        start_sampling(project, None)


def test_one_worker_wins_a_round_that_is_delivered_twice(waiting):
    first = lifecycle.claim(waiting.pk, "gpu-1:100")
    second = lifecycle.claim(waiting.pk, "gpu-2:200")
    assert first == lifecycle.Claim(waiting.pk, attempt=1)
    assert second is None
    assert read(waiting.pk).worker == "gpu-1:100"


def test_a_message_for_a_round_that_ended_or_never_was_does_nothing(claim):
    lifecycle.fail(claim, "It broke.")
    assert lifecycle.claim(claim.round_id, "gpu-2:200") is None
    assert lifecycle.claim(10**9, "gpu-2:200") is None


def test_a_worker_that_lost_its_claim_can_write_nothing(claim):
    lifecycle.fail(claim, "It broke.")
    lifecycle.resume(read(claim.round_id))
    second = lifecycle.claim(claim.round_id, "gpu-2:200")
    lifecycle.fail(claim, "A late sentence of the first worker.")
    lifecycle.cancel(claim)
    lifecycle.release(claim)
    with pytest.raises(lifecycle.ClaimLost):
        lifecycle.beat(claim)
    with pytest.raises(lifecycle.ClaimLost):
        lifecycle.set_stage(claim, "policy")
    with pytest.raises(lifecycle.ClaimLost):
        lifecycle.store_result(claim, "reward", {})
    found = read(claim.round_id)
    assert (found.status, found.attempt, found.worker, found.error) == ("running", second.attempt, "gpu-2:200", "")


def test_cancelling_a_waiting_round_ends_it_at_once(waiting):
    assert lifecycle.request_cancel(waiting).status == "cancelled"
    assert lifecycle.claim(waiting.pk, "gpu-1:100") is None


def test_cancelling_a_running_round_asks_its_worker(claim):
    assert lifecycle.beat(claim) is False
    asked = lifecycle.request_cancel(read(claim.round_id))
    first = asked.cancel_requested_at
    assert asked.status == "running"
    assert lifecycle.beat(claim) is True
    assert lifecycle.request_cancel(read(claim.round_id)).cancel_requested_at == first  # a second click changes nothing
    lifecycle.cancel(claim)
    assert read(claim.round_id).status == "cancelled"


def test_a_round_that_ended_cannot_be_cancelled(claim):
    lifecycle.fail(claim, "It broke.")
    with pytest.raises(Conflict, match="already ended"):
        lifecycle.request_cancel(read(claim.round_id))


def test_resuming_clears_the_request_to_cancel(claim):
    lifecycle.request_cancel(read(claim.round_id))
    lifecycle.cancel(claim)
    resumed = lifecycle.resume(read(claim.round_id))
    assert (resumed.status, resumed.cancel_requested_at, resumed.finished_at) == ("waiting", None, None)
    second = lifecycle.claim(claim.round_id, "gpu-1:100")
    assert second.attempt == 2
    assert lifecycle.beat(second) is False


def test_only_an_ended_round_resumes(waiting):
    with pytest.raises(Conflict, match="is waiting"):
        lifecycle.resume(waiting)


def test_a_round_does_not_resume_beside_another(claim, project):
    lifecycle.fail(claim, "It broke.")
    start_round(project, None)
    with pytest.raises(Conflict, match="Another round"):
        lifecycle.resume(read(claim.round_id))


def test_a_round_given_back_waits_for_the_next_worker(claim):
    lifecycle.release(claim)
    found = read(claim.round_id)
    assert (found.status, found.worker) == ("waiting", "")
    assert lifecycle.claim(claim.round_id, "gpu-2:200").attempt == 2


def test_a_failure_keeps_a_sentence_and_the_end_of_the_log(claim):
    lifecycle.fail(claim, "The ppo program failed: no memory", "step 1\n\0step 2")
    found = read(claim.round_id)
    assert (found.status, found.error) == ("failed", "The ppo program failed: no memory")
    assert found.log_tail == "step 1\nstep 2"
    assert found.finished_at is not None


def age_heartbeat(claim, seconds):
    Round.objects.filter(pk=claim.round_id).update(heartbeat_at=timezone.now() - timedelta(seconds=seconds))


def test_a_worker_that_is_silent_for_half_a_minute_is_lost(claim):
    age_heartbeat(claim, 29)
    assert lifecycle.sweep_lost() == 0
    age_heartbeat(claim, 31)
    assert lifecycle.sweep_lost() == 1
    found = read(claim.round_id)
    assert found.status == "failed"
    assert "heartbeat stopped" in found.error
    assert lifecycle.sweep_lost() == 0


def test_a_heartbeat_keeps_a_round(claim):
    age_heartbeat(claim, 31)
    lifecycle.beat(claim)
    assert lifecycle.sweep_lost() == 0


@pytest.mark.slow
def test_a_lost_round_that_was_to_be_cancelled_is_cancelled(claim):
    lifecycle.request_cancel(read(claim.round_id))
    age_heartbeat(claim, 31)
    lifecycle.sweep_lost()
    assert read(claim.round_id).status == "cancelled"


def lines(*steps):
    return [{"step": step, "total": 9, "kl": float(step)} for step in steps]


def test_metrics_are_kept_once(claim):
    lifecycle.record_metrics(claim, "policy", lines(1, 2), from_start=True)
    lifecycle.record_metrics(claim, "policy", lines(2, 3), from_start=False)
    kept = list(Metric.objects.values_list("job", "step", "values"))
    assert kept == [("policy", step, {"total": 9, "kl": float(step)}) for step in (1, 2, 3)]


def test_steps_after_the_resumed_state_are_deleted_from_the_metrics(claim):
    lifecycle.record_metrics(claim, "reward", lines(5), from_start=True)
    lifecycle.record_metrics(claim, "policy", lines(1, 2, 3), from_start=True)
    lifecycle.record_metrics(claim, "policy", lines(1, 2), from_start=True)
    assert list(Metric.objects.values_list("job", "step")) == [("policy", 1), ("policy", 2), ("reward", 5)]


@pytest.fixture
def sent(monkeypatch):
    """The messages that were sent to the workers."""
    asked = []
    monkeypatch.setattr(lifecycle.current_app, "send_task", lambda name, arguments: asked.append((name, *arguments)))
    return asked


def test_the_message_to_the_workers_is_sent_when_the_round_is_committed(
    project, base, rankings, sent, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks() as callbacks:
        started = start_round(project, None)
        assert sent == []
    for callback in callbacks:
        callback()
    assert sent == [("training.tasks.run_round", started.pk)]
    assert read(started.pk).queued_at is not None


def test_a_lost_message_is_sent_again(waiting, sent, django_capture_on_commit_callbacks):
    def send_waiting():
        with django_capture_on_commit_callbacks(execute=True):
            return lifecycle.send_waiting()

    assert send_waiting() == 1  # the first was never sent: the broker was away
    assert send_waiting() == 0
    Round.objects.update(queued_at=timezone.now() - timedelta(minutes=6))
    assert send_waiting() == 1
    assert len(sent) == 2
    lifecycle.claim(waiting.pk, "gpu-1:100")
    Round.objects.update(queued_at=timezone.now() - timedelta(minutes=6))
    assert send_waiting() == 0


def test_a_round_starts_although_the_broker_cannot_be_reached(
    project, base, rankings, monkeypatch, django_capture_on_commit_callbacks
):
    def refuse(*arguments):
        raise ConnectionError("no broker")

    monkeypatch.setattr(lifecycle.current_app, "send_task", refuse)
    started = start_round(project, None)
    assert read(started.pk).status == "waiting"


def test_a_round_starts_automatically_after_enough_new_rankings(project, base, rankings, annotator):
    LoopSettings.objects.create(project=project, round_every=7)
    assert start_due() == []
    rank(project, annotator, 1)
    (started,) = start_due()
    assert (started.ranking_count, started.started_by) == (7, None)
    assert start_due() == []  # it is active now
    lifecycle.fail(lifecycle.claim(started.pk, "gpu-1:100"), "It broke.")
    assert start_due() == []  # and its rankings are not new any more


def test_no_round_starts_automatically_without_a_schedule(project, base, rankings):
    LoopSettings.objects.create(project=project)
    assert start_due() == []


def test_a_loop_that_cannot_start_does_not_hold_up_the_others(project, base, rankings, stranger, annotator):
    from feedback.models import Project

    other = Project.objects.get(slug="other")
    add_comparisons(other, "import", 3)
    rank(other, stranger, 3)
    LoopSettings.objects.create(project=other, round_every=1)  # nothing is served there
    LoopSettings.objects.create(project=project, round_every=1)
    assert [started.project for started in start_due()] == [project]


def test_only_settings_that_a_round_could_use_can_be_stored_for_the_loop(project):
    configure(project, 500, {"ppo": {"steps": 7}})
    configure(project, None)
    loop = LoopSettings.objects.get(project=project)
    assert (loop.round_every, loop.settings) == (None, {"ppo": {"steps": 7}})
    with pytest.raises(Invalid, match="'stepz'"):
        configure(project, 500, {"ppo": {"stepz": 7}})
    with pytest.raises(Invalid, match="1 or more new rankings"):
        configure(project, 0)
    loop.refresh_from_db()
    assert loop.round_every is None


def test_a_project_can_be_deleted_with_all_that_it_learned(claim, project, base):
    lifecycle.record_metrics(claim, "policy", lines(1), from_start=True)
    project.delete()
    assert not Round.objects.exists()
