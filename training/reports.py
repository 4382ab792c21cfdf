"""Read-only queries about rounds and checkpoints, for the pages and the API."""

from dataclasses import dataclass
from typing import Any

from django.contrib.humanize.templatetags.humanize import intcomma
from django.db.models import Prefetch, Q, QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from feedback import statements
from feedback.errors import NotFound
from feedback.export.demonstrations import imitable
from feedback.models import Comparison, Project
from feedback.reports import quality_snapshot, trust
from training import evaluations
from training.checkpoints import served_before
from training.models import Checkpoint, LoopSettings, Round
from training.rounds import settings as round_settings
from training.rounds.inputs.rankings import trainable_rankings
from training.rounds.inputs.ratings import COUNTED
from training.rounds.recipes import RECIPES
from training.rounds.recipes.description import DEMONSTRATIONS, LOGGED_COMPLETIONS, Counts, Recipe, Sections, Text
from training.rounds.recipes.parts import SNAPSHOT

NOT_CURVES = ("total", "time")
SPEED_STEPS = 10  # steps whose speed gives the remaining time


@dataclass(frozen=True)
class Step:
    """Progress of the running program."""

    step: int
    total: int
    seconds_left: float | None

    @property
    def percent(self) -> float:
        return min(100.0, 100 * self.step / self.total) if self.total else 0.0


def step_of(round_: Round) -> Step | None:
    """Return the last step that the round's current stage reported; None before the first."""
    lines = list(round_.metrics.filter(job=round_.stage).order_by("-step")[:SPEED_STEPS])
    if not lines:
        return None
    last, first = lines[0], lines[-1]
    total = int(last.values.get("total", 0))
    seconds = last.values.get("time", 0) - first.values.get("time", 0)
    left = (total - last.step) * seconds / (last.step - first.step) if last.step > first.step else None
    return Step(last.step, total, left)


def metrics(round_: Round, after: int = 0) -> list[dict[str, Any]]:
    """Return the lines of metrics with ids above `after`, oldest first.

    A line is `{"id", "job", "step", "total", "time", "values"}`. After a resume, repeated steps have new ids.
    """
    return [
        {
            "id": line.pk,
            "job": line.job,
            "step": line.step,
            "total": line.values.get("total"),
            "time": line.values.get("time"),
            "values": {name: value for name, value in line.values.items() if name not in NOT_CURVES},
        }
        for line in round_.metrics.filter(pk__gt=after).order_by("pk")
    ]


@dataclass(frozen=True)
class Stage:
    """Stage of a round with its state, for the row of stages on a page."""

    name: str
    label: Text
    state: str  # done, now, failed (where a failed or cancelled round ended) or next
    step: Step | None  # while its program runs


def stages_of(round_: Round) -> list[Stage]:
    """Return the stages that the round passes, in order."""
    stages = [SNAPSHOT, *dict.fromkeys(job.stage for job in round_.jobs), round_.last_stage]
    if round_.status == Round.Status.FINISHED:
        return [Stage(*stage, "done", None) for stage in stages]
    current = [stage.name for stage in stages].index(round_.stage)
    state = "now" if round_.is_active else "failed"
    step = step_of(round_)
    return [
        Stage(
            *stage,
            "done" if index < current else state if index == current else "next",
            step if index == current else None,
        )
        for index, stage in enumerate(stages)
    ]


def imitation_sentence(recipe: Recipe, settings: Sections, counts: Counts) -> str:
    """Return a sentence on how many demonstrations a round imitates, or why none; "" if there are none to imitate."""
    if "sft" not in recipe.programs:
        return ""
    n, limits = counts.demonstrations, settings["round"]
    if n == 0:
        return ""
    if any(DEMONSTRATIONS in job.inputs.values() for job in recipe.jobs(settings, counts)):
        text = ngettext("It imitates %(n)s demonstration.", "It imitates %(n)s demonstrations.", n)
    elif limits["sft_first"] == "never":
        text = ngettext(
            "Its settings leave out %(n)s demonstration.", "Its settings leave out %(n)s demonstrations.", n
        )
    else:
        text = ngettext(
            "%(n)s demonstration is too few to imitate: the settings ask for %(least)s.",
            "%(n)s demonstrations are too few to imitate: the settings ask for %(least)s.",
            n,
        )
    return text % {"n": n, "least": limits["min_demonstrations"]}


