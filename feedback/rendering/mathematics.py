"""TeX in Markdown: `$…$` and `\\(…\\)` in a line, `$$…$$` and `\\[…\\]` on their own. A plug-in of markdown-it.

What is found here is written out as text in a `math` element; KaTeX sets it in the browser (static/accord/math.js).
A dollar is money far more often than mathematics, so it opens a formula only as Pandoc's does (Pandoc manual,
`tex_math_dollars`: no space inside, no digit behind the closing one), and not where an amount follows. Definitions
stay as they were written: without macros of its own, no formula grows beyond what is typed.
"""

import re
from html import escape

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType

LONGEST = 2_000  # characters of a formula
MOST = 8_000  # characters of all the formulas of a text: what a browser sets without a pause
_CLOSERS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "$": "$"}
_AMOUNT = re.compile(r"\d[\d.,]*\s+[^\W\d_]{2,}")  # «5 or»
_DEFINES = re.compile(r"\\(?:[gex]?def|let|futurelet|global|(?:re|provide)?newcommand)(?![a-zA-Z])")


def mathematics(parser: MarkdownIt) -> None:
    parser.inline.ruler.before("escape", "mathematics", _inline)
    parser.block.ruler.before("fence", "mathematics", _block, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    parser.add_render_rule("math_inline", lambda _self, tokens, index, *_: _element(tokens[index]))
    parser.add_render_rule("math_block", lambda _self, tokens, index, *_: f"<p>{_element(tokens[index])}</p>\n")


def _element(token: Token) -> str:
    display = " display" if token.markup in ("$$", "\\[") else ""
    return f'<span class="math{display}">{escape(token.content)}</span>'


def _inline(state: StateInline, silent: bool) -> bool:
    opener = next((each for each in _CLOSERS if state.src.startswith(each, state.pos)), None)
    if opener is None:
        return False
    start = state.pos + len(opener)
    end = state.src.find(_CLOSERS[opener], start, min(state.posMax, start + LONGEST))
    content = state.src[start:end]
    if end < 0 or not content.strip() or (opener == "$" and not _is_no_money(state.src, start, end)):
        return False
    if not silent:
        if not _may_set(state.env, content):
            return False
        token = state.push("math_inline", "", 0)
        token.markup, token.content = opener, content
    state.pos = end + len(_CLOSERS[opener])
    return True


def _is_no_money(source: str, start: int, end: int) -> bool:
    content = source[start:end]
    before, behind = source[start - 2 : start - 1], source[end + 1 : end + 2]
    hugged = content == content.strip() and "\n\n" not in content and not content.endswith("\\")
    return hugged and not before.isalnum() and not behind.isalnum() and not _AMOUNT.match(content)


def _may_set(environment: EnvType, content: str) -> bool:
    """Whether the text may have one more formula; counted as they are found."""
    used = environment.get("mathematics", 0) + len(content)
    if _DEFINES.search(content) or used > MOST:
        return False
    environment["mathematics"] = used
    return True


def _block(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    """`$$` or `\\[` that begins a line, up to a line that its closer ends."""
    if state.is_code_block(start_line):
        return False
    start = state.bMarks[start_line] + state.tShift[start_line]
    opener = state.src[start : start + 2]
    if opener not in ("$$", "\\["):
        return False
    last = _last_line(state, start_line, end_line, start + 2, opener)
    if last is None:
        return False
    lines = state.getLines(start_line, last + 1, state.tShift[start_line], False)
    content = lines.strip()[2:-2]
    if not content.strip() or (not silent and not _may_set(state.env, content)):
        return False
    if not silent:
        token = state.push("math_block", "", 0)
        token.markup, token.content, token.block = opener, content, True
        token.map = [start_line, last + 1]
        state.line = last + 1
    return True


def _last_line(state: StateBlock, start_line: int, end_line: int, inside: int, opener: str) -> int | None:
    closer = _CLOSERS[opener]
    for line in range(start_line, end_line):
        if line > start_line and state.sCount[line] < state.blkIndent:
            return None  # it left the list or quotation that the formula began in
        first = inside if line == start_line else state.bMarks[line]
        text = state.src[first : state.eMarks[line]]
        if text.rstrip().endswith(closer):
            return line
        # Another opener ends the search too: a million of them are looked at once each.
        if closer in text or opener in text or state.eMarks[line] - inside > LONGEST:
            return None
    return None
