"""Parts of the page of ratings: rows, matrix, sentences and charts, from reports."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from django.utils.translation import gettext as _

from feedback.models import Source
from feedback.quality.ratings import Coefficient, Ratings, SliceRate, Status, WinRate
from feedback.reports.source_ratings import SourceRatings
from training.over_optimisation import Finding, RoundPoint, best_of_n, win_share
from training.web.charts import Chart, Dot, Point, chart_of, percent, row_charts

MAX_MATRIX = 12  # sources; all are in the files
HEAT_STEP = 0.08  # of a win rate, from 50 %, for one shade
MAX_HEAT = 5
LEVEL = 0.05  # of the marks of slices


@dataclass(frozen=True)
class SourceRow:
    """A source of the table."""

    source: Source
    round: int | None  # number of the round that made its checkpoint
    rankings: int
    rating: Coefficient | None
    counts: tuple[int, int, int]  # wins, ties and losses
    state: str  # why it is not rated, or ""
    dot: Dot | None


@dataclass(frozen=True)
class Cell:
    """A cell of the matrix: the win rate of the row's source against the column's."""

    rate: WinRate
    heat: str  # class of its shade
    mark: str  # ▲ or ▼ if the interval lies on one side of 50 %


@dataclass(frozen=True)
class MatrixRow:
    source: Source
    cells: list[Cell | None]  # None: they did not meet, or it is one source


@dataclass(frozen=True)
class SliceRow:
    """A slice of the prompts."""

    label: str
    group: str
    one: SliceRate
    dot: Dot | None
    differs: bool


def source_rows(result: SourceRatings, round_of: dict[int, int]) -> list[SourceRow]:
    """Return the rows of the table: rated sources, the best one first, then the others. round_of: by source id."""
    rated = {rating.source_id: rating for rating in result.ratings.ratings}
    alone = [source_id for source_id in sorted(result.rankings) if source_id not in rated]
    ids = [*rated, *alone]
    ratings = [_rating_of(rated[source_id]) if source_id in rated else None for source_id in ids]
    rows = []
    for source_id, rating, dot in zip(ids, ratings, row_charts(ratings, 0.0), strict=True):
        counts = rated.get(source_id)
        rows.append(
            SourceRow(
                source=result.sources[source_id],
                round=round_of.get(source_id),
                rankings=result.rankings[source_id],
                rating=rating,
                counts=(counts.wins, counts.ties, counts.losses) if counts else (0, 0, 0),
                state=state_of(counts.status if counts else Status.DISCONNECTED),
                dot=dot,
            )
        )
    return rows


def _rating_of(rating: Any) -> Coefficient | None:
    return None if rating.value is None else Coefficient("rating", rating.value, rating.low, rating.high)


def state_of(status: Status) -> str:
    """Return why a source is not rated; "" if it is."""
    return {
        Status.RATED: "",
        Status.ONLY_WINS: _("won every preference: its rating has no upper bound yet"),
        Status.ONLY_LOSSES: _("lost every preference: its rating has no lower bound yet"),
        Status.DISCONNECTED: _("not compared with the others yet"),
        Status.UNDETERMINED: _("too few wins in both directions"),
    }[status]


def matrix_rows(result: SourceRatings) -> list[MatrixRow]:
    """Return the win rates of the first MAX_MATRIX sources that met another one, in the order of the table."""
    ranked = [rating.source_id for rating in result.ratings.ratings]
    met = (row for row in ranked if any(row != column and result.win_rate(row, column) for column in ranked))
    ids = list(islice(met, MAX_MATRIX))
    return [
        MatrixRow(
            result.sources[row], [_cell(result.win_rate(row, column)) if row != column else None for column in ids]
        )
        for row in ids
    ]


def _cell(rate: WinRate | None) -> Cell | None:
    if rate is None:
        return None
    shade = min(MAX_HEAT, math.ceil(abs(rate.value - 0.5) / HEAT_STEP))
    heat = f"{'more' if rate.value > 0.5 else 'less'}-{shade}" if shade else ""
    return Cell(rate, heat, "▲" if rate.low > 0.5 else "▼" if rate.high < 0.5 else "")


def slice_rows(rates: Sequence[SliceRate]) -> list[SliceRow]:
    """Return the rows of the slices, on one scale from 0 to 1."""
    values = [Coefficient("win_rate", one.rate.value, one.rate.low, one.rate.high) for one in rates]
    return [
        SliceRow(*_slice_names(one), one, dot, one.p_value is not None and one.p_value < LEVEL)
        for one, dot in zip(rates, row_charts(values, 0.5, (0.0, 1.0)), strict=True)
    ]


def _slice_names(one: SliceRate) -> tuple[str, str]:
    if one.kind == "split":
        return {"train": _("training"), "held_out": _("held out")}.get(one.value, one.value), _("Split")
    if one.kind == "length":
        return _("%(bounds)s characters") % {"bounds": one.value}, _("Length of the prompt")
    return one.value, one.key


def bias_sentence(ratings: Ratings) -> str:
    """Return a sentence about the effect of the display order on the annotators."""
    share = win_share(ratings.first_shown)
    if share is None or share.value is None:
        return ""
    if share.low is None or share.high is None:
        text = _("Of two equal completions the one shown first wins %(share)s; there is too little for an interval.")
        return text % {"share": percent_of(share.value)}
    if share.low <= 0.5 <= share.high:
        text = _(
            "The position on the page has no proven effect: of two equal completions the one shown first wins "
            "%(share)s (%(low)s to %(high)s)."
        )
    elif share.low > 0.5:
        text = _(
            "Your annotators favour the completion shown first: if two are equal, it wins %(share)s (%(low)s to "
            "%(high)s)."
        )
    else:
        text = _(
            "Your annotators favour completions that are not shown first: if two are equal, the first one wins only "
            "%(share)s (%(low)s to %(high)s)."
        )
    return text % _shares(share)


def ties_sentence(ratings: Ratings) -> str:
    """Return a sentence about ties; "" without a rated source."""
    ties = sum(rating.ties for rating in ratings.ratings) // 2
    if not ratings.rated:
        return ""
    if ratings.log_nu is None or ratings.log_nu.value is None:
        return _("Nobody has tied two sources.")
    nu = math.exp(ratings.log_nu.value)
    text = _("%(ties)s of %(preferences)s preferences are ties; between two equal sources %(share)s would be.")
    return text % {"ties": ties, "preferences": ratings.preferences, "share": percent_of(nu / (2 + nu))}


def length_sentence(ratings: Ratings) -> str:
    """Return a sentence about the effect of length: of two equal completions, one with twice as many characters."""
    length = next((one for one in ratings.style if one.name == "log_length"), None)
    if length is None or length.value is None:
        return _("Whether length alone wins is not known yet: there are too few rankings, or lengths hardly differ.")
    bounds = (None if one is None else one * math.log(2) for one in (length.value, length.low, length.high))
    share = win_share(Coefficient("length", *bounds))
    if share is None or share.low is None or share.high is None:
        return ""
    if share.low <= 0.5 <= share.high:
        text = _(
            "Length has no proven effect: of two completions that differ in length only, one twice as long wins "
            "%(share)s (%(low)s to %(high)s)."
        )
    else:
        text = _(
            "Length counts: of two completions that differ in length only, one twice as long wins %(share)s (%(low)s "
            "to %(high)s)."
        )
    return text % _shares(share)


def style_label(name: str) -> str:
    """Return the name of a style covariate."""
    return {
        "log_length": _("Length"),
        "log_headings": _("Headings"),
        "log_list_items": _("List items"),
        "log_bold": _("Bold passages"),
    }[name]


def finding_sentences(points: Sequence[RoundPoint]) -> list[str]:
    """Return a sentence for each round whose reward rises while people's rating does not."""
    sentences = []
    for point in points:
        share = win_share(point.rise)
        if point.finding not in (Finding.FALLS, Finding.FLAT) or share is None or point.gain is None:
            continue
        if point.finding == Finding.FALLS:
            text = _(
                "Round %(number)s is over-optimised: the reward model's score rises by %(gain)s, but people's rating "
                "falls; its completions win %(share)s (%(low)s to %(high)s) against those it started from."
            )
        else:
            text = _(
                "Round %(number)s may be over-optimised: the reward model's score rises by %(gain)s, but people's "
                "rating does not rise noticeably; its completions win %(share)s (%(low)s to %(high)s) against those "
                "it started from."
            )
        sentences.append(text % {"number": point.number, "gain": f"{point.gain.value:.2f}", **_shares(share)})
    return sentences


