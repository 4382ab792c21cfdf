"""Workers, what they run and what waits for them, for the pages and the API."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback.models import Project
from training.checkpoints import checks
from training.models import Checkpoint, Round, Worker
from training.rounds.recipes.description import Text
from training.rounds.recipes.parts import SNAPSHOT
from training.workers import rows
from training.workers.heartbeat import GPU_QUEUE

DEFAULT_QUEUE = "default"
MAX_ENDED_LISTED = 10  # workers that stopped or died: one that ends again and again would fill the page


@dataclass(frozen=True)
class Work:
    """Round or check that a worker has claimed."""

    round: Round | None
    checkpoint: Checkpoint | None  # that it checks
    is_visible: bool  # False: of a project that the reader does not manage; only its kind may be shown

    @property
    def kind(self) -> str:
        return "round" if self.round else "check"

    @property
    def stage_label(self) -> Text:
        """Return the stage that the round has reached; "" for a check."""
        if self.round is None:
            return ""
        stages = [SNAPSHOT, *(job.stage for job in self.round.jobs), self.round.last_stage]
        return next((stage.label for stage in stages if stage.name == self.round.stage), "")


@dataclass(frozen=True)
class WorkerState:
    """A worker, whether it is live, and what it runs."""

    worker: Worker
    state: str  # live, dead (its heartbeat stopped) or stopped
    work: list[Work]

    @property
    def serves_gpu(self) -> bool:
        return GPU_QUEUE in self.worker.queues


@dataclass(frozen=True)
class Queue:
    """A queue, by the rows of rounds and checks: what waits and runs on the whole site."""

    name: str
    live_workers: int
    waiting_rounds: int
    waiting_checks: int
    running_rounds: int
    running_checks: int


@dataclass(frozen=True)
class Machines:
    """Contents of the page Machines."""

    workers: list[WorkerState]  # live ones first, then the last ones that ended
    queues: list[Queue]
    warnings: list[str]
    as_of: datetime


def machines_of(project: Project) -> Machines:
    """Return all workers of the site, with the names of this project's rounds and checks only."""
    return _machines(project)


def machines() -> Machines:
    """Return all workers of the site with everything that they run, for administrators."""
    return _machines(None)


def gpu_hint(project: Project) -> str:
    """Return why the project's waiting round or check does not begin, and what to do; "" if a worker is free for it."""
    unclaimed = _unclaimed_checks().filter(project=project)
    if not (project.rounds.filter(status=Round.Status.WAITING).exists() or unclaimed.exists()):
        return ""
    return _gpu_sentence(rows.live(GPU_QUEUE).count(), _claimed_work())


def _machines(project: Project | None) -> Machines:
    work = _work(project)
    states = [_state_of(worker, work) for worker in rows.with_liveness()]
    live = [state for state in states if state.state == "live"]
    ended = [state for state in states if state.state != "live"]
    live.sort(key=lambda state: (not state.serves_gpu, state.worker.address))
    ended.sort(key=lambda state: state.worker.heartbeat_at, reverse=True)
    queues = _queues(live, work)
    return Machines(live + ended[:MAX_ENDED_LISTED], queues, _warnings(queues, live), timezone.now())


def _work(project: Project | None) -> dict[str, list[Work]]:
    """Return running rounds and checks by the address of their worker."""
    work: dict[str, list[Work]] = defaultdict(list)
    rounds = Round.objects.filter(status=Round.Status.RUNNING).select_related("project")
    for round_ in rounds.order_by("pk"):
        work[round_.worker].append(Work(round_, None, project is None or round_.project_id == project.pk))
    for checkpoint in _claimed_checks().select_related("project", "source").order_by("pk"):
        is_visible = project is None or checkpoint.project_id == project.pk
        work[checkpoint.check_worker].append(Work(None, checkpoint, is_visible))
    return work


def _state_of(worker: Any, work: dict[str, list[Work]]) -> WorkerState:
    if worker.stopped_at is not None:
        return WorkerState(worker, "stopped", [])
    return WorkerState(worker, "live" if worker.is_live else "dead", work.get(worker.address, []))


def _queues(live: list[WorkerState], work: dict[str, list[Work]]) -> list[Queue]:
    def workers_of(queue: str) -> int:
        return sum(queue in state.worker.queues for state in live)

    kinds = [one.kind for claimed in work.values() for one in claimed]
    gpu = Queue(
        name=GPU_QUEUE,
        live_workers=workers_of(GPU_QUEUE),
        waiting_rounds=Round.objects.filter(status=Round.Status.WAITING).count(),
        waiting_checks=_unclaimed_checks().count(),
        running_rounds=kinds.count("round"),
        running_checks=kinds.count("check"),
    )
    return [gpu, Queue(DEFAULT_QUEUE, workers_of(DEFAULT_QUEUE), 0, 0, 0, 0)]


def _warnings(queues: list[Queue], live: list[WorkerState]) -> list[str]:
    gpu, default = queues
    sentences = []
    if gpu.waiting_rounds or gpu.waiting_checks:
        sentences.append(_gpu_sentence(gpu.live_workers, gpu.running_rounds + gpu.running_checks))
    if not default.live_workers:
        sentences.append(
            _(
                "No live worker serves the queue default: no round starts automatically, and a lost round or check is "
                'not noticed. Start one with "python3 manage.py up --only default,beat".'
            )
        )
    versions = sorted({state.worker.version for state in live if state.worker.version})
    if len(versions) > 1:
        sentences.append(
            _("The workers run different versions of the code (%(versions)s): restart those with the older one.")
            % {"versions": ", ".join(versions)}
        )
    return [sentence for sentence in sentences if sentence]


def _gpu_sentence(live_workers: int, claimed: int) -> str:
    """Return why work that waits for the queue gpu does not begin; "" if a worker is free."""
    if not live_workers:
        return _(
            "No live worker serves the queue gpu, so the waiting round or model check cannot begin: start one with "
            '"python3 manage.py up --only gpu".'
        )
    if claimed >= live_workers:
        return _("Every worker of the queue gpu is busy: the waiting round or model check begins when one is free.")
    return ""


def _claimed_work() -> int:
    return Round.objects.filter(status=Round.Status.RUNNING).count() + _claimed_checks().count()


def _claimed_checks() -> Any:
    return checks.waiting().filter(check_heartbeat_at__gte=Now() - checks.LOST_AFTER)


def _unclaimed_checks() -> Any:
    is_unclaimed = Q(check_heartbeat_at__isnull=True) | Q(check_heartbeat_at__lt=Now() - checks.LOST_AFTER)
    return checks.waiting().filter(is_unclaimed)
