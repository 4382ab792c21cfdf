"""Curves of a round's metrics, thinned in the database: a page gets kilobytes, however many steps a round has.

The steps of a job are divided into columns of equal width. Of each column the lowest and the highest value are kept
with their steps, so a drawn curve loses no extreme (min-max aggregation; Jugel et al. 2014, "M4: A
Visualization-Oriented Time Series Data Aggregation", PVLDB 7(10), section 4). The first and the last value are kept,
too. The mean of each column is for the smoothed curve: a mean of extremes would be biased.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Max
from django.utils.translation import gettext as _

from training.models import Round

COLUMNS = 200  # by default
MAX_COLUMNS = 1000
MAX_STEP = 2**31 - 1
MAX_NEW_LINES = 500  # with more than these since the last answer, the reader gets thinned curves again

Names = Mapping[str, Sequence[str]]  # job to its metrics


class Span(NamedTuple):
    """Range of steps, both ends included; None: open."""

    first: int | None = None
    last: int | None = None


ALL_STEPS = Span()


class Column(NamedTuple):
    """Values of a metric in one column of steps."""

    lowest: list[float]  # value, step
    highest: list[float]  # value, −step
    first: int  # step
    last: int  # step
    mean: float
    values: int  # their number


SPAN = """
    SELECT min(step), max(step) FROM training_metric
    WHERE round_id = %(round)s AND job = %(job)s AND step BETWEEN %(first)s AND %(last)s AND id <= %(until)s"""

# One row for every column of steps, with the aggregates of all metrics: grouping by metric, too, would sort gigabytes.
# OFFSET 0 keeps the subquery apart. Otherwise every aggregate would read its number from the JSON again.
THINNED = """
    SELECT {aggregates} FROM (
        SELECT step, {numbers} FROM training_metric
        WHERE round_id = %(round)s AND job = %(job)s AND step BETWEEN %(first)s AND %(last)s AND id <= %(until)s
        OFFSET 0
    ) AS line
    GROUP BY (step - %(first)s) / %(width)s ORDER BY (step - %(first)s) / %(width)s"""
NUMBER = "(values ->> %(name_{n})s)::float8 AS value_{n}"
# Arrays compare by their first element: the least [value, step] is the lowest value with the step where it is first.
AGGREGATES = """
    min(ARRAY[value_{n}, step]) FILTER (WHERE value_{n} IS NOT NULL),
    max(ARRAY[value_{n}, -step]) FILTER (WHERE value_{n} IS NOT NULL),
    min(step) FILTER (WHERE value_{n} IS NOT NULL), max(step) FILTER (WHERE value_{n} IS NOT NULL),
    avg(value_{n}), count(value_{n})"""
AGGREGATED = 6  # numbers of a metric in a row


def names_of(round_: Round) -> dict[str, list[str]]:
    """Return the metrics that the round's recipe draws, by job."""
    names: dict[str, list[str]] = {}
    for job in round_.jobs:
        drawn = [name for curve in job.curves for name in curve.metrics.split()]
        if drawn:
            names[job.name] = list(dict.fromkeys(drawn))
    return names


def last_id(round_: Round) -> int:
    """Return the id of the round's newest line of metrics; 0 before the first."""
    newest: int | None = round_.metrics.aggregate(newest=Max("pk"))["newest"]
    return newest or 0


def thinned(
    round_: Round, names: Names, until: int, columns: int = COLUMNS, span: Span = ALL_STEPS
) -> list[dict[str, Any]]:
    """Return the curves of these metrics: `{"job", "metric", "steps", "values", "means"}`; no empty ones.

    until: id of the last line to read. A curve has at most 2·columns + 2 values. `means` are `[step, mean, count]` of
    each column; it is empty if every value of the curve is in `values`.
    """
    return [
        curve
        for job, metrics in names.items()
        for curve in _curves_of(round_, job, metrics, until, max(1, min(columns, MAX_COLUMNS)), span)
    ]


