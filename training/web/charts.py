"""Geometry of the charts that pages draw as SVG: scales, ticks, dots with whiskers, lines; in units of the viewBox."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from feedback.quality.ratings import Coefficient

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 38  # margins of a chart with axes
ROW_WIDTH = 160  # of the chart in a row of a table
ROW_HEIGHT = 40  # of a histogram there
MAX_TICKS = 6


@dataclass(frozen=True)
class Tick:
    """A mark of an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Dot:
    """A point with its whiskers; a missing interval has none."""

    x: float
    y: float
    label: str
    left: float | None = None
    right: float | None = None
    top: float | None = None
    bottom: float | None = None


@dataclass(frozen=True)
class Chart:
    """A chart with two axes."""

    x_ticks: list[Tick]
    y_ticks: list[Tick]
    dots: list[Dot]
    zero: float | None  # y of the line that stands for no difference
    path: str = ""  # of a further line

    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Histogram:
    """A histogram in a row of a table."""

    bars: list[Bar]
    zero: float | None  # x of the value 0

    width: int = ROW_WIDTH
    height: int = ROW_HEIGHT


@dataclass(frozen=True)
class Scale:
    """A linear map of low … high to begin … end."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.begin + share * (self.end - self.begin), 1)


@dataclass(frozen=True)
class Point:
    """A point of a chart in its data's units."""

    x: Coefficient
    y: Coefficient
    label: str


def bounds_of(values: Iterable[Coefficient | None]) -> list[float]:
    """Return the values and the ends of their intervals."""
    return [
        bound
        for one in values
        if one is not None
        for bound in (one.value, one.low, one.high)
        if bound is not None and math.isfinite(bound)
    ]


def chart_of(
    points: Sequence[Point],
    zero: float,
    line: Sequence[tuple[float, float]] = (),
    y_label: Callable[[float], str] | None = None,
    y_limits: tuple[float, float] | None = None,
    least_x_step: float = 0.0,
    x_limits: tuple[float, float] | None = None,
    x_label: Callable[[float], str] | None = None,
) -> Chart:
    """Return a chart of points, and of a line within the same x. zero: y that stands for no difference.

    y_label, x_label: of a tick.
    """
    x_values = x_limits or [0.0, *bounds_of(point.x for point in points)]
    x_ticks = ticks_of(x_values, least_x_step)
    y_ticks = ticks_of([zero, *bounds_of(point.y for point in points)]) if y_limits is None else ticks_of(y_limits)
    x = Scale(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
    y = Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    inside = [(x(at), y(value)) for at, value in line if at <= x.high]
    return Chart(
        [Tick(x(value), (x_label or text_of)(value)) for value in x_ticks],
        [Tick(y(value), (y_label or text_of)(value)) for value in y_ticks],
        [_dot(point, x, y) for point in points],
        y(zero) if y.low <= zero <= y.high else None,
        "M" + " L".join(f"{at} {value}" for at, value in inside) if len(inside) > 1 else "",
    )


def _dot(point: Point, x: Scale, y: Scale) -> Dot:
    def place(scale: Scale, value: float | None) -> float | None:
        return None if value is None else scale(min(max(value, scale.low), scale.high))

    return Dot(
        x(point.x.value or 0.0),
        y(point.y.value or 0.0),
        point.label,
        place(x, point.x.low),
        place(x, point.x.high),
        place(y, point.y.high),
        place(y, point.y.low),
    )


def row_charts(
    values: Sequence[Coefficient | None], zero: float, limits: tuple[float, float] | None = None
) -> list[Dot | None]:
    """Return a dot with whiskers for each row of a table, on one scale; y is that of the line of no difference."""
    bounds = [zero, *bounds_of(values)] if limits is None else list(limits)
    low, high = min(bounds), max(bounds)
    padding = 0.04 * ((high - low) or 1.0)
    scale = Scale(low - padding, high + padding, 0, ROW_WIDTH)

    def place(value: float | None) -> float | None:
        return None if value is None else scale(value)

    return [
        None
        if one is None or one.value is None
        else Dot(scale(one.value), scale(zero), "", place(one.low), place(one.high))
        for one in values
    ]


def histogram_of(edges: Sequence[float], counts: Sequence[int]) -> Histogram:
    """Return the bars of counts between edges; the highest one has the whole height."""
    x = Scale(edges[0], edges[-1], 0, ROW_WIDTH)
    y = Scale(0, max(counts) or 1, 0, ROW_HEIGHT - 2)
    bars = [
        Bar(x(low) + 0.5, ROW_HEIGHT - y(count), round(max(x(high) - x(low) - 1, 0.5), 1), y(count))
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
        if count
    ]
    return Histogram(bars, x(0.0) if edges[0] < 0 < edges[-1] else None)


def ticks_of(values: Sequence[float], least_step: float = 0.0) -> list[float]:
    """Return at most MAX_TICKS + 1 round numbers that enclose the values, with equal steps of 1, 2 or 5 · 10ᵏ."""
    low, high = min(values), max(values)
    if high == low:
        low, high = low - 0.5, high + 0.5
    raw = max((high - low) / (MAX_TICKS - 1), least_step)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def text_of(value: float) -> str:
    """Return a tick's label: as few digits as it needs, with a minus sign."""
    return f"{round(value, 10):g}".replace("-", "−")


def percent(value: float) -> str:
    """Return a share as a tick's label."""
    return f"{100 * value:.0f} %"
