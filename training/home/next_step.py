"""The next step of a project's loop, and the first-time set-up, as pure functions of its state."""

from dataclasses import dataclass
from enum import StrEnum

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

ENOUGH_RANKINGS = 300  # new ones for a round, unless the project starts rounds automatically after another number


@dataclass(frozen=True)
class State:
    """Facts about a project that decide its next step."""

    is_archived: bool = False
    may_import: bool = True  # the reader is an administrator, who alone may import models
    models: int = 1  # checkpoints that are not refused
    checking: str = ""  # name of the checkpoint that waits for its check
    served: str = "base"  # name of the served checkpoint
    prompts: int = 1
    has_guidelines: bool = True
    members: int = 2
    rankings: int = 0  # that a round may learn from
    new_rankings: int = 0  # of them since the last round's cut-off
    wanted_rankings: int = ENOUGH_RANKINGS  # new ones before the next round
    needs_rankings: bool = True  # the project's recipe learns from rankings
    open_comparisons: int = 0
    rounds: int = 0  # that have ended, of any kind
    active: int | None = None  # number of the waiting or running round
    active_sentence: str = ""  # what it does, or what it waits for
    open_trial: int | None = None
    candidate: str = ""  # checkpoint of the last round, if it is newer than the served one
    can_try: bool = False  # the candidate was in no trial yet, and one can start
    candidate_is_better: bool = False  # by people: the whole interval of its win rate is above one half
    refusal: str = ""  # why no round of the project's recipe can start
    can_sample: bool = False  # the served checkpoint can write completions now


class Action(StrEnum):
    NONE = "none"
    IMPORT_MODEL = "import-model"
    ADD_PROMPTS = "add-prompts"
    WRITE_GUIDELINES = "write-guidelines"
    INVITE_PEOPLE = "invite-people"
    SEE_MACHINES = "see-machines"
    SERVE_MODEL = "serve-model"
    WRITE_COMPLETIONS = "write-completions"
    RANK = "rank"
    START_ROUND = "start-round"
    WATCH_ROUND = "watch-round"
    TRY_BLIND = "try-blind"
    COMPARE = "compare"
    PROMOTE = "promote"


@dataclass(frozen=True)
class Step:
    """The next step: a button, and a sentence on what the loop waits for."""

    action: Action
    sentence: str

    @property
    def label(self) -> str:
        """Return the text of the button; "" without one."""
        return _labels().get(self.action, "")


@dataclass(frozen=True)
class SetupStep:
    """One of the four steps of the first-time set-up."""

    action: Action
    title: str
    sentence: str
    is_done: bool


def setup_steps(state: State) -> list[SetupStep]:
    """Return the four steps of the first-time set-up, in order; each can be done at any time."""
    return [
        SetupStep(
            Action.IMPORT_MODEL,
            _("Model"),
            _("The model to improve, which an administrator imports from a folder on this machine."),
            state.models > 0,
        ),
        SetupStep(
            Action.ADD_PROMPTS,
            _("Prompts"),
            _("What the model is asked: a few hundred, of which a share is held out for measuring."),
            state.prompts > 0,
        ),
        SetupStep(
            Action.WRITE_GUIDELINES,
            _("Guidelines"),
            _("What makes one answer better than another, for everybody who ranks."),
            state.has_guidelines,
        ),
        SetupStep(
            Action.INVITE_PEOPLE,
            _("People"),
            _("At least two who rank, so that their agreement can be measured."),
            state.members > 1,
        ),
    ]


def shows_setup(state: State) -> bool:
    """Return whether the page shows the set-up: until its steps are done, or a round has ended without them."""
    return not state.is_archived and state.rounds == 0 and not all(step.is_done for step in setup_steps(state))


def next_step(state: State) -> Step:
    """Return the one step that brings the loop forward now."""
    if state.is_archived:
        return Step(Action.NONE, _("This project is archived: nothing in it changes any more."))
    if state.active is not None:
        return Step(Action.WATCH_ROUND, state.active_sentence)
    return _setup(state) or _serving(state) or _trial(state) or _candidate(state) or _learning(state)


