"""Spans of completions that annotators marked good or bad.

A span is kept as offsets into the completion's raw text, in characters (Unicode code points), `start` included and
`end` not: so a program that reads an export needs no Markdown. The page shows rendered text, and knows of each span
only which of the characters on screen it covers (see `rendering.visible`); they are translated here, once, on their
way in and out. Markup between two marked characters belongs to the span, and markup around them does not:
in `a **b** c` the marked «b c» is `b** c`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.models import Ranking
from feedback.rendering.visible import Visible, visible

GOOD, BAD = "good", "bad"
MAX_SPANS = 200  # in one ranking


@dataclass(frozen=True)
class Span:
    """Characters `start` … `end` − 1 of the raw text of the completion at `completion`, in the order of display."""

    completion: int
    start: int
    end: int
    mark: str


@dataclass(frozen=True)
class SeenSpan:
    """The same as the page knows it: `start` and `end` count visible characters, `quote` is the first of them."""

    completion: int
    start: int
    end: int
    mark: str
    quote: str

    def in_text(self, shown: Visible) -> Span:
        # A browser that translates pages, or a page older than the server, counts other characters than we do.
        if not 0 <= self.start < self.end <= len(shown.text) or not self._covers(shown):
            raise Invalid(
                _("A marked span is not in the completion as it is shown: load the page again and mark it anew.")
            )
        start, end = shown.raw(self.start, self.end)
        return Span(self.completion, start, end, self.mark)

    def _covers(self, shown: Visible) -> bool:
        return bool(self.quote) and shown.text[self.start : self.end].startswith(self.quote)


def stored(spans: Sequence[Span | SeenSpan], texts: Sequence[str], order: Sequence[int]) -> list[dict[str, Any]]:
    """As a Ranking keeps them: by position, sorted, none over another. `texts` run in the order of display."""
    if len(spans) > MAX_SPANS:
        raise Invalid(
            _("There are %(count)s marked spans, and %(most)s is the most.") % {"count": len(spans), "most": MAX_SPANS}
        )
    seen: dict[int, Visible] = {}
    for span in spans:
        if not 0 <= span.completion < len(texts):
            raise Invalid(_("A marked span names its completion by its place in the order shown, from 0."))
        if isinstance(span, SeenSpan) and span.completion not in seen:
            seen[span.completion] = visible(texts[span.completion])
    raw = [span.in_text(seen[span.completion]) if isinstance(span, SeenSpan) else span for span in spans]
    kept = sorted((_checked(span, texts, order) for span in raw), key=lambda each: (each["completion"], each["start"]))
    for before, after in pairwise(kept):
        if before["completion"] == after["completion"] and before["end"] > after["start"]:
            raise Invalid(_("Two marked spans of a completion overlap: mark each character once."))
    return kept


def shown_spans(ranking: Ranking) -> list[dict[str, Any]]:
    """A ranking's spans with their completions in the order of display."""
    places = {position: place for place, position in enumerate(ranking.display_order)}
    moved = [{**span, "completion": places[span["completion"]]} for span in ranking.spans]
    return sorted(moved, key=lambda span: (span["completion"], span["start"]))


def seen(spans: Sequence[dict[str, Any]], text: str) -> list[tuple[int, int, str]]:
    """One completion's spans for the page: (start, end, mark) in visible characters; what shows nothing is left out."""
    if not spans:
        return []
    shown = visible(text)
    covered = [(*shown.covering(span["start"], span["end"]), span["mark"]) for span in spans]
    return [(start, end, mark) for start, end, mark in covered if start < end]


def _checked(span: Span, texts: Sequence[str], order: Sequence[int]) -> dict[str, Any]:
    if span.mark not in (GOOD, BAD):
        raise Invalid(_("A span is marked good or bad."))
    length = len(texts[span.completion])
    if not 0 <= span.start < span.end <= length:
        raise Invalid(
            _("A marked span runs from %(start)s to %(end)s, and its completion has %(length)s characters.")
            % {"start": span.start, "end": span.end, "length": length}
        )
    return {"completion": order[span.completion], "start": span.start, "end": span.end, "mark": span.mark}
