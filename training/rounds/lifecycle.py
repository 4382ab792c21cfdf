"""The round's state machine, and its only writer.

    waiting ──claim──► running ──finish──► finished
       ▲                  │ ├──fail, or the worker is lost──► failed ────┐
       │                  │ └──cancel──► cancelled ──────────────────────┤
       └──release─────────┴────────────────────◄──resume─────────────────┘

A worker's writes carry its `Claim`: the round and the attempt that it won. When the round has since been given to
somebody else, or was ended, they change nothing and say so. The database's clock alone is used, because workers on
other hosts have their own.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from celery import current_app
from django.db import IntegrityError, transaction
from django.db.models import F, Max, Q, QuerySet
from django.db.models.functions import Coalesce, Now
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop as in_english

from feedback.actions.ranking_details import WITHOUT_PROJECT_FLAGS
from feedback.errors import Conflict, Invalid
from feedback.export import ranking_record
from feedback.models import Project, Prompt, Ranking, User
from training import checkpoints
from training.checkpoint_files import positions_of
from training.models import Checkpoint, LoopSettings, Metric, Round
from training.rounds import results
from training.rounds import settings as round_settings

logger = logging.getLogger(__name__)

RUN_ROUND = "training.tasks.run_round"
HEARTBEAT_EVERY = 2.0  # seconds
LOST_AFTER = timedelta(seconds=30)  # without a heartbeat
SEND_AGAIN_AFTER = timedelta(minutes=5)  # of waiting: a message can be lost, and a spare one does no harm

# Members of TextChoices are texts, which a type checker cannot see where they have a label.
Status: Any = Round.Status
Stage: Any = Round.Stage


@dataclass(frozen=True)
class Claim:
    """A worker's right to write a round."""

    round_id: int
    attempt: int

    @property
    def rows(self) -> Any:
        """The round, as long as this claim holds."""
        return Round.objects.filter(pk=self.round_id, attempt=self.attempt, status=Status.RUNNING)


class ClaimLost(Exception):
    """The round went on without this worker: it was swept as lost, or ended."""


def start(project: Project, actor: User | None, overrides: round_settings.Sections | None = None) -> Round:
    """A new round that learns from every ranking there is now (or from a metric alone), waiting for a worker.

    Raises Conflict while another round is active or nothing is served, Invalid when there is nothing to learn from or
    a setting cannot be used.
    """
    return _create(project, actor, overrides, learns=True)


def start_sampling(
    project: Project,
    actor: User | None,
    overrides: round_settings.Sections | None = None,
    checkpoint: Checkpoint | None = None,
) -> Round:
    """A round that learns nothing: the checkpoint (or the served one) writes completions to be ranked.

    A project's very first round is of this kind and has the number 0. Raises as `start` does, and Invalid when there
    are no prompts.
    """
    return _create(project, actor, overrides, base=checkpoint, learns=False)


def check_can_start(project: Project, learns: bool = True) -> None:
    """Raises the refusal that a start with the project's own settings would meet now."""
    _check_is_free(project)
    _check_lessons(project, settings_now(project) if learns else None)


def _check_is_free(project: Project, base: Checkpoint | None = None) -> None:
    """Raises Conflict where no round can start from this base (None: what is served), whatever it does."""
    if project.archived_at is not None:
        raise Conflict(_("This project is archived: no new round can start in it."))
    if active := project.rounds.filter(status__in=Round.ACTIVE).first():
        raise Conflict(
            _("Round %(number)s is still %(status)s: wait for its end, or cancel it first.")
            % {"number": active.number, "status": active.status}
        )
    served = checkpoints.served(project)
    checkpoints.check_usable(base or served)