def _setup(state: State) -> Step | None:
    """Return the first step of the set-up that is not done and that the reader can do."""
    if state.models == 0 and state.may_import:
        return Step(Action.IMPORT_MODEL, _("There is no model yet: import the model to improve."))
    if state.prompts == 0:
        return Step(Action.ADD_PROMPTS, _("There are no prompts yet: add what the model is to answer."))
    if state.rounds:
        return None
    if not state.has_guidelines:
        return Step(Action.WRITE_GUIDELINES, _("There are no guidelines yet: annotators need them to rank alike."))
    if state.members < 2 and not state.rankings:
        return Step(Action.INVITE_PEOPLE, _("You are the only member: invite people who rank."))
    return None


def _serving(state: State) -> Step | None:
    """Return the step to a served model, if there is none."""
    if state.served:
        return None
    if state.checking:
        sentence = _("%(name)s waits for its check, which a worker of the queue gpu makes.") % {"name": state.checking}
        return Step(Action.SEE_MACHINES, sentence)
    if state.models:
        return Step(Action.SERVE_MODEL, _("No checkpoint is served yet: promote one."))
    sentence = _("There is no model yet: ask an administrator of this site to import one.")
    return Step(Action.RANK if state.open_comparisons else Action.NONE, sentence)


def _trial(state: State) -> Step | None:
    """Return the step to the votes of the open trial."""
    if state.open_trial is None:
        return None
    sentence = _("Trial %(n)s is open: rank what it compares, its votes decide which checkpoint is better.")
    return Step(Action.RANK, sentence % {"n": state.open_trial})


def _candidate(state: State) -> Step | None:
    """Return the step to a decision on the last round's checkpoint."""
    if not state.candidate:
        return None
    if state.candidate_is_better:
        sentence = _("People prefer the completions of %(candidate)s to those of %(served)s.")
        return Step(Action.PROMOTE, sentence % {"candidate": state.candidate, "served": state.served})
    if state.can_try and state.new_rankings < state.wanted_rankings:
        sentence = _("%(candidate)s is new: let people compare it blind with %(served)s.")
        return Step(Action.TRY_BLIND, sentence % {"candidate": state.candidate, "served": state.served})
    if state.new_rankings == 0 and not state.open_comparisons:
        sentence = _("%(candidate)s is not served: compare it with %(served)s, and promote the better one.")
        return Step(Action.COMPARE, sentence % {"candidate": state.candidate, "served": state.served})
    return None


def _learning(state: State) -> Step:
    """Return the step to the next round."""
    if not state.refusal and (not state.needs_rankings or _has_enough(state)):
        return Step(Action.START_ROUND, _ready_sentence(state))
    if state.open_comparisons:
        return Step(Action.RANK, _ranking_sentence(state))
    if state.can_sample:
        return Step(Action.WRITE_COMPLETIONS, _("Nothing waits to be ranked: let the served model write completions."))
    if not state.refusal:
        return Step(Action.START_ROUND, _ready_sentence(state))
    return Step(Action.ADD_PROMPTS, state.refusal)


def _has_enough(state: State) -> bool:
    return state.new_rankings >= state.wanted_rankings or (state.new_rankings > 0 and not state.open_comparisons)


def _ready_sentence(state: State) -> str:
    if not state.needs_rankings:
        return _("A round can start: its recipe needs no rankings.")
    text = ngettext(
        "A round can learn from %(n)s new ranking.", "A round can learn from %(n)s new rankings.", state.new_rankings
    )
    return text % {"n": f"{state.new_rankings:,}"}


def _ranking_sentence(state: State) -> str:
    text = ngettext(
        "The next round waits for rankings: there is %(n)s new one, and about %(wanted)s show an effect.",
        "The next round waits for rankings: there are %(n)s new ones, and about %(wanted)s show an effect.",
        state.new_rankings,
    )
    return text % {"n": f"{state.new_rankings:,}", "wanted": f"{state.wanted_rankings:,}"}


def _labels() -> dict[Action, str]:
    return {
        Action.IMPORT_MODEL: _("Import the first model"),
        Action.ADD_PROMPTS: _("Add prompts"),
        Action.WRITE_GUIDELINES: _("Write the guidelines"),
        Action.INVITE_PEOPLE: _("Invite people"),
        Action.SEE_MACHINES: _("See the machines"),
        Action.SERVE_MODEL: _("Choose the model to serve"),
        Action.WRITE_COMPLETIONS: _("Write completions to rank"),
        Action.RANK: _("Rank"),
        Action.START_ROUND: _("Start a round"),
        Action.WATCH_ROUND: _("Watch the round"),
        Action.TRY_BLIND: _("Try it blind"),
        Action.COMPARE: _("Compare its samples"),
        Action.PROMOTE: _("Promote it"),
    }
