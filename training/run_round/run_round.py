"""Run of a round: claim it, run its programs one after the other, write the results."""

import logging
import time
from contextlib import suppress
from pathlib import Path

from django.utils.translation import gettext_noop as in_english

from feedback.errors import AccordError
from training.checkpoints import disk
from training.learner.runtime.jobdir import SAMPLES_AT_STEPS, JobDirectory
from training.models import Checkpoint, Round
from training.reward_reports import record as reward_reports
from training.rounds import lifecycle, measured_samples, results, samples_at_steps
from training.rounds.estimates import DURATIONS
from training.rounds.recipes.description import ENDPOINT, Job
from training.rounds.recipes.parts import SNAPSHOT
from training.run_round import endpoint_job, jobs, process
from training.run_round.heartbeat import Heartbeat, shutting_down
from training.run_round.lines import LinesTail
from training.run_round.log import LogTail
from training.workers.machine import this_worker

logger = logging.getLogger(__name__)


def run(round_id: int, worker: str = "") -> None:
    """Run a waiting round to its end in this process; do nothing if it cannot be claimed.

    The round's status shows how it ended. Only unexpected errors are raised, after the round is marked as failed.
    """
    claim = lifecycle.claim(round_id, worker or this_worker())
    if claim is None:
        return
    with Heartbeat(claim) as heartbeat:
        try:
            finish(claim, run_programs(claim, heartbeat))
        except (process.ProgramStopped, lifecycle.Cancelled):
            settle_stop(claim, heartbeat)
        except process.ProgramFailed as failure:
            lifecycle.fail(claim, str(failure), failure.log_tail)
        except AccordError as refusal:  # what the round needs is not there any more, or another trial is open
            lifecycle.fail(claim, refusal.message)
        except lifecycle.ClaimLost:
            logger.warning("round %s has ended or belongs to another worker", round_id)
        except (KeyboardInterrupt, SystemExit):
            lifecycle.release(claim)  # this process ends: the next worker resumes the round
            raise
        except Exception as error:
            lifecycle.fail(claim, f"The worker failed with an unexpected error ({error or type(error).__name__}).")
            raise


def run_programs(claim: lifecycle.Claim, heartbeat: Heartbeat) -> Round:
    """Run all programs of the round that have no result yet. Raise as `process.run` does, or ClaimLost."""
    round_ = Round.objects.select_related("project", "base").get(pk=claim.round_id)
    lifecycle.set_stage(claim, SNAPSHOT.name)
    snapshot: dict[str, int] = {}
    durations: dict[str, float] = round_.results.get(DURATIONS, {})  # of earlier attempts
    for job in round_.jobs:
        directory = jobs.fill(round_, job)
        if (counts := jobs.snapshot_of(directory)) is not None:
            snapshot |= counts
            lifecycle.store_result(claim, "snapshot", snapshot)
        lifecycle.set_stage(claim, job.stage.name)
        begun = time.monotonic()
        try:
            run_program(claim, heartbeat, round_, job, directory)
        finally:
            durations[job.name] = durations.get(job.name, 0.0) + round(time.monotonic() - begun, 3)
            with suppress(lifecycle.ClaimLost):  # then another worker has the round, which is known already
                lifecycle.store_result(claim, DURATIONS, durations)
    return round_


def run_program(claim: lifecycle.Claim, heartbeat: Heartbeat, round_: Round, job: Job, directory: Path) -> None:
    """Run one program, or let an endpoint write, to its end, and store its metrics and its result."""
    project, processes = round_.project, round_.settings["round"]["processes"]
    tail = LinesTail(
        directory / "metrics.jsonl",
        lambda lines, from_start: lifecycle.record_metrics(claim, job.name, lines, from_start),
    )

    samples = LinesTail(
        directory / SAMPLES_AT_STEPS,
        lambda lines, from_start: samples_at_steps.record(claim, job.name, lines, from_start),
    )
    log = LogTail(directory / "log.txt", lambda text: setattr(heartbeat, "log_tail", text))

    def watch() -> bool:
        tail.follow()
        samples.follow()
        log.follow()
        return heartbeat.should_stop

    def grace() -> float:
        """Return the time of one step after a cancel: otherwise all steps since the last saved state would be lost."""
        return process.grace_for_step(directory) if heartbeat.is_cancelled else process.GRACE

    try:
        if JobDirectory(directory, is_writer=False).result() is None:
            if job.program == ENDPOINT:
                endpoint_job.run(project, directory, watch)
            else:
                process.run(job.program, directory, processes, watch, grace)
    finally:
        tail.read()
        samples.read()
    result = JobDirectory(directory, is_writer=False).result()
    assert result is not None, "process.run raises without a result"
    lifecycle.store_result(claim, job.name, result)
    measured_samples.record(claim, job.name, directory)
    if job.program == "reward":
        reward_reports.record(claim, directory)
    if heartbeat.should_stop:
        raise process.ProgramStopped


def finish(claim: lifecycle.Claim, round_: Round) -> None:
    lifecycle.set_stage(claim, round_.last_stage.name)
    directory = jobs.directory_of(round_)
    lifecycle.finish(claim, results.Outcome.read(round_, directory))
    jobs.drop_states(round_)
    jobs.drop_critics(round_)
    made = Checkpoint.objects.filter(round=round_.pk).first()
    if made is not None:
        disk.measure(made)


def settle_stop(claim: lifecycle.Claim, heartbeat: Heartbeat) -> None:
    """Set the state of a round whose program was stopped, by the reason of the stop."""
    if heartbeat.is_cancelled:
        lifecycle.cancel(claim)
    elif shutting_down.is_set():
        lifecycle.release(claim)
    elif not heartbeat.is_lost:
        lifecycle.fail(
            claim,
            in_english("The program was stopped from outside. Resume the round to continue from its saved state."),
        )
