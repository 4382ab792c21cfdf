"""TeX in text: `$…$` and `\\(…\\)` in a line, `$$…$$` and `\\[…\\]` in a line or on lines of their own.

What is found is written out as text in a `math` element; KaTeX sets it in the browser (static/accord/math.js).
A dollar is money far more often than mathematics, so it opens a formula only as Pandoc's does (Pandoc manual,
`tex_math_dollars`: no space inside, no digit behind the closing one), and not where an amount follows. Definitions
stay as they were written: without macros of its own, no formula grows beyond what is typed.
"""

import re

from feedback.rendering.pieces import Page

LONGEST = 2_000  # characters of a formula
MOST = 8_000  # characters of all the formulas of a text: what a browser sets without a pause
CLOSERS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "$": "$"}
_AMOUNT = re.compile(r"\d[\d.,]*+\s++[^\W\d_]{2}")  # "5 or"
_DEFINES = re.compile(r"\\(?:[gex]?def|let|futurelet|global|(?:re|provide)?newcommand)(?![a-zA-Z])")


def may_set(page: Page, content: str) -> bool:
    """Whether the text may have this formula too; counts what it has."""
    used = page.formula_characters + len(content)
    if used > MOST or _DEFINES.search(content):
        return False
    page.formula_characters = used
    return True


def is_no_money(source: str, start: int, end: int) -> bool:
    """Whether `$source[start:end]$` reads as mathematics rather than as two amounts."""
    content = source[start:end]
    before, behind = source[max(start - 2, 0) : start - 1], source[end + 1 : end + 2]
    hugged = content == content.strip() and not content.endswith("\\")
    return hugged and not before.isalnum() and not behind.isalnum() and not _AMOUNT.match(content)