def _check_lessons(project: Project, settings: round_settings.Sections | None) -> None:
    """Raises Invalid where there is nothing to learn from by these settings, if any, or nothing to answer."""
    prompts = Prompt.objects.filter(project=project)
    if settings and round_settings.uses_reward_model(settings["ppo"]) and not learnable(project).exists():
        if _counting(project).exists():
            raise Invalid(_("Every ranking has a flag so far, and rounds do not learn from rankings with flags."))
        raise Invalid(_("There are no rankings to learn from yet: rank some comparisons first."))
    if not prompts.exists():
        raise Invalid(_("There are no prompts to answer yet: add some first."))
    terms = round_settings.comparing_terms(settings["ppo"]) if settings else []
    if terms and not prompts.filter(split=Prompt.Split.TRAIN).exclude(references=[]).exists():
        raise Invalid(
            _("No training prompt has reference answers, which the reward term %(term)s needs: add some.")
            % {"term": terms[0]}
        )


def _create(
    project: Project,
    actor: User | None,
    overrides: round_settings.Sections | None,
    *,
    learns: bool,
    base: Checkpoint | None = None,
) -> Round:
    cutoff = ranking_record.sequence_cutoff(project)
    with transaction.atomic():
        Project.objects.select_for_update(no_key=True).get(pk=project.pk)  # two starts at once take turns
        _check_is_free(project, base)
        last = project.rounds.aggregate(last=Max("number"))["last"]
        number = (1 if learns else 0) if last is None else last + 1
        base = base or checkpoints.served(project)
        sections = (_defaults(project), of_project(project), overrides or {})
        settings = round_settings.resolve(*sections, seed=number, positions=positions_of(base.path))
        _check_lessons(project, settings if learns else None)
        counted = ranking_record.counting(project, cutoff).filter(WITHOUT_PROJECT_FLAGS)
        learns_from_rankings = learns and round_settings.uses_reward_model(settings["ppo"])
        created = Round.objects.create(
            project=project,
            number=number,
            learns=learns,
            base=base,
            started_by=actor,
            settings=settings,
            cutoff=cutoff,
            ranking_count=counted.count() if learns_from_rankings else 0,
        )
        send(created.pk)
    return created


def learnable(project: Project) -> QuerySet[Ranking]:
    """Return what a round could learn from by now.

    Not gold, which tests people, nor what reviewers have taken out, nor rankings with a flag of the project's own.
    """
    return _counting(project).filter(WITHOUT_PROJECT_FLAGS)


def _counting(project: Project) -> QuerySet[Ranking]:
    return Ranking.objects.counting_in(project).filter(comparison__gold_ranks__isnull=True)


def of_project(project: Project) -> round_settings.Sections:
    """The settings that the project's rounds have unless somebody says otherwise."""
    loop = LoopSettings.objects.filter(project=project).first()
    return loop.settings if loop else {}


def settings_now(project: Project) -> round_settings.Sections:
    """Return the whole settings of a round that would start now. Raises Invalid if the project's own are unusable."""
    served = project.checkpoints.filter(is_served=True).first()
    positions = positions_of(served.path) if served else None
    return round_settings.resolve(_defaults(project), of_project(project), seed=0, positions=positions)


def settings_again(earlier: Round) -> round_settings.Sections:
    """Return the settings of an earlier round for another try, which draws anew: without its seeds."""
    sections = {section: dict(values) for section, values in earlier.settings.items()}
    for values in sections.values():
        if values.get("seed") == earlier.number:
            del values["seed"]
    return sections


def _defaults(project: Project) -> round_settings.Sections:
    return {"round": {"weights": project.ranking_weights}}


def configure(
    project: Project, round_every: int | None, settings: round_settings.Sections | None = None
) -> LoopSettings:
    """Set after how many new rankings a round starts by itself (None: never), and what its settings differ in.

    `settings` left out stay as they are. Raises Invalid for what no round could be started with.
    """
    if round_every is not None and not 1 <= round_every < 2**31:
        raise Invalid(_("A round can start after 1 new ranking or more; leave it empty for rounds by hand only."))
    values: dict[str, Any] = {"round_every": round_every}
    if settings is not None:
        round_settings.resolve(settings, seed=0)
        values["settings"] = settings
    return LoopSettings.objects.update_or_create(project=project, defaults=values)[0]


