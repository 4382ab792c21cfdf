"""Render untrusted text (Markdown, code, TeX) as safe HTML in bounded time.

There are three independent defences: every character of the text is escaped; the result passes an allow-list of tags
and attributes (nh3); the Content-Security-Policy of the pages loads and runs nothing from elsewhere.

Rendering takes at most 50 ms of CPU. A text that is too long, or needs more steps than `pieces` allows, is shown as
escaped plain text with a note that says so. Results are cached by the text's digest.
"""

from functools import lru_cache
from hashlib import sha256
from html import escape
from typing import NamedTuple

import nh3
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from markupsafe import Markup

from feedback.rendering import controls
from feedback.rendering.cache import TextCache
from feedback.rendering.pieces import MAX_STEPS, Document, Formula, Piece, Text, TooComplex
from feedback.rendering.reasoning import parse_parts

MAX_MARKDOWN_LENGTH = 60_000  # characters; a longer text is plain text
_TAGS = {
    *("p", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong"),
    *("s", "table", "thead", "tbody", "tr", "th", "td", "a", "span", "div"),
    *("details", "summary"),
}
_CACHE = TextCache(max_characters=32 * 1024 * 1024)


class Rendered(NamedTuple):
    """A parsed text; `plain_because` says why it is shown as plain text, and is empty if it is not."""

    document: Document
    plain_because: str = ""


def render(text: str, *, as_plain: bool = False) -> str:
    """Return the HTML of a completion or message; it is empty only for an empty text."""
    if not text:
        return ""
    digest = sha256(text.encode(errors="surrogatepass")).hexdigest()
    return _CACHE.get_or_make(f"{get_language()} {as_plain} {digest}", lambda: _html(parse(text, as_plain=as_plain)))


def parse(text: str, *, as_plain: bool = False) -> Rendered:
    """Parse the Markdown of a text; with `as_plain` the whole text is one piece."""
    source = with_line_feeds(text.encode(errors="replace").decode())
    count = controls.count_controls(source)
    if count > controls.MAX_CONTROLS:
        source = controls.CONTROLS.sub(controls.REPLACEMENT, source)
        sentence = _(
            "Shown as plain text because it has more than %(most)s invisible characters, each shown as %(sign)s."
        )
        return _plain(Document(source), sentence % {"most": controls.MAX_CONTROLS, "sign": controls.REPLACEMENT})
    document = Document(source, has_controls=count > 0)
    if not source.strip():
        return _plain(document, _("Only white space: %(count)s characters.") % {"count": len(text)})
    if as_plain:
        return _plain(document, _("Shown as plain text because the conversation is long."))
    if len(source) > MAX_MARKDOWN_LENGTH:
        sentence = _("Shown as plain text because it is longer than %(most)s characters.")
        return _plain(document, sentence % {"most": MAX_MARKDOWN_LENGTH})
    try:
        parse_parts(document)
    except TooComplex:
        sentence = _("Shown as plain text because it has more than %(most)s lines and marks.")
        return _plain(document, sentence % {"most": MAX_STEPS})
    return Rendered(document)


def with_line_feeds(text: str) -> str:
    """Return the text with CR LF and CR replaced by LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def attribute_value(text: str) -> Markup:
    """Return the text escaped for an HTML attribute. CR needs a reference: browsers read it as LF otherwise."""
    return Markup(escape(text).replace("\r", "&#13;"))


def _plain(document: Document, reason: str) -> Rendered:
    document.pieces = [Text(0, len(document.source))]
    return Rendered(document, reason)


def _html(rendered: Rendered) -> str:
    document, reason = rendered
    html = "".join(_piece(document, piece) for piece in document.pieces)
    if reason:  # escaped text without tags: nothing to clean, and it may be long
        return f'<div class="plain" data-note="{escape(reason)}">{html}</div>'
    return _cleaner().clean(html)


def _piece(document: Document, piece: Piece) -> str:
    if isinstance(piece, str):
        return piece
    if isinstance(piece, Text):
        if document.has_controls:
            return controls.to_html(document.source, *piece)
        return escape(document.source[slice(*piece)])
    if isinstance(piece, Formula):
        display = " display" if piece.is_display else ""
        return f'<span class="math{display}">{controls.to_html(piece.tex, 0, len(piece.tex))}</span>'
    return ""


@lru_cache(maxsize=1)
def _cleaner() -> nh3.Cleaner:
    return nh3.Cleaner(
        tags=_TAGS,
        attributes={
            "a": {"href", "target"},
            "li": {"value"},
            "span": {"title"},
            "details": {"open"},
            "summary": {"aria-label", "data-label"},
        },
        allowed_classes={
            "span": {"k", "s", "c", "m", "math", "display", "control"},
            "div": {"language"},
            "details": {"reasoning"},
            "ul": {"dash", "plus"},
            "ol": {"paren"},
            "td": {"right", "center"},
            "th": {"right", "center"},
        },
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow ugc",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )
