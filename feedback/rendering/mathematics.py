"""TeX in text: `$…$` and `\\(…\\)` in a line, `$$…$$` and `\\[…\\]` in a line or on lines of their own.

The HTML contains the TeX as text in a `math` element; KaTeX typesets it in the browser (static/accord/math.js).
A dollar sign is money far more often than mathematics. So it opens a formula only under Pandoc's rule (Pandoc manual,
`tex_math_dollars`: no space inside, no digit after the closing one), and not before an amount. A formula that defines
macros stays plain text: without macros a formula cannot grow beyond what was typed.
"""

import re

from feedback.rendering.pieces import Document

MAX_FORMULA_LENGTH = 2_000  # characters
MAX_FORMULAS_LENGTH = 8_000  # characters of all formulas of a text; KaTeX typesets that many without a pause
CLOSERS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "$": "$"}
_AMOUNT = re.compile(r"\d[\d.,]*+\s++[^\W\d_]{2}")  # "5 or"
_DEFINES = re.compile(r"\\(?:[gex]?def|let|futurelet|global|(?:re|provide)?newcommand)(?![a-zA-Z])")


def accept_formula(document: Document, content: str) -> bool:
    """Return whether this formula may be typeset; if so, count its characters towards the limit."""
    used = document.formula_characters + len(content)
    if used > MAX_FORMULAS_LENGTH or _DEFINES.search(content):
        return False
    document.formula_characters = used
    return True


def looks_like_mathematics(source: str, start: int, end: int) -> bool:
    """Return whether `$source[start:end]$` is mathematics rather than two amounts of money."""
    content = source[start:end]
    before, after = source[max(start - 2, 0) : start - 1], source[end + 1 : end + 2]
    is_tight = content == content.strip() and not content.endswith("\\")
    return is_tight and not before.isalnum() and not after.isalnum() and not _AMOUNT.match(content)