def send(round_id: int) -> None:
    """Ask the workers to run a waiting round, once this transaction is committed.

    A broker that cannot be reached then is no error: the beat asks again.
    """

    def ask() -> None:
        current_app.send_task(RUN_ROUND, [round_id])
        Round.objects.filter(pk=round_id).update(queued_at=Now())

    transaction.on_commit(ask, robust=True)


def send_waiting() -> int:
    """Ask again for rounds that have waited so long that their message may be lost. Returns how many."""
    asked_long_ago = Q(queued_at__isnull=True) | Q(queued_at__lt=Now() - SEND_AGAIN_AFTER)
    waiting = list(Round.objects.filter(asked_long_ago, status=Status.WAITING).values_list("pk", flat=True))
    for round_id in waiting:
        send(round_id)
    return len(waiting)


def claim(round_id: int, worker: str) -> Claim | None:
    """Take a waiting round for this worker; None when it is not to be had, which is normal."""
    with transaction.atomic():
        won = Round.objects.filter(pk=round_id, status=Status.WAITING).update(
            status=Status.RUNNING,
            worker=worker,
            attempt=F("attempt") + 1,
            heartbeat_at=Now(),
            started_at=Coalesce("started_at", Now()),
            cancel_requested_at=None,
            error="",
            log_tail="",
        )
        return Claim(round_id, Round.objects.get(pk=round_id).attempt) if won else None


def beat(claim: Claim) -> bool:
    """Say that the worker is alive. Returns whether somebody asked to cancel. Raises ClaimLost."""
    if not claim.rows.update(heartbeat_at=Now()):
        raise ClaimLost
    return claim.rows.filter(cancel_requested_at__isnull=False).exists()


def enter(claim: Claim, stage: str) -> None:
    """Raises ClaimLost."""
    if not claim.rows.update(stage=stage):
        raise ClaimLost


def keep_result(claim: Claim, name: str, result: dict[str, Any]) -> None:
    """Keep what a finished program reported, or what there is to say of its input. Raises ClaimLost."""
    with transaction.atomic():
        found = claim.rows.select_for_update().first()
        if found is None:
            raise ClaimLost
        found.results[name] = result
        found.save(update_fields=["results"])


def record_metrics(claim: Claim, job: str, lines: Iterable[dict[str, Any]], from_start: bool) -> None:
    """Keep lines of metrics.jsonl, those already kept included.

    `from_start`: the lines begin with the file's first, so that a step after their last was taken back by a resume.
    """
    rows = [Metric(round_id=claim.round_id, job=job, step=line["step"], values=without_step(line)) for line in lines]
    with transaction.atomic():
        if from_start:
            last = rows[-1].step if rows else -1
            Metric.objects.filter(round_id=claim.round_id, job=job, step__gt=last).delete()
        Metric.objects.bulk_create(
            rows, update_conflicts=True, unique_fields=["round", "job", "step"], update_fields=["values"]
        )


def without_step(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "step"}


def request_cancel(asked: Round) -> Round:
    """Cancel a round: at once while it waits, within seconds while it runs. Raises Conflict when it has ended."""
    if _change(asked, [Status.WAITING], status=Status.CANCELLED, finished_at=Now()):
        return asked
    if _change(asked, [Status.RUNNING], cancel_requested_at=Coalesce("cancel_requested_at", Now())):
        return asked
    raise Conflict(
        _("Round %(number)s has already ended: it is %(status)s.") % {"number": asked.number, "status": asked.status}
    )