def _curves_of(
    round_: Round, job: str, metrics: Sequence[str], until: int, columns: int, span: Span
) -> Iterator[dict[str, Any]]:
    """Yield the curves of a job's metrics that have a value."""
    parameters: dict[str, Any] = {"round": round_.pk, "job": job, "until": until}
    parameters |= {
        "first": min(span.first or 0, MAX_STEP),
        "last": MAX_STEP if span.last is None else min(span.last, MAX_STEP),
    }
    parameters |= {f"name_{n}": name for n, name in enumerate(metrics)}
    with connection.cursor() as cursor:
        cursor.execute(SPAN, parameters)
        first, last = cursor.fetchone()
        if first is None:
            return
        steps = last - first + 1
        parameters |= {"first": first, "last": last, "width": 1 if steps <= 2 * columns else -(-steps // columns)}
        places = range(len(metrics))
        numbers = ", ".join(NUMBER.format(n=n) for n in places)
        cursor.execute(
            THINNED.format(aggregates=", ".join(AGGREGATES.format(n=n) for n in places), numbers=numbers), parameters
        )
        rows = cursor.fetchall()
    filled = {
        name: [column for row in rows if (column := Column(*row[n * AGGREGATED : (n + 1) * AGGREGATED])).values]
        for n, name in enumerate(metrics)
    }
    ends = {step for of_metric in filled.values() if of_metric for step in (of_metric[0].first, of_metric[-1].last)}
    lines = dict(round_.metrics.filter(job=job, step__in=ends, pk__lte=until).values_list("step", "values"))
    for name, of_metric in filled.items():
        if of_metric:
            yield _curve(job, name, of_metric, {step: line[name] for step, line in lines.items() if name in line})


def _curve(job: str, name: str, columns: Sequence[Column], values: Mapping[int, float]) -> dict[str, Any]:
    """Return a curve. values: by step, those of the first and the last step of the curve among them."""
    first, last = columns[0].first, columns[-1].last
    points: dict[float, float] = {step: values[step] for step in (first,) if step in values}
    for column in columns:
        lowest, highest = column.lowest, [column.highest[0], -column.highest[1]]
        points |= {step: value for value, step in sorted((lowest, highest), key=lambda pair: pair[1])}
    points |= {step: values[step] for step in (last,) if step in values}
    is_whole = len(points) == sum(column.values for column in columns)
    means = [[(column.first + column.last) // 2, rounded(column.mean), column.values] for column in columns]
    return {
        "job": job,
        "metric": name,
        "steps": [int(step) for step in points],
        "values": [rounded(value) for value in points.values()],
        "means": [] if is_whole else means,
    }


def rounded(value: float) -> float:
    """Return the value with six significant digits, which is more than a screen shows."""
    return float(f"{value:.6g}")


def levels_of(round_: Round) -> list[dict[str, Any]]:
    """Return the best attainable values of curves: `{"job", "metrics", "value", "low", "high", "sentence"}`.

    value: the estimate, which has bounds, or a lower bound, which has none; None: neither is known.
    """
    return [
        {"job": job.name, "metrics": curve.metrics, **_level(round_.results.get(job.name, {}), curve.best)}
        for job in round_.jobs
        for curve in job.curves
        if curve.best
    ]


def _level(result: dict[str, Any], name: str) -> dict[str, Any]:
    best, low, high, least = (result.get(f"{name}{end}") for end in ("", "_low", "_high", "_at_least"))
    if best is not None and low is not None and high is not None:
        sentence = _("Best attainable: %(value)s (%(low)s to %(high)s), on the evaluation prompts")
        sentence %= {"value": f"{best:.3g}", "low": f"{low:.3g}", "high": f"{high:.3g}"}
        return {"value": rounded(best), "low": rounded(low), "high": rounded(high), "sentence": sentence}
    value = None if least is None else rounded(least)
    if value is not None:
        sentence = _("Best attainable: at least %(value)s, on the evaluation prompts") % {"value": f"{value:.3g}"}
    else:
        sentence = _("Best attainable: not known") if result else _("Best attainable: not known before this stage ends")
    return {"value": value, "low": None, "high": None, "sentence": sentence}


def new_lines(round_: Round, names: Names, after: int) -> dict[str, Any]:
    """Return lines of metrics with ids above `after`: `{"lines": [{"id", "job", "step", "values"}…], "after"}`.

    `lines` is None if they are too many. `after` is the id of the last one. After a resume, repeated steps have new
    ids.
    """
    lines = list(round_.metrics.filter(pk__gt=after, job__in=names).order_by("pk")[: MAX_NEW_LINES + 1])
    if len(lines) > MAX_NEW_LINES:
        return {"lines": None, "after": after}
    rows = [
        {
            "id": line.pk,
            "job": line.job,
            "step": line.step,
            "values": {name: rounded(line.values[name]) for name in names[line.job] if name in line.values},
        }
        for line in lines
    ]
    return {"lines": rows, "after": lines[-1].pk if lines else after}


class _Line:
    """File-like object of csv.writer: `write` returns the line."""

    def write(self, line: str) -> str:
        return line


def csv_lines(rounds: Sequence[Round], job: str, metrics: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a CSV file with every value of these metrics, not thinned."""
    writer = csv.writer(_Line())
    yield writer.writerow(["round", "job", "step", *metrics])
    for round_ in rounds:
        lines = round_.metrics.filter(job=job).order_by("step").values_list("step", "values")
        for step, values in lines.iterator(chunk_size=1000):
            if any(name in values for name in metrics):
                yield writer.writerow([round_.number, job, step, *(values.get(name, "") for name in metrics)])
