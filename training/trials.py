"""Blind trials of checkpoints: their start from a checkpoint, and reads of the votes for pages and the gate."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from feedback.errors import AccordError, NotFound
from feedback.models import Comparison, Completion, Project, Source, Trial, User
from feedback.quality.trial_evidence import Decision, Evidence
from feedback.reports.trials import Vote, evidence_of, trials_of, votes_of
from training import checkpoints, guards
from training.models import Checkpoint, LoopSettings, Promotion, Round
from training.rounds.recipes.description import Text
from training.rounds.recipes.trial import NAME
from training.rounds.start import check_can_start, start_round

Outcome = Trial.Outcome
STATES: dict[str, Text] = {
    "open": gettext_lazy("Open"),
    "better": gettext_lazy("Better"),
    "worse": gettext_lazy("Worse"),
    "futile": gettext_lazy("Futile"),
    "undecided": gettext_lazy("Undecided"),
}


@dataclass(frozen=True)
class Candidate:
    """A source of a trial with the evidence of its votes against the source to beat."""

    source: Source
    checkpoint: Checkpoint | None  # None for a source that is no checkpoint, such as an import
    evidence: Evidence
    identical: int  # of the ties: prompts with the same answer of all sources

    @property
    def warning(self) -> str:
        """Return the sentences of the guards that fell in the round of the checkpoint, or ""."""
        return guards.warning(guards.fallen(self.checkpoint)) if self.checkpoint else ""

    @property
    def ties(self) -> int:
        """Number of votes that are ties."""
        return self.evidence.ties - self.identical

    @property
    def is_decided(self) -> bool:
        return self.evidence.decision is not Decision.OPEN

    @property
    def sentence(self) -> str:
        """Return what the votes say so far, in one sentence."""
        evidence = self.evidence
        if evidence.win_share is None:
            return _("%(name)s has no decisive vote yet.") % {"name": self.source}
        verdicts = {
            Decision.OPEN: _("not decided"),
            Decision.BETTER: _("better"),
            Decision.WORSE: _("worse"),
            Decision.FUTILE: _("not worth a promotion"),
        }
        text = ngettext(
            "%(name)s wins %(share)s of %(n)s decisive vote (%(low)s to %(high)s): %(verdict)s.",
            "%(name)s wins %(share)s of %(n)s decisive votes (%(low)s to %(high)s): %(verdict)s.",
            evidence.decisive,
        )
        return text % {
            "name": self.source,
            "share": percent(evidence.win_share),
            "n": evidence.decisive,
            "low": percent(evidence.low),
            "high": percent(evidence.high),
            "verdict": verdicts[evidence.decision],
        }


@dataclass(frozen=True)
class Standing:
    """Evidence of all votes of a trial, now."""

    trial: Trial
    beaten: Source  # the source to beat, at position 0
    candidates: list[Candidate]  # by position
    comparisons_left: int  # comparisons that still want votes

    @property
    def state(self) -> str:
        """Return "open", or the stored decision."""
        return self.trial.decision or "open"

    @property
    def state_label(self) -> Text:
        return STATES[self.state]

    @property
    def note(self) -> str:
        """Return the note of the decision. Its first line is stored in English, the second one has names."""
        sentence, _newline, names = self.trial.decision_note.partition("\n")
        return (_(sentence) + (f" ({names})" if names else "")) if sentence else ""

    @property
    def best(self) -> Candidate | None:
        """Return the candidate that is surely better, of several the one with the highest lower bound; or None."""
        better = [one for one in self.candidates if one.evidence.decision is Decision.BETTER]
        return max(better, key=lambda one: one.evidence.low, default=None)

    @property
    def has_ended(self) -> bool:
        """Return whether no vote is left to wait for: every candidate is decided, or all comparisons are ranked."""
        return all(one.is_decided for one in self.candidates) or not self.comparisons_left

    @property
    def decision(self) -> str:
        """Return the decision if the trial ends now."""
        decisions = {one.evidence.decision for one in self.candidates}
        if Decision.BETTER in decisions:
            return Outcome.BETTER
        if Decision.OPEN in decisions:
            return Outcome.UNDECIDED
        return Outcome.FUTILE if Decision.FUTILE in decisions else Outcome.WORSE

    @property
    def chosen(self) -> Source | None:
        """Return the source that this decision favours: the best candidate, or the one to beat; None if undecided."""
        if self.best is not None:
            return self.best.source
        return None if self.decision == Outcome.UNDECIDED else self.beaten


def standing_of(trial: Trial) -> Standing:
    """Return what the votes say now."""
    sources = [row.source for row in trial.trial_sources.select_related("source").order_by("position")]
    known = {one.source_id: one for one in Checkpoint.objects.filter(source__in=sources).select_related("source")}
    report = evidence_of(trial)
    candidates = [
        Candidate(pair.candidate, known.get(pair.candidate.pk), pair.evidence, pair.identical)
        for pair in report.of_candidates
    ]
    return Standing(trial, sources[0], candidates, report.left)


def percent(share: float) -> str:
    """Return a share in percent, with a decimal only where a whole number would read as one half and is not."""
    return f"{100 * share:.1f} %" if 0.495 <= share < 0.505 and share != 0.5 else f"{100 * share:.0f} %"


def try_blind(project: Project, actor: User | None, candidate: Checkpoint) -> Round:
    """Create a waiting round that lets the candidate and the served checkpoint answer, and then starts their trial.

    Raises as `start_round` does.
    """
    tried = [str(checkpoints.served(project)), str(candidate)]
    # Without rewards: a term that needs a reward model would refuse the round, and no page shows the scores.
    return start_round(project, actor, {"round": {"recipe": NAME, "checkpoints": tried}, "sample": {"rewards": []}})


def reason_not_to_try(project: Project) -> str:
    """Return the sentence why no trial of any checkpoint can start now, or ""."""
    try:
        check_can_start(project, recipe=NAME)
    except AccordError as refusal:
        return refusal.message
    return ""


def reason_against(candidate: Checkpoint) -> str:
    """Return the sentence why this checkpoint cannot be tried against the served one, or ""."""
    if candidate.is_served:
        return _("It is served: other checkpoints are tried against it.")
    try:
        checkpoints.check_usable(candidate)
    except AccordError as refusal:
        return refusal.message
    return ""


def trial_of(project: Project, number: int) -> Trial:
    """Return the project's trial of this number. Raise NotFound."""
    trial = trials_of(project).filter(number=number).first()
    if trial is None:
        raise NotFound(_("There is no trial %(number)s in this project.") % {"number": number})
    return trial


