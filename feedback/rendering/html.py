"""Strangers' text to HTML that is safe to show, in bounded time: Markdown, colours, TeX; nothing that runs or loads.

Three walls, each enough alone: every character of the text is escaped; whatever was rendered goes through an allow-list
(nh3); and the pages' Content-Security-Policy runs and loads nothing from elsewhere.

Every text has some HTML within 50 ms of CPU: a text that is long, or needs more steps than `pieces` allows, is plain
text, escaped and nothing else, and says so. What was rendered is kept by the text's digest.
"""

from functools import lru_cache
from hashlib import sha256
from html import escape
from typing import NamedTuple

import nh3
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from markupsafe import Markup

from feedback.rendering import blocks, controls
from feedback.rendering.cache import TextCache
from feedback.rendering.pieces import MOST_STEPS, Formula, Page, Piece, Shown, TooMuch

MARKDOWN_CHARACTERS = 60_000  # of a longer text no Markdown is read
_TAGS = {
    *("p", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong"),
    *("s", "table", "thead", "tbody", "tr", "th", "td", "a", "span", "div"),
}
_CACHE = TextCache(most_characters=32 * 1024 * 1024)


class Rendered(NamedTuple):
    """A text's pieces, and why it is shown as plain text; empty when it is not."""

    page: Page
    plain_because: str = ""


def render(text: str, *, as_plain: bool = False) -> str:
    """Return the HTML of a completion or message. Empty text, and only that, gives an empty string."""
    if not text:
        return ""
    digest = sha256(text.encode(errors="surrogatepass")).hexdigest()
    return _CACHE.get_or_make(f"{get_language()} {as_plain} {digest}", lambda: _html(read(text, as_plain=as_plain)))


def read(text: str, *, as_plain: bool = False) -> Rendered:
    """Find the Markdown in a text; in plain text there is none."""
    source = with_line_feeds(text.encode(errors="replace").decode())
    count = controls.number_of(source)
    if count > controls.MOST:
        source = controls.CONTROLS.sub(controls.INSTEAD, source)
        sentence = _(
            "Shown as plain text because it has more than %(most)s invisible characters, each shown as %(sign)s."
        )
        return _plain(Page(source), sentence % {"most": controls.MOST, "sign": controls.INSTEAD})
    page = Page(source, has_controls=count > 0)
    if not source.strip():
        return _plain(page, _("Only white space: %(count)s characters.") % {"count": len(text)})
    if as_plain:
        return _plain(page, _("Shown as plain text because the conversation is long."))
    if len(source) > MARKDOWN_CHARACTERS:
        sentence = _("Shown as plain text because it is longer than %(most)s characters.")
        return _plain(page, sentence % {"most": MARKDOWN_CHARACTERS})
    try:
        blocks.read(page)
    except TooMuch:
        sentence = _("Shown as plain text because it has more than %(most)s lines and marks.")
        return _plain(page, sentence % {"most": MOST_STEPS})
    return Rendered(page)


def with_line_feeds(text: str) -> str:
    """Return the text with every line ended by LF alone."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def written(text: str) -> Markup:
    """Return the text for an HTML attribute, character by character; a CR would become LF there."""
    return Markup(escape(text).replace("\r", "&#13;"))


def _plain(page: Page, reason: str) -> Rendered:
    page.pieces = [Shown(0, len(page.source))]
    return Rendered(page, reason)


def _html(rendered: Rendered) -> str:
    page, reason = rendered
    html = "".join(_piece(page, piece) for piece in page.pieces)
    if reason:  # escaped text without a tag: there is nothing to clean, and it may be long
        return f'<div class="plain" data-note="{escape(reason)}">{html}</div>'
    return _cleaner().clean(html)


def _piece(page: Page, piece: Piece) -> str:
    if isinstance(piece, str):
        return piece
    if isinstance(piece, Shown):
        return controls.shown(page.source, *piece) if page.has_controls else escape(page.source[slice(*piece)])
    if isinstance(piece, Formula):
        display = " display" if piece.is_display else ""
        return f'<span class="math{display}">{controls.shown(piece.tex, 0, len(piece.tex))}</span>'
    return ""


@lru_cache(maxsize=1)
def _cleaner() -> nh3.Cleaner:
    return nh3.Cleaner(
        tags=_TAGS,
        attributes={"a": {"href", "target"}, "li": {"value"}, "span": {"title"}},
        allowed_classes={
            "span": {"k", "s", "c", "m", "math", "display", "control"},
            "div": {"language"},
            "ul": {"dash", "plus"},
            "ol": {"paren"},
            "td": {"right", "center"},
            "th": {"right", "center"},
        },
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow ugc",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )
