"""Strangers' text to HTML that is safe to show: Markdown, code with colours, TeX, and nothing that runs or loads.

Three walls, each enough alone: raw HTML is shown as text, never passed on (markdown-it with html off); whatever was
rendered goes through an allow-list (nh3); and the pages' Content-Security-Policy runs and loads nothing from elsewhere.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from html import escape

import nh3
from django.utils.translation import gettext as _
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments import highlight as pygments_highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from feedback.rendering.mathematics import mathematics

# Markdown is parsed up to here; longer text is shown as it is, so that one huge completion cannot hold up a worker.
MARKDOWN_CHARACTERS = 60_000
HIGHLIGHT_CHARACTERS = 20_000
# Joiners that scripts and emoji need are no disguise; the other invisible controls are made visible.
_WANTED_CONTROLS = {"\n", "\t", "\u200c", "\u200d", "\ufe0f"}
_CONTROLS = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_TAGS = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em"),
    *("strong", "s", "table", "thead", "tbody", "tr", "th", "td", "a", "span", "div"),
}
_CODE_CLASSES = {value for value in HtmlFormatter().ttype2class.values() if value}


def render(text: str) -> str:
    """The HTML of a completion or message. Empty text gives an empty string."""
    text = with_line_feeds(text.encode(errors="replace").decode())
    html = f'<div class="plain">{escape(text)}</div>' if is_long(text) else _parser().render(text)
    return _CONTROLS.sub(_visible, _cleaner().clean(html))


def with_line_feeds(text: str) -> str:
    """Every line ends with LF alone."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_long(text: str) -> bool:
    return len(text) > MARKDOWN_CHARACTERS


def without_controls(text: str, instead: str) -> str:
    """The text with a character instead of each one that is invisible, and shown by its number."""
    return _CONTROLS.sub(lambda found: found[0] if found[0] in _WANTED_CONTROLS else instead, text)


@lru_cache(maxsize=1)
def _cleaner() -> nh3.Cleaner:
    return nh3.Cleaner(
        tags=_TAGS,
        attributes={"a": {"href", "target"}, "ol": {"start"}},
        attribute_filter=lambda tag, name, value: _CONTROLS.sub("", value),
        allowed_classes={"span": _CODE_CLASSES | {"image", "math", "display"}, "div": {"plain"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow ugc",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


def _visible(match: re.Match[str]) -> str:
    character = match.group()
    if character in _WANTED_CONTROLS:
        return character
    name = unicodedata.name(character, "control character").lower()
    return f'<span class="control" title="{escape(name)}">U+{ord(character):04X}</span>'


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    return markdown()


def markdown() -> MarkdownIt:
    """A new parser of what pages show as Markdown."""
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False, "highlight": _highlight})
    parser.enable(["table", "strikethrough"])
    mathematics(parser)
    parser.add_render_rule("image", _image)
    parser.add_render_rule("softbreak", lambda *_: "<br>\n")  # models mean the line ends that they write
    return parser


def _image(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, environment: EnvType
) -> str:
    """An image is named, never loaded: its address would tell a stranger who reads what, and when."""
    token = tokens[index]
    named = " ".join((_("image:"), token.content, str(token.attrGet("src"))))
    return f'<span class="image">[{escape(named)}]</span>'


def _highlight(code: str, language: str, attributes: str) -> str:
    if not language or len(code) > HIGHLIGHT_CHARACTERS or code.startswith("\ufeff"):  # which pygments would hide
        return escape(code)
    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return escape(code)
    return pygments_highlight(code, lexer, HtmlFormatter(nowrap=True))