def details_sentences(round_: Round) -> str:
    """Return sentences about the details that the round learns or leaves out; "" before its input files are written.

    These are rankings of trials, and the ratings, marks and flags that a reward model reads.
    """
    counts = round_.results.get("snapshot", {})
    of_trials, alike = _trial_sentence(counts.get("trial_rankings", 0)), alike_sentence(round_)
    if not round_.learns or all(job.program != "reward" for job in round_.jobs):
        return " ".join(filter(None, [of_trials, alike]))
    settings = round_settings.completed(round_.settings)
    marks = counts.get("marks", 0) - round_.results.get("reward", {}).get("marks_left_out", 0)
    sentences = [
        of_trials,
        *_rating_sentences(settings, counts),
        _marks_sentence(marks, learns=settings["reward"]["marks_weight"] > 0),
        _anchor_sentence(counts.get("anchored_rankings", 0)),
        alike,
    ]
    return " ".join(filter(None, sentences))


def alike_sentence(round_: Round) -> str:
    """Return sentences about near-duplicates among the new completions, and what became of them; "" without any."""
    counts = round_.results.get("comparisons", {})
    n, smaller, dropped = (counts.get(name, 0) for name in ("near_duplicates", "smaller", "dropped"))
    sentences = [
        ngettext(
            "%(n)s completion is left out of its comparison as a near-duplicate of another.",
            "%(n)s completions are left out of their comparisons as near-duplicates of others.",
            n,
        )
        % {"n": intcomma(n)}
        if n
        else "",
        ngettext("%(n)s comparison is smaller.", "%(n)s comparisons are smaller.", smaller) % {"n": intcomma(smaller)}
        if smaller
        else "",
        ngettext(
            "%(n)s prompt has no comparison: fewer than two different completions are left.",
            "%(n)s prompts have no comparison: fewer than two different completions are left.",
            dropped,
        )
        % {"n": intcomma(dropped)}
        if dropped
        else "",
    ]
    return " ".join(filter(None, sentences))


def _trial_sentence(n: int) -> str:
    text = ngettext(
        "It leaves out %(n)s ranking of a trial that must not train.",
        "It leaves out %(n)s rankings of trials that must not train.",
        n,
    )
    return text % {"n": intcomma(n)} if n else ""


def _rating_sentences(settings: Sections, counts: dict[str, int]) -> list[str]:
    least = settings["round"]["min_rated_completions"]
    rated = {name.removeprefix(COUNTED): n for name, n in counts.items() if name.startswith(COUNTED)}
    if rated and not settings["reward"]["attribute_weight"]:
        return [_("Its settings leave out the ratings.")]
    learned = [f"{name} ({intcomma(n)})" for name, n in rated.items() if n >= least]
    few = [f"{name} ({n})" for name, n in rated.items() if n < least]
    texts = []
    if learned:
        texts.append(
            _("It learns ratings, of so many completions: %(attributes)s.") % {"attributes": ", ".join(learned)}
        )
    if few:
        texts.append(
            _("Not learned, because fewer than %(least)s completions are rated: %(attributes)s.")
            % {"least": least, "attributes": ", ".join(few)}
        )
    return texts


def _marks_sentence(n: int, *, learns: bool) -> str:
    if n <= 0:
        return ""
    if learns:
        text = ngettext("It learns %(n)s marked span.", "It learns %(n)s marked spans.", n)
    else:
        text = ngettext("Its settings leave out %(n)s marked span.", "Its settings leave out %(n)s marked spans.", n)
    return text % {"n": intcomma(n)}


def _anchor_sentence(n: int) -> str:
    text = ngettext(
        "It learns from %(n)s ranking that all completions are bad, or good.",
        "It learns from %(n)s rankings that all completions are bad, or good.",
        n,
    )
    return text % {"n": intcomma(n)} if n else ""


