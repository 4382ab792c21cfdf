"""Spans of completions that annotators marked good or bad.

A span is stored as offsets into the completion's source text, in characters (Unicode code points); `start` is included,
`end` is not. A program that reads an export needs no Markdown for that. The page shows rendered text and sends offsets
of visible characters (see `rendering.visible`), which this module translates in both directions. Markup between two
marked characters belongs to the span, markup around them does not: in `a **b** c`, the marked text "b c" is `b** c`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from django.utils.translation import gettext as _

from feedback.dialogues import Answer
from feedback.errors import Invalid
from feedback.models import Ranking
from feedback.rendering.visible import Visible, visible_answer

GOOD, BAD = "good", "bad"
MAX_SPANS = 200  # in one ranking


@dataclass(frozen=True)
class Span:
    """Characters `start` … `end` − 1 of the source of the completion at place `completion` of the order of display."""

    completion: int
    start: int
    end: int
    mark: str


@dataclass(frozen=True)
class VisibleSpan:
    """A span as the page sends it: offsets count visible characters, and `quote` holds the first of them."""

    completion: int
    start: int
    end: int
    mark: str
    quote: str

    def in_source(self, rendered: Visible) -> Span:
        # A browser that translates pages, or a page older than the server, may count other characters. The span would
        # then mark another text.
        if not 0 <= self.start < self.end <= len(rendered.text) or not self._matches_quote(rendered):
            raise Invalid(
                _("A marked span does not match the completion as it is displayed: reload the page and mark it again.")
            )
        start, end = rendered.source_range(self.start, self.end)
        return Span(self.completion, start, end, self.mark)

    def _matches_quote(self, rendered: Visible) -> bool:
        return bool(self.quote) and rendered.text[self.start : self.end].startswith(self.quote)


def spans_by_position(
    spans: Sequence[Span | VisibleSpan], answers: Sequence[Answer], order: Sequence[int]
) -> list[dict[str, Any]]:
    """Check spans and return them as a Ranking stores them: by position, sorted. `answers` are in the order of display.

    Raises Invalid for a span outside of its completion, an unknown mark, or two spans that overlap.
    """
    if len(spans) > MAX_SPANS:
        raise Invalid(
            _("There are %(count)s marked spans, more than the maximum of %(most)s.")
            % {"count": len(spans), "most": MAX_SPANS}
        )
    rendered: dict[int, Visible] = {}  # completions that have spans of the page are rendered once each
    rows = []
    for span in spans:
        if not 0 <= span.completion < len(answers):
            raise Invalid(_("A marked span must name its completion by the display position, counted from 0."))
        if isinstance(span, VisibleSpan):
            if span.completion not in rendered:
                rendered[span.completion] = visible_answer(answers[span.completion])
            span = span.in_source(rendered[span.completion])
        rows.append(_stored(span, answers, order))
    rows.sort(key=lambda row: (row["completion"], row["start"]))
    for before, after in pairwise(rows):
        if before["completion"] == after["completion"] and before["end"] > after["start"]:
            raise Invalid(_("Two marked spans of a completion overlap: mark each character once."))
    return rows


def shown_spans(ranking: Ranking) -> list[dict[str, Any]]:
    """Return a ranking's spans with their completions in the order of display."""
    places = {position: place for place, position in enumerate(ranking.display_order)}
    moved = [{**span, "completion": places[span["completion"]]} for span in ranking.spans]
    return sorted(moved, key=lambda span: (span["completion"], span["start"]))


def visible_spans(spans: Sequence[dict[str, Any]], answer: Answer) -> list[tuple[int, int, str]]:
    """Return one completion's spans for the page: (start, end, mark) in visible characters.

    A span of which nothing is visible is left out.
    """
    if not spans:
        return []
    rendered = visible_answer(answer)
    covered = [(*rendered.visible_range(span["start"], span["end"]), span["mark"]) for span in spans]
    return [(start, end, mark) for start, end, mark in covered if start < end]


def _stored(span: Span, answers: Sequence[Answer], order: Sequence[int]) -> dict[str, Any]:
    if span.mark not in (GOOD, BAD):
        raise Invalid(_("A span is marked good or bad."))
    length = len(answers[span.completion].text)
    if not 0 <= span.start < span.end <= length:
        raise Invalid(
            _("A marked span from %(start)s to %(end)s is outside of its completion, which has %(length)s characters.")
            % {"start": span.start, "end": span.end, "length": length}
        )
    return {"completion": order[span.completion], "start": span.start, "end": span.end, "mark": span.mark}
