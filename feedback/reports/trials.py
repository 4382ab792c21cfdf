"""Evidence of a trial: its votes, counted by two sources, with the always-valid interval and decision of each pair."""

from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef, QuerySet, Subquery

from feedback.models import ComparisonItem, Project, Ranking, Source, Trial
from feedback.quality import trial_evidence
from feedback.quality.trial_evidence import Evidence, independent_votes


class Vote(NamedTuple):
    """One annotator's ranking of a comparison of a trial."""

    comparison_id: int
    annotator_id: int
    sources: list[int]  # ids, by position
    ranks: list[int]  # by position; 1 is best, equal ranks are ties

    def preference(self, candidate: int, other: int) -> int:
        """Return 1 if the candidate's completion is ranked before the other source's, −1 if after it, 0 for a tie."""
        rank = dict(zip(self.sources, self.ranks, strict=True))
        return (rank[candidate] < rank[other]) - (rank[candidate] > rank[other])


@dataclass(frozen=True)
class PairEvidence:
    """Votes between two sources of a trial. `evidence` is about the candidate: its wins, and whether it is better."""

    candidate: Source
    other: Source  # the source to beat, or of two candidates the one that was named first
    evidence: Evidence
    identical: int  # of the ties: prompts on which all sources wrote the same text, which nobody was asked about


@dataclass(frozen=True)
class TrialEvidence:
    """The votes of a trial and their evidence, at one time."""

    trial: Trial
    sources: list[Source]  # the source to beat, and the candidates
    pairs: list[PairEvidence]  # by the order of the sources, the source to beat first
    comparisons: int
    voted: int  # comparisons with a vote
    votes: int  # rankings: more than `voted` if a comparison has several

    @property
    def left(self) -> int:
        """Number of comparisons without a vote. Once the trial has ended nobody gets them any more."""
        return self.comparisons - self.voted

    @property
    def of_candidates(self) -> list[PairEvidence]:
        """The pair of each candidate and the source to beat."""
        return [pair for pair in self.pairs if pair.other == self.sources[0]]


def trials_of(project: Project) -> QuerySet[Trial]:
    """Return the project's trials, the newest first, with the rows that pages show."""
    rows = project.trials.select_related("project", "chosen", "started_by", "ended_by")
    return rows.prefetch_related("trial_sources__source").order_by("-number")


def votes_of(trial: Trial) -> list[Vote]:
    """Return the votes of a trial in the order of time. Runs one query.

    A vote is an annotator's live ranking of one of the trial's comparisons, made before the trial ended.

    - A revised ranking counts as it is now, at the time of its first revision: a correction is no second vote, and
      moves no later one. The annotator who corrects it knows no more about the sources than before.
    - A ranking that was withdrawn, returned or discarded is no vote; if it is made again, it counts at its first time.
      Reviewers do not see sources, so taking votes out favours none. Whoever has seen the sources, in an export for
      example, and then takes votes out makes the evidence worthless.
    - A ranking that an adjudication overruled is still that annotator's judgement and counts. The adjudication does
      not: its reviewer saw the other votes.
    - Flags do not matter: "not for training" restricts the use of a ranking.
    """
    same = Ranking.objects.filter(comparison=OuterRef("comparison"), annotator=OuterRef("annotator"))
    items = ComparisonItem.objects.filter(comparison=OuterRef("comparison")).order_by("position")
    live = Ranking.objects.live_in(trial.project).filter(comparison__trial=trial)
    made = live.annotate(
        first_at=Subquery(same.order_by("revision").values("created_at")[:1]),
        sources=ArraySubquery(items.values("completion__source_id")),
    )
    if trial.ended_at is not None:
        made = made.filter(first_at__lt=trial.ended_at)
    rows = made.order_by("first_at", "comparison_id", "annotator_id")
    return [Vote(*row) for row in rows.values_list("comparison_id", "annotator_id", "sources", "ranks")]


def evidence_of(trial: Trial) -> TrialEvidence:
    """Return what the votes of a trial show, computed now.

    Each pair of sources is tested with `trial_evidence.ALPHA` divided by the number of pairs. Of several votes on one
    comparison the first decisive one is tested (`independent_votes`). A prompt on which all sources wrote the same text
    is a tie. Only a pair with the source to beat can be futile.

    The decision of a pair may change when an earlier vote is corrected or taken out. The trial's own does not.
    """
    sources = [row.source for row in trial.trial_sources.select_related("source")]
    votes = votes_of(trial)
    pairs = list(combinations(sources, 2))
    return TrialEvidence(
        trial=trial,
        sources=sources,
        pairs=[
            PairEvidence(
                candidate,
                other,
                _evidence(
                    trial, votes, candidate, other, trial_evidence.ALPHA / len(pairs), is_to_beat=other == sources[0]
                ),
                trial.identical,
            )
            for other, candidate in pairs
        ],
        comparisons=trial.comparisons.count(),
        voted=len({vote.comparison_id for vote in votes}),
        votes=len(votes),
    )


def _evidence(
    trial: Trial, votes: list[Vote], candidate: Source, other: Source, alpha: float, *, is_to_beat: bool
) -> Evidence:
    preferences = [(vote.comparison_id, vote.preference(candidate.pk, other.pk)) for vote in votes]
    return trial_evidence.evidence(
        [*independent_votes(preferences), *[0] * trial.identical],
        alpha=alpha,
        worthwhile_share=trial.worthwhile_share if is_to_beat else 0.5,
    )
