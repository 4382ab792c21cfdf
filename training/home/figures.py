"""Reads of the console's first page: the figures of the loop, and the state that decides the next step."""

from dataclasses import dataclass

from django.db.models import Count, Q
from django.utils.translation import gettext as _

from feedback.errors import AccordError
from feedback.models import Comparison, Lease, Project, Prompt, Trial
from feedback.reports import source_ratings
from feedback.reports.progress import midnight
from feedback.reports.trials import evidence_of, trials_of
from training import reports
from training.checkpoints import checks
from training.guards import kl_from_root
from training.home.next_step import ENOUGH_RANKINGS, Action, State, Step
from training.models import Checkpoint, Round
from training.reports import Loop
from training.rounds.recipes.description import RANKINGS
from training.rounds.start import counts_of, project_recipe, settings_now
from training.trials import reason_not_to_try
from training.workers.report import gpu_hint

MAX_COUNTED = 500  # comparisons: beyond it the exact number does not matter on the list of projects


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; None where it has none."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class WinRate(Interval):
    """Share of the preferences of people that a checkpoint wins against another source."""

    against: str
    trial: int | None  # number of the trial that compared them; None: from all rankings


@dataclass(frozen=True)
class Figures:
    """Figures of the loop that `reports.Loop` does not have."""

    train_prompts: int
    held_out_prompts: int
    rankings_today: int
    rankings: int  # all live ones, also those that no round may learn from
    last: Round | None  # the last round that made a checkpoint
    reward_accuracy: Interval | None  # of the last round with a reward model, on held-out rankings
    best_accuracy: float | None  # that a model can reach there, by the agreement of annotators
    last_trial: Trial | None  # the newest one of the last round's checkpoint
    win_rate: WinRate | None  # of the last round's checkpoint, by people
    kl_from_root: Interval | None  # of the last round's checkpoint, nats per completion


def figures_of(project: Project) -> Figures:
    """Return the figures of the project's loop."""
    prompts = project.prompts.aggregate(
        train=Count("pk", filter=Q(split=Prompt.Split.TRAIN)),
        held_out=Count("pk", filter=Q(split=Prompt.Split.HELD_OUT)),
    )
    live = project.rankings.filter(is_live=True).exclude(reason=Lease.Reason.DEMONSTRATION)
    rankings = live.aggregate(all=Count("pk"), today=Count("pk", filter=Q(created_at__gte=midnight())))
    rounds = project.rounds.filter(status=Round.Status.FINISHED).select_related("checkpoint__source", "base__source")
    last = rounds.filter(checkpoint__isnull=False).order_by("-number").first()
    rewarded = rounds.filter(results__reward__held_out_accuracy__isnull=False).order_by("-number").first()
    reward = rewarded.results["reward"] if rewarded else {}
    trial = trial_of(last) if last else None
    kl = kl_from_root(last) if last else None
    return Figures(
        train_prompts=prompts["train"],
        held_out_prompts=prompts["held_out"],
        rankings_today=rankings["today"],
        rankings=rankings["all"],
        last=last,
        reward_accuracy=_interval(reward, "held_out_accuracy"),
        best_accuracy=reward.get("best_possible_accuracy"),
        last_trial=trial,
        win_rate=win_rate_of(last, trial) if last else None,
        kl_from_root=Interval(kl.value, kl.low, kl.high) if kl else None,
    )


def trial_of(round_: Round) -> Trial | None:
    """Return the newest trial in which the round's checkpoint is a candidate, or None."""
    assert round_.checkpoint is not None
    is_candidate = {"trial_sources__source": round_.checkpoint.source_id, "trial_sources__position__gt": 0}
    return trials_of(round_.project).filter(**is_candidate).first()


def win_rate_of(round_: Round, trial: Trial | None) -> WinRate | None:
    """Return how often people prefer the round's checkpoint: to the source to beat of its trial, else to its base.

    The interval of a trial is always valid, the other one is not: it may be looked at once. None without a vote.
    """
    return _in_trial(round_, trial) if trial else _in_all_rankings(round_)


def _in_trial(round_: Round, trial: Trial) -> WinRate | None:
    assert round_.checkpoint is not None
    pairs = evidence_of(trial).of_candidates
    pair = next(pair for pair in pairs if pair.candidate.pk == round_.checkpoint.source_id)
    evidence = pair.evidence
    if evidence.win_share is None:
        return None
    return WinRate(evidence.win_share, evidence.low, evidence.high, str(pair.other), trial.number)


def _in_all_rankings(round_: Round) -> WinRate | None:
    assert round_.checkpoint is not None
    source, base = round_.checkpoint.source_id, round_.base.source_id
    both = Comparison.objects.filter(project=round_.project_id, items__completion__source=source)
    if not both.filter(items__completion__source=base, rankings__is_live=True).exists():
        return None  # the ratings of all sources need not be computed
    try:
        rate = source_ratings.get_ratings(round_.project).win_rate(source, base)
    except AccordError:  # a long record whose ratings no worker has computed yet
        return None
    return WinRate(rate.value, rate.low, rate.high, str(round_.base), None) if rate else None


def state_of(
    project: Project, loop: Loop, figures: Figures, *, may_import: bool, refusal: str, can_sample: bool
) -> State:
    """Return the state that decides the project's next step."""
    usable = project.checkpoints.exclude(verdict=Checkpoint.Verdict.REFUSED).filter(retired_at__isnull=True)
    checking = checks.waiting().filter(project=project).select_related("source").first()
    candidate = _candidate(figures, loop.served)
    rate = figures.win_rate
    return State(
        is_archived=project.archived_at is not None,
        may_import=may_import,
        models=usable.count(),
        checking=str(checking or ""),
        served=str(loop.served or ""),
        prompts=figures.train_prompts + figures.held_out_prompts,
        has_guidelines=bool(project.guidelines.strip()),
        members=project.memberships.count(),
        rankings=loop.ranking_count,
        new_rankings=loop.new_rankings,
        wanted_rankings=loop.round_every or ENOUGH_RANKINGS,
        needs_rankings=_needs_rankings(project),
        open_comparisons=loop.open_comparisons,
        rounds=project.rounds.exclude(status__in=Round.ACTIVE).count(),
        active=loop.active.number if loop.active else None,
        active_sentence=active_sentence(loop.active) if loop.active else "",
        open_trial=trials_of(project).filter(ended_at__isnull=True).values_list("number", flat=True).first(),
        candidate=str(candidate or ""),
        can_try=candidate is not None and figures.last_trial is None and not reason_not_to_try(project),
        candidate_is_better=rate is not None and rate.against == str(loop.served) and (rate.low or 0) > 0.5,
        refusal=refusal,
        can_sample=can_sample,
    )


def active_round(project: Project) -> Round | None:
    """Return the project's waiting or running round, or None."""
    return project.rounds.filter(status__in=Round.ACTIVE).select_related("project").first()


def step_of_active(round_: Round) -> Step:
    """Return the next step while a round is active: to watch it."""
    return Step(Action.WATCH_ROUND, active_sentence(round_))


def active_sentence(round_: Round) -> str:
    """Return a sentence on what a waiting or running round does, or waits for."""
    if round_.status == Round.Status.WAITING:
        hint = gpu_hint(round_.project)
        return hint or _("Round %(n)s waits for a worker.") % {"n": round_.number}
    stage = next((stage for stage in reports.stages_of(round_) if stage.state == "now"), None)
    if stage is None:
        return _("Round %(n)s runs.") % {"n": round_.number}
    if stage.step is None:
        return _("Round %(n)s runs: %(stage)s.") % {"n": round_.number, "stage": stage.label}
    return _("Round %(n)s runs: %(stage)s, %(percent)s %% done.") % {
        "n": round_.number,
        "stage": stage.label,
        "percent": int(stage.step.percent),
    }


def state_line(project: Project) -> str:
    """Return one line on the state of the project, for the list of projects."""
    if (active := active_round(project)) is not None:
        return active_sentence(active)
    served = project.checkpoints.filter(is_served=True).select_related("source").first()
    waiting = project.comparisons.filter(open_slots__gt=0, gold_ranks__isnull=True)[: MAX_COUNTED + 1].count()
    parts = [_("%(name)s is served") % {"name": served} if served else _("no model is served")]
    if waiting > MAX_COUNTED:
        parts.append(_("more than %(n)s comparisons wait") % {"n": MAX_COUNTED})
    elif waiting:
        parts.append(_("comparisons that wait: %(n)s") % {"n": waiting})
    else:
        parts.append(_("nothing waits to be ranked"))
    return " · ".join(parts)


def _candidate(figures: Figures, served: Checkpoint | None) -> Checkpoint | None:
    """Return the last round's checkpoint if it is newer than the served one, in use, and not beaten in a trial."""
    last, trial = figures.last, figures.last_trial
    if last is None or last.checkpoint is None or served is None or last.checkpoint.pk <= served.pk:
        return None
    if last.checkpoint.retired_at is not None:
        return None
    is_beaten = trial is not None and trial.decision in (Trial.Outcome.WORSE, Trial.Outcome.FUTILE)
    return None if is_beaten else last.checkpoint


def _needs_rankings(project: Project) -> bool:
    try:
        settings = settings_now(project)
    except AccordError:  # settings that cannot be used: `refusal` says so
        return True
    jobs = project_recipe(project).jobs(settings, counts_of(project))
    return any(RANKINGS in job.inputs.values() for job in jobs)


def _interval(results: dict[str, float | None], name: str) -> Interval | None:
    value = results.get(name)
    return None if value is None else Interval(value, results.get(f"{name}_low"), results.get(f"{name}_high"))
