"""Plan of a round before it starts: its settings, the rankings that it would learn from, and the estimate."""

from dataclasses import dataclass

from feedback.errors import AccordError
from feedback.models import Project
from training.models import Checkpoint, Round
from training.rounds.estimates import Estimate, estimate_of
from training.rounds.learned_rankings import LearnedRankings, learned_rankings
from training.rounds.recipes.description import Sections
from training.rounds.start import described, prepared


@dataclass(frozen=True)
class Plan:
    """A round that could start now. Without usable settings there is only the refusal."""

    round: Round | None  # not stored
    rankings: LearnedRankings | None  # None: it reads none
    estimate: Estimate | None
    error: AccordError | None  # why it cannot start now

    @property
    def refusal(self) -> str:
        return self.error.message if self.error else ""


def plan_of(
    project: Project, overrides: Sections | None = None, *, learns: bool = True, base: Checkpoint | None = None
) -> Plan:
    """Return the plan of a round that `start_round`, or `start_sampling` without `learns`, would start now."""
    refusal: AccordError | None = None
    try:
        made = prepared(project, overrides, learns=learns, base=base)
    except AccordError as error:
        refusal = error
        try:
            made = described(project, overrides, learns=learns, base=base)
        except AccordError as wrong:
            return Plan(None, None, None, wrong)
    return Plan(made, learned_rankings(project, made.jobs, made.settings), estimate_of(made), refusal)