def open_trial(project: Project) -> Trial | None:
    """Return the project's open trial, or None."""
    return trials_of(project).filter(ended_at__isnull=True).first()


def gate_of(project: Project) -> LoopSettings:
    """Return the row with the project's gate, which may be unsaved."""
    return LoopSettings.objects.filter(project=project).first() or LoopSettings(project=project)


def promotion_of(trial: Trial) -> Promotion | None:
    """Return the promotion that followed from the trial, or None."""
    promotions = Promotion.objects.filter(trial=trial, is_roll_back=False)
    return promotions.select_related("checkpoint__source", "actor").order_by("pk").last()


@dataclass(frozen=True)
class VotedComparison:
    """A comparison of a trial with its votes, for a page that shows whose completions they are."""

    comparison: Comparison
    completions: dict[int, Completion]  # by the id of their source
    votes: list[
        tuple[str, list[list[int]]]
    ]  # an annotator's name, and ids of sources from best to worst; ties together


def voted_comparisons(trial: Trial) -> list[int]:
    """Return the ids of the comparisons whose votes a manager may see, the last vote first.

    While the trial is open, those that still want a vote are left out, because a manager may rank, too.
    """
    ids = dict.fromkeys(vote.comparison_id for vote in reversed(votes_of(trial)))
    if not trial.is_open:
        return list(ids)
    wanting = set(trial.comparisons.filter(open_slots__gt=0).values_list("pk", flat=True))
    return [pk for pk in ids if pk not in wanting]


def with_votes(trial: Trial, ids: Sequence[int]) -> list[VotedComparison]:
    """Return these comparisons of the trial with their votes, in this order."""
    rows = trial.comparisons.select_related("prompt").prefetch_related("items__completion").in_bulk(ids)
    votes = [vote for vote in votes_of(trial) if vote.comparison_id in rows]
    names = User.objects.in_bulk({vote.annotator_id for vote in votes})
    orders: dict[int, list[tuple[str, list[list[int]]]]] = defaultdict(list)
    for vote in votes:
        orders[vote.comparison_id].append((names[vote.annotator_id].username, places_of(vote)))
    return [
        VotedComparison(
            rows[pk], {item.completion.source_id: item.completion for item in rows[pk].items.all()}, orders[pk]
        )
        for pk in ids
    ]


def places_of(vote: Vote) -> list[list[int]]:
    """Return the ids of the sources from the best place to the worst; those of a tie share one."""
    places: dict[int, list[int]] = defaultdict(list)
    for source, rank in zip(vote.sources, vote.ranks, strict=True):
        places[rank].append(source)
    return [places[rank] for rank in sorted(places)]


def gate_sentence(loop: LoopSettings, trial: Trial | None = None) -> str:
    """Return sentences on what ends a trial (this one; else the next one), and who promotes then."""
    share = trial.worthwhile_share if trial else loop.worthwhile_share
    ends = _("A trial ends when its votes have decided, or when all its comparisons are ranked.")
    if share > 0.5:
        ends += " " + _("It ends as futile when the candidate surely wins less than %(share)s.") % {
            "share": percent(share)
        }
    if loop.gate == LoopSettings.Gate.AUTOMATIC:
        return ends + " " + _("The gate promotes a better candidate at once, unless a guard fell.")
    return ends + " " + _("A manager promotes.")
