"""Syntax highlighting in linear time: comments, strings, numbers and keywords of common languages.

Pygments has better lexers, but nearly all of them are superlinear on some text (training/LOG.md, 2026-11-27): its C#
lexer needs half a second for 2,000 characters of "a", newline. Here each language has one regular expression. Its
alternatives begin with different characters. Each alternative either consumes all that it read (possessive
quantifiers, no backtracking) or reads at most 80 characters.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

MAX_CODE_LENGTH = 20_000  # characters; longer code is not highlighted

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


def highlight(code: str, language: str, most: int) -> list[tuple[int, int, str]]:
    """Return (start, end, CSS class) of the highlighted parts, in order.

    The list is empty if the language is unknown, the code is too long, or there are more than `most` parts.
    """
    if language not in LANGUAGES or len(code) > MAX_CODE_LENGTH:
        return []
    highlights = list(islice(_highlights(code, language), most + 1))
    return highlights if len(highlights) <= most else []


def _highlights(code: str, language: str) -> Iterator[tuple[int, int, str]]:
    for match in _pattern(language).finditer(code):
        kind = match.lastgroup or ""
        if kind != "k" or match[0] in _KEYWORDS or match[0] in _UPPER:
            yield match.start(), match.end(), kind


@lru_cache(maxsize=len(LANGUAGES))
def _pattern(language: str) -> re.Pattern[str]:
    comments, strings = LANGUAGES[language]
    return re.compile(rf"(?P<c>{comments})|(?P<s>{strings})|(?P<m>\b[0-9][\w.]*+)|(?P<k>[^\W\d]\w*+)")
