"""Parts of the page of the reward model: rows, sentences and charts, from the stored report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.text import Truncator
from django.utils.translation import gettext as _

from feedback.dialogues import Answer
from feedback.models import Comparison, ComparisonItem, Project
from feedback.models.flags import ALL_BAD, ALL_GOOD
from feedback.quality.agreement import Estimate
from feedback.quality.ratings import Coefficient
from training.models import RewardReport
from training.web.charts import Chart, Dot, Histogram, Point, chart_of, histogram_of, percent, row_charts
from training.web.rating_rows import percent_of

LIMITS = (0.0, 1.0)  # of the charts of shares
EXCERPT = 160  # characters of a completion
NOT_CALIBRATED = 0.05  # expected calibration error from which the page says so

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class ShareRow:
    """A share with its interval and its counts."""

    label: str
    group: str
    one: Coefficient
    pairs: int | None
    prompts: int | None
    dot: Dot | None
    note: str = ""


@dataclass(frozen=True)
class SourceScores:
    """Scores of a source's completions."""

    source: str
    completions: int
    mean: float
    deviation: float
    histogram: Histogram


@dataclass(frozen=True)
class Mistake:
    """A held-out pair that the model orders otherwise than the annotator, for sure."""

    comparison: Comparison
    preferred: str  # excerpts of the completions
    other: str
    probability: float  # of the annotator's choice, by the model

    @property
    def percent(self) -> str:
        return "< 0.1 %" if self.probability < 0.001 else f"{100 * self.probability:.1f} %"


def comparison_rows(report: RewardReport, overall: Estimate | None) -> list[ShareRow]:
    """Return the model's accuracy, and beside it what people reach. overall: agreement in the whole project."""
    figures = report.figures
    rows: list[tuple[str, Figures | None, str]] = [
        (_("Reward model"), figures["accuracy"], _("pairs that it orders as the annotator did")),
        (_("Two people, on the same comparisons"), figures["agreement"], _("of one another")),
    ]
    if overall is not None and overall.value is not None:
        counts = {"pairs": overall.pairs, "prompts": None}
        everywhere = {"value": overall.value, "low": overall.low, "high": overall.high, **counts}
        rows.append((_("Two people, on all comparisons"), everywhere, _("of one another")))
    best = report.round.results.get("reward", {}).get("best_possible_accuracy")
    if best is not None:
        note = _("of any model that predicts one person, at this agreement")
        rows.append((_("Best possible accuracy"), {"value": best, "low": None, "high": None}, note))
    return share_rows([(label, "", share, note) for label, share, note in rows if share is not None])


def share_rows(rows: Sequence[tuple[str, str, Figures, str]]) -> list[ShareRow]:
    """Return rows of (label, group, share, note), with charts on one scale."""
    values = [
        Coefficient("share", share["value"], share["low"], share["high"]) for _label, _group, share, _note in rows
    ]
    return [
        ShareRow(label, group, value, share.get("pairs"), share.get("prompts"), dot, note)
        for (label, group, share, note), value, dot in zip(rows, values, row_charts(values, 0.5, LIMITS), strict=True)
    ]


def slice_rows(figures: Figures) -> list[ShareRow]:
    """Return the rows of the slices."""
    named = [(*_slice_names(one["kind"], one["key"], one["value"]), one["share"], "") for one in figures["slices"]]
    return share_rows([row for row in named if row[2] is not None])


def _slice_names(kind: str, key: str, value: str) -> tuple[str, str]:
    """Return the label and the group of a slice."""
    if kind == "ties":
        return {"some": _("with ties"), "none": _("without ties")}[value], _("Ranking")
    if kind == "strength":
        return value, _("Strength")
    if kind == "flag":
        named = {ALL_BAD: _("All bad"), ALL_GOOD: _("All good"), "": _("without a flag")}
        return named.get(value, value), _("Flag of the ranking")
    if kind == "preferred":
        return {"longer": _("the longer one"), "shorter": _("the shorter one")}[value], _("Preferred")
    if kind == "length_difference":
        return _("%(bounds)s characters") % {"bounds": value}, _("Difference of the lengths")
    if kind == "length":
        return _("%(bounds)s characters") % {"bounds": value}, _("Length of the prompt")
    return value, key


def calibration_rows(figures: Figures) -> list[ShareRow]:
    """Return the bins: the label is the mean confidence, the share how often the model was right."""
    return share_rows([(percent_of(one["confidence"]), "", one["share"], "") for one in figures["calibration"]])


def calibration_chart(figures: Figures) -> Chart | None:
    """Return the observed share by the predicted one, and the diagonal."""
    points = [
        Point(
            Coefficient("confidence", one["confidence"]),
            Coefficient("share", one["share"]["value"], one["share"]["low"], one["share"]["high"]),
            "",
        )
        for one in figures["calibration"]
    ]
    if not points:
        return None
    diagonal = [(0.5, 0.5), (1.0, 1.0)]
    return chart_of(
        points, 0.5, diagonal, percent, LIMITS, x_limits=(0.5, 1.0), x_label=lambda value: f"{100 * value:.0f}"
    )


def source_rows(figures: Figures) -> list[SourceScores]:
    """Return the scores of the sources, those with most completions first."""
    histogram = figures["histogram"]
    if histogram is None:
        return []
    return [
        SourceScores(
            one["source"],
            one["completions"],
            one["mean"],
            one["deviation"],
            histogram_of(histogram["edges"], one["counts"]),
        )
        for one in histogram["sources"]
    ]


def ceiling_sentence(figures: Figures) -> str:
    """Return a sentence that compares the accuracy with people's agreement; "" where one of the two is missing."""
    accuracy, agreement = figures["accuracy"], figures["agreement"]
    if accuracy is None or agreement is None:
        return ""
    if accuracy["low"] > agreement["high"]:
        return _("It predicts a person's choice more often than another person does.")
    if accuracy["high"] < agreement["low"]:
        return _("It predicts a person's choice less often than another person does: there is more to learn.")
    return _("It predicts a person's choice about as often as another person does: the intervals overlap.")


def calibration_sentence(report: RewardReport) -> str:
    """Return a sentence on the calibration; "" without held-out pairs."""
    error = report.figures["expected_calibration_error"]
    if error is None:
        return ""
    temperature = report.round.results.get("reward", {}).get("fitted_temperature", 1.0)
    if error < NOT_CALIBRATED:
        text = _("Its probabilities are %(points)s points off on average: close to what people choose.")
    elif temperature > 1:
        text = _("Its probabilities are %(points)s points off on average: it is surer than it should be.")
    else:
        text = _("Its probabilities are %(points)s points off on average: it is less sure than it could be.")
    return text % {"points": f"{100 * error:.1f}"}


def ties_sentence(figures: Figures) -> str:
    """Return a sentence about tied pairs; "" without pairs or without a tie."""
    ties = figures["ties"]
    if not ties["tied"]:
        return ""
    text = _("%(share)s of the pairs are ties; the model expects %(predicted)s.")
    return text % {"share": percent_of(ties["share"]), "predicted": percent_of(ties["predicted"])}


def mistakes_of(project: Project, figures: Figures) -> list[Mistake]:
    """Return the worst mistakes, without those whose comparison has been deleted. Runs two queries."""
    stored = figures["mistakes"]
    comparisons = project.comparisons.select_related("prompt").in_bulk([one["comparison"] for one in stored])
    items = ComparisonItem.objects.filter(comparison__in=comparisons).select_related("completion")
    answers = {(item.comparison_id, item.position): excerpt(item.completion.answer) for item in items}
    return [
        Mistake(
            comparisons[pk],
            answers[pk, one["preferred"]],
            answers[pk, one["other"]],
            one["probability"],
        )
        for one in stored
        if (pk := one["comparison"]) in comparisons
    ]


def excerpt(answer: Answer) -> str:
    """Return the beginning of a completion; of a dialogue, of the policy's first turn."""
    return Truncator(" ".join(answer.text.split())).chars(EXCERPT)
