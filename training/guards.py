"""Guards of a round: whether its checkpoint lost something that its base could do.

The program guards measures both on the same held-out prompts and guard texts. A guard has fallen if it is worse than
before by more than two standard errors of the difference between prompts. Of a checkpoint that is as good as its base,
a guard is marked with the probability P(Z > 2) = 2.3 %; among n guards at least one is with at most n times that
(Boole's inequality, since guards depend on one another).

The length has no better direction, and people's taste often changes it. It has fallen if it differs from the base's by
more than half of it, beyond two standard errors.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from feedback.models import Project
from training.models import Checkpoint, Round
from training.rounds.recipes.description import Text

NAME = "guards"  # of the job
ERRORS = 2.0  # standard errors of the difference
FALSE_ALARM_RATE = 0.02275  # P(Z > 2) of a normal Z
TOLERATED_LENGTH = 0.5  # change of the mean length, as a share of the base's
LENGTH = "tokens"


class Guard(NamedTuple):
    """A figure that should not become worse."""

    name: str
    label: Text
    note: Text
    is_better_higher: bool


GUARDS = (
    Guard("nll", gettext_lazy("Guard texts"), gettext_lazy("−log-likelihood, nats per token"), False),
    Guard("exact_match", gettext_lazy("Exact match"), gettext_lazy("share of completions"), True),
    Guard("token_f1", gettext_lazy("Token F1"), gettext_lazy("as in SQuAD, 0 to 1"), True),
    Guard("rouge_l", "ROUGE-L", gettext_lazy("F-measure, 0 to 1"), True),
    Guard("bleu", "BLEU", gettext_lazy("mean of sentences, 0 to 1"), True),
    Guard("empty", gettext_lazy("Empty"), gettext_lazy("share of completions"), False),
    Guard(
        "repeated",
        gettext_lazy("Repeated"),
        gettext_lazy("share of completions with a phrase three times in a row"),
        False,
    ),
    Guard("cut_off", gettext_lazy("Cut off"), gettext_lazy("share of completions, at the maximum length"), False),
    Guard(LENGTH, gettext_lazy("Length"), gettext_lazy("tokens; marked if it changes by more than half"), False),
)


@dataclass(frozen=True)
class Fallen:
    """A guard that is worse than before by more than two standard errors."""

    name: str
    before: float
    after: float
    difference: float  # after minus before
    error: float  # standard error of the difference
    sentence: str


@dataclass(frozen=True)
class Row:
    """A guard of a round: means before and after, the difference with its error (None with fewer than 30 prompts)."""

    name: str
    label: Text
    note: Text
    before: float
    after: float
    difference: float
    error: float | None
    count: int  # prompts, or texts
    is_fallen: bool

    @property
    def margin(self) -> float | None:
        """Return two standard errors, beyond which a guard has fallen."""
        return None if self.error is None else ERRORS * self.error


def table_of(round_: Round) -> list[Row]:
    """Return the guards of a round in the order of GUARDS, then those by further text metrics; none before its end."""
    figures: dict[str, dict[str, Any]] = round_.results.get(NAME, {}).get("guards", {})
    known = {guard.name: guard for guard in GUARDS}
    names = [*(name for name in known if name in figures), *sorted(set(figures) - set(known))]
    guards = [known.get(name, Guard(name, name, gettext_lazy("0 to 1"), True)) for name in names]
    return [
        Row(*guard[:3], **figures[guard.name], is_fallen=_is_fallen(guard, figures[guard.name])) for guard in guards
    ]


def _is_fallen(guard: Guard, figures: dict[str, Any]) -> bool:
    if figures["error"] is None:
        return False
    margin: float = ERRORS * figures["error"]
    if guard.name == LENGTH:
        return bool(abs(figures["difference"]) - margin > TOLERATED_LENGTH * figures["before"])
    loss = -figures["difference"] if guard.is_better_higher else figures["difference"]
    return bool(loss > margin)


def fallen_in(round_: Round) -> list[Fallen]:
    """Return the guards that fell in a round."""
    return [
        Fallen(row.name, row.before, row.after, row.difference, row.error, _sentence(row))
        for row in table_of(round_)
        if row.is_fallen and row.error is not None
    ]


def fallen(checkpoint: Checkpoint) -> list[Fallen]:
    """Return the guards that fell in the round that made the checkpoint; none for an imported one."""
    round_ = getattr(checkpoint, "round", None)
    return fallen_in(round_) if round_ else []


def _sentence(row: Row) -> str:
    """Return a sentence that says how a guard fell."""
    return _(
        "%(guard)s (%(note)s) got worse, from %(before)s to %(after)s: "
        "by %(difference)s, with a standard error of %(error)s."
    ) % {
        "guard": row.label,
        "note": row.note,
        "before": f"{row.before:.3f}",
        "after": f"{row.after:.3f}",
        "difference": f"{abs(row.difference):.3f}",
        "error": f"{row.error:.3f}",
    }


def warning(falls: Iterable[Fallen]) -> str:
    """Return the sentences of guards that fell, "" for none."""
    return " ".join(fall.sentence for fall in falls)


def false_alarm_sentence(rows: list[Row]) -> str:
    """Return how many guards can be marked, and how often that happens to a checkpoint as good as its base."""
    n = sum(row.error is not None for row in rows)
    if not n:
        return _("With fewer than 30 held-out prompts or texts there is no standard error, so nothing is marked.")
    return ngettext(
        "A guard is marked if it is worse by more than two standard errors. If the checkpoint is as good as its base, "
        "this one is marked in %(one)s %% of rounds.",
        "A guard is marked if it is worse by more than two standard errors. If the checkpoint is as good as its base, "
        "each of these %(n)s is marked in %(one)s %% of rounds, and at least one of them in at most %(any)s %%.",
        n,
    ) % {"n": n, "one": f"{100 * FALSE_ALARM_RATE:.1f}", "any": f"{min(100.0, 100 * n * FALSE_ALARM_RATE):.0f}"}


class Divergence(NamedTuple):
    """KL of a round's checkpoint from another one, in nats per completion; interval and error from 30 prompts on."""

    name: str
    label: Text
    value: float
    low: float | None
    high: float | None
    error: float | None
    prompts: int | None  # held-out ones; None: measured on the samples, as before there were guards