def resume(ended: Round) -> Round:
    """Let a failed or cancelled round go on from where it stopped, in the directory it has. Raises Conflict."""
    checkpoints.check_usable(ended.base)
    try:
        with transaction.atomic():
            resumed = _change(
                ended,
                [Status.FAILED, Status.CANCELLED],
                status=Status.WAITING,
                finished_at=None,
                cancel_requested_at=None,
                queued_at=None,
            )
            if not resumed:
                raise Conflict(
                    _("Round %(number)s is %(status)s: only a failed or cancelled round can resume.")
                    % {"number": ended.number, "status": ended.status}
                )
            send(ended.pk)
    except IntegrityError as error:
        raise Conflict(_("Another round of this project is active: wait for its end, or cancel it first.")) from error
    return ended


def _change(found: Round, statuses: list[str], **values: Any) -> bool:
    """Change a round that is in one of these states, and read it anew either way."""
    changed = Round.objects.filter(pk=found.pk, status__in=statuses).update(**values)
    found.refresh_from_db()
    return bool(changed)


def release(claim: Claim) -> None:
    """Give the round back, because this worker is being shut down: the next one goes on where it stopped."""
    claim.rows.update(status=Status.WAITING, worker="", queued_at=None)


def cancel(claim: Claim) -> None:
    """The worker has stopped as it was asked to."""
    claim.rows.update(status=Status.CANCELLED, finished_at=Now())


def fail(claim: Claim, error: str, log_tail: str = "") -> None:
    """End the round with a sentence for people and the end of the failed program's log."""
    # PostgreSQL keeps no NUL in text, and a program can print anything.
    claim.rows.update(
        status=Status.FAILED, finished_at=Now(), error=error.replace("\0", ""), log_tail=log_tail.replace("\0", "")
    )


def finish(claim: Claim, brought: results.Outcome) -> None:
    """The round's end, in one transaction: its checkpoint, the new completions and their comparisons.

    Raises ClaimLost, or Cancelled when somebody asked to cancel before it was committed.
    """
    with transaction.atomic():
        found = claim.rows.select_for_update(of=("self",)).select_related("project", "base__source").first()
        if found is None:
            raise ClaimLost
        if found.cancel_requested_at is not None:
            raise Cancelled
        found.checkpoint = results.write(found, brought)
        found.status, found.finished_at, found.stage = Status.FINISHED, Now(), Stage.COMPARISONS
        found.save(update_fields=["checkpoint", "status", "finished_at", "stage"])


class Cancelled(Exception):
    """Somebody asked to cancel the round that this worker runs."""


def sweep_lost() -> int:
    """End rounds whose worker has said nothing for a while. Returns how many."""
    lost = Round.objects.filter(status=Status.RUNNING, heartbeat_at__lt=Now() - LOST_AFTER)
    cancelled = lost.filter(cancel_requested_at__isnull=False).update(status=Status.CANCELLED, finished_at=Now())
    failed = lost.update(
        status=Status.FAILED,
        finished_at=Now(),
        error=in_english(
            "The worker stopped without a word (killed, out of memory, or its machine went down). "
            "Resume the round to go on from where it stopped."
        ),
    )
    return cancelled + failed


def start_due() -> list[Round]:
    """Start a round in each project that has gathered as many new rankings as its loop asks for."""
    started = []
    for loop in LoopSettings.objects.filter(round_every__isnull=False, project__archived_at__isnull=True):
        if is_due(loop):
            try:
                started.append(start(loop.project, None))
            except (Conflict, Invalid) as reason:
                # Nothing is served, somebody was faster, or the loop's settings are wrong: the next beat looks again.
                logger.warning("no round by itself in %s: %s", loop.project.slug, reason.message)
    return started


def is_due(loop: LoopSettings) -> bool:
    """Whether a round should start by itself now. Rankings that a failed round took count as taken."""
    if loop.round_every is None or loop.project.rounds.filter(status__in=Round.ACTIVE).exists():
        return False
    last = loop.project.rounds.filter(learns=True).aggregate(last=Max("cutoff"))["last"] or 0
    unseen = Q(sequence__gt=last) | Q(sequence__isnull=True)
    return learnable(loop.project).filter(unseen).count() >= loop.round_every