def no_finding_sentence(points: Sequence[RoundPoint]) -> str:
    """Return a sentence for a project in which no round is reported."""
    tested = sum(point.finding != Finding.NO_GAIN for point in points)
    if not tested:
        return _(
            "Whether the reward model's score rises without people's rating is not known yet: no round has both a "
            "gain in reward with an interval and a rating of its checkpoint and of the one it started from."
        )
    undecided = sum(point.finding == Finding.UNDECIDED for point in points)
    if undecided:
        text = _(
            "No round is shown to raise the reward model's score without people's rating; of %(tested)s rounds with "
            "both, the intervals leave %(undecided)s open."
        )
        return text % {"tested": tested, "undecided": undecided}
    return _("In every round that raises the reward model's score, people's rating rises too.")


def round_charts(points: Sequence[RoundPoint]) -> dict[str, Chart | None]:
    """Return the charts of the rounds: ratings by number, and win rate and reward against KL from the root."""
    rated = [
        Point(Coefficient("round", float(point.number)), point.rating, str(point.number))
        for point in points
        if point.rating
    ]
    won = [Point(point.kl, point.win_rate, str(point.number)) for point in points if point.kl and point.win_rate]
    rewarded = [Point(point.kl, point.reward, str(point.number)) for point in points if point.kl and point.reward]
    line = [best_of_n(math.exp(index / 10)) for index in range(400)]
    return {
        "rating_chart": chart_of(rated, 0.0, least_x_step=1.0) if rated else None,
        "win_chart": chart_of(won, 0.5, line, percent, (0.0, 1.0)) if won else None,
        "reward_chart": chart_of(rewarded, 0.0) if rewarded else None,
    }


def percent_of(share: float) -> str:
    """Return a share for a sentence."""
    return f"{100 * share:.0f} %"


def _shares(share: Coefficient) -> dict[str, str]:
    bounds = {"share": share.value, "low": share.low, "high": share.high}
    return {name: "–" if bound is None else percent_of(bound) for name, bound in bounds.items()}