def dialogues_sentence(round_: Round) -> str:
    """Return sentences about the dialogues that the round does not learn from; "" if there are none."""
    n = round_.results.get("snapshot", {}).get("dialogues_left_out", 0)
    if not n:
        return ""
    if not any(LOGGED_COMPLETIONS in job.inputs.values() for job in round_.jobs):
        left_out = ngettext(
            "%(n)s of these rankings is left out: it compares dialogues, and %(recipe)s learns from single answers.",
            "%(n)s of these rankings are left out: they compare dialogues, and %(recipe)s learns from single answers.",
            n,
        )
    else:
        left_out = ngettext(
            "%(n)s completion is left out: it is a dialogue, and %(recipe)s learns from single answers.",
            "%(n)s completions are left out: they are dialogues, and %(recipe)s learns from single answers.",
            n,
        )
    left_out %= {"n": intcomma(n), "recipe": round_.recipe.label}
    return left_out + " " + _("To learn from dialogues, start a round of %(ppo)s.") % {"ppo": RECIPES["ppo"].label}


@dataclass(frozen=True)
class Loop:
    """Summary of a project's loop."""

    open_comparisons: int  # they wait for rankings
    ranking_count: int
    new_rankings: int  # since the cut-off of the last round with training
    demonstrations: int  # to imitate
    round_every: int | None
    agreement: float | None  # share of pairs that two annotators order alike, at the time of the verdict
    verdict: trust.Verdict | None  # whether the labels can be trusted; None before the first one
    active: Round | None
    served: Checkpoint | None
    served_before: Checkpoint | None  # the checkpoint that a roll-back would serve


def loop_of(project: Project) -> Loop:
    """Return the summary of the project's loop."""
    rankings = trainable_rankings(project)
    last = project.rounds.filter(learns=True).order_by("-number").first()
    ranking_count = new_count = rankings.count()
    if last:
        new_count = rankings.filter(Q(sequence__gt=last.cutoff) | Q(sequence__isnull=True)).count()
    settings = LoopSettings.objects.filter(project=project).first()
    verdict = trust.verdict(project) if quality_snapshot.record_length(project) else None
    return Loop(
        open_comparisons=Comparison.objects.waiting_in(project).count(),
        ranking_count=ranking_count,
        new_rankings=new_count,
        demonstrations=imitable(project).count(),
        round_every=settings.round_every if settings else None,
        agreement=verdict.pairwise.value if verdict else None,
        verdict=verdict,
        active=project.rounds.filter(status__in=Round.ACTIVE).first(),
        served=project.checkpoints.filter(is_served=True).select_related("source").first(),
        served_before=served_before(project),
    )


def rounds_of(project: Project) -> QuerySet[Round]:
    """Return the project's rounds, newest first, with the rows that a list shows."""
    return project.rounds.select_related(
        "project", "base__source", "checkpoint__source", "started_by", "trial"
    ).order_by("-number")


def checkpoints_of(project: Project) -> QuerySet[Checkpoint]:
    """Return the project's checkpoints with their newest evaluations, newest first."""
    rows = project.checkpoints.select_related(
        "project", "source", "parent__source", "round", "retired_by", "files_deleted_by"
    ).prefetch_related(Prefetch("children", Checkpoint.objects.select_related("source").order_by("pk")))
    return evaluations.with_newest(rows).order_by("-pk")


def round_of(project: Project, number: int) -> Round:
    """Return the project's round of this number. Raise NotFound."""
    round_ = rounds_of(project).filter(number=number).first()
    if round_ is None:
        raise _no_round(number)
    return round_


# Read by every poll of a round's page. The ORM takes longer to write this query than all else that such a poll does.
FOLLOWED = f"""
    SELECT {statements.columns(Round, "training_round")} FROM training_round WHERE project_id = %s AND number = %s"""


def followed_round(project: Project, number: int) -> Round:
    """Return the project's round like `round_of`, without the rows that it refers to."""
    (row,) = statements.run(FOLLOWED, [project.pk, number]) or (None,)
    if row is None:
        raise _no_round(number)
    round_ = statements.build(Round, row)
    round_.project = project
    return round_


def _no_round(number: int) -> NotFound:
    return NotFound(_("There is no round %(number)s in this project.") % {"number": number})


def checkpoint_of(project: Project, checkpoint_id: int) -> Checkpoint:
    """Return the project's checkpoint of this id. Raise NotFound."""
    checkpoint = checkpoints_of(project).filter(pk=checkpoint_id).first()
    if checkpoint is None:
        raise NotFound(_("There is no such checkpoint in this project."))
    return checkpoint
