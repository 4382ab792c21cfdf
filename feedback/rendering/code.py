"""Colours of code: comments, strings, numbers and keywords of common languages, linear in the code's length.

Pygments has better lexers, but nearly all of them are superlinear on some text (training/LOG.md, 2026-11-27): 2,000
characters of "a", newline take its C# lexer half a second. Here one expression reads a language. Each of its
alternatives begins with characters that no other begins with, and either matches all that it looked at (possessive
quantifiers, no backtracking) or looks at no more than 80 characters.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

LONGEST = 20_000  # characters of a fenced block with colours

_DOUBLE = r'"(?:[^"\\\n]|\\.)*+"?'  # ends with its line at the latest
_SINGLE = r"'(?:[^'\\\n]|\\.){0,80}+'"
_BACKTICK = r"`(?:[^`\\]|\\[\s\S])*+`?"
_TRIPLE = r'"""(?:[^"\\]|\\[\s\S]|"(?!""))*+(?:""")?|' + r"'''(?:[^'\\]|\\[\s\S]|'(?!''))*+(?:''')?"
_HASH = r"\#[^\n]*+"
_SLASHES = r"//[^\n]*+|/\*(?:[^*]|\*(?!/))*+(?:\*/)?"
_DASHES = r"--[^\n]*+"
_MARKUP = r"<!--(?:[^-]|-(?!->))*+(?:-->)?"

_FAMILIES = {  # comments, strings: aliases
    (_HASH, f"{_TRIPLE}|{_DOUBLE}|{_SINGLE}"): "python py python3 starlark gdscript",
    (_HASH, f"{_DOUBLE}|{_SINGLE}"): "bash sh shell zsh console ruby rb perl pl r yaml yml toml make makefile "
    "dockerfile docker ini conf elixir julia powershell ps1 nginx cmake tcl awk",
    (_SLASHES, f"{_DOUBLE}|{_SINGLE}"): "c h cpp c++ cc java csharp c# cs objective-c kotlin scala swift dart rust rs "
    "php groovy css scss less json json5 proto glsl solidity",
    (_SLASHES, f"{_DOUBLE}|{_SINGLE}|{_BACKTICK}"): "javascript js jsx typescript ts tsx go golang",
    (_DASHES, f"{_DOUBLE}|{_SINGLE}"): "sql postgresql mysql sqlite lua haskell hs ada vhdl",
    (_MARKUP, _DOUBLE): "html xml svg vue",
}
LANGUAGES = {alias: rules for rules, aliases in _FAMILIES.items() for alias in aliases.split()}

_KEYWORDS = frozenset(
    """
    abstract and as assert async await begin bool boolean break byte case catch char class const constexpr
    continue def default defer del delete do done double elif else elsif end enum esac except export extends
    extern false False fi final finally float fn for foreach from func function global go goto if impl implements
    import in include instanceof int interface is lambda let local long loop match mod module mut namespace new
    nil None nonlocal not null nullptr object of operator or override package pass print private protected pub
    public raise require return self Self short signed sizeof static str string struct super switch template then
    this throw throws trait true True try type typedef typename typeof union unless unsigned until use using val
    var virtual void volatile when where while with yield add all alter between by create distinct drop exists
    from full group having index inner insert into join key left like limit on order outer primary right select
    set table update values view
    """.split()  # noqa: SIM905 (a list would take a hundred lines)
)
_UPPER = frozenset(word.upper() for word in _KEYWORDS)


def colours(code: str, language: str, most: int) -> list[tuple[int, int, str]]:
    """(start, end, class) of what has a colour, in order; none where the language is unknown, or more than `most`."""
    if language not in LANGUAGES or len(code) > LONGEST:
        return []
    found = list(islice(_colours(code, language), most + 1))
    return found if len(found) <= most else []


def _colours(code: str, language: str) -> Iterator[tuple[int, int, str]]:
    for found in _pattern(language).finditer(code):
        kind = found.lastgroup or ""
        if kind != "k" or found[0] in _KEYWORDS or found[0] in _UPPER:
            yield found.start(), found.end(), kind


@lru_cache(maxsize=len(LANGUAGES))
def _pattern(language: str) -> re.Pattern[str]:
    comments, strings = LANGUAGES[language]
    return re.compile(rf"(?P<c>{comments})|(?P<s>{strings})|(?P<m>\b[0-9][\w.]*+)|(?P<k>[^\W\d]\w*+)")