def divergences_of(round_: Round) -> list[Divergence]:
    """Return the KL from the round's base and from its root, on held-out prompts; none where it was not measured.

    A round from before there were guards has the KL from the root on its samples.
    """
    result = round_.results.get(NAME) or round_.results.get("samples", {})
    labels = {"kl_from_base": _("KL from the base"), "kl_from_root": _("KL from the imported model")}
    return [
        Divergence(
            name,
            label,
            value=result[name],
            low=result.get(f"{name}_low"),
            high=result.get(f"{name}_high"),
            error=result.get(f"{name}_error"),
            prompts=result.get("prompts"),
        )
        for name, label in labels.items()
        if result.get(name) is not None
    ]


def kl_from_root(round_: Round) -> Divergence | None:
    """Return the KL of the round's checkpoint from the imported model; None if it was not measured."""
    return next((kl for kl in divergences_of(round_) if kl.name == "kl_from_root"), None)


class Summary(NamedTuple):
    """The guards of a round in short."""

    round: Round
    rows: list[Row]
    divergences: list[Divergence]

    @property
    def fallen(self) -> list[Row]:
        return [row for row in self.rows if row.is_fallen]


def summaries_of(project: Project) -> list[Summary]:
    """Return the guards of all rounds of the project that measured some, newest first."""
    measured = project.rounds.filter(results__has_key=NAME).select_related("checkpoint__source").order_by("-number")
    return [Summary(round_, table_of(round_), divergences_of(round_)) for round_ in measured]


def as_json(round_: Round) -> dict[str, Any] | None:
    """Return the guards of a round as a JSON object; None if it measured none."""
    if NAME not in round_.results:
        return None
    names = ("name", "before", "after", "difference", "error", "count", "is_fallen")
    return {
        "guards": [{name: getattr(row, name) for name in names} for row in table_of(round_)],
        "fallen": [fall.sentence for fall in fallen_in(round_)],
        "divergences": [
            {name: getattr(kl, name) for name in ("name", "value", "low", "high", "error", "prompts")}
            for kl in divergences_of(round_)
        ],
    }
