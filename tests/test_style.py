"""Rules of style: banned words, quotes, first lines of docstrings. `docs/glossary.md` lists the words."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.source import statements, tree_of

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("config", "feedback", "training")
MAX_FIRST_LINE = 25  # words
# First words of clauses that have no main verb, or whose subject comes last: a reader has to turn them round.
RIDDLES = ("What", "Who", "Whose", "How", "Where", "When", "Why", "Of", "Whether", "So", "Which", "As", "By", "Whoever")
PERSONIFICATION = {"told", "hears", "anew"}  # code returns, reports or receives; it is not told and does not hear


def python_files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def place(file: Path, line: int) -> str:
    return f"{file.relative_to(ROOT)}:{line}"


def banned_words() -> tuple[set[str], set[str]]:
    """Return the banned identifiers, and the words that no part of an identifier may be."""
    table = (ROOT / "docs" / "glossary.md").read_text("utf-8").split("## Words that are not used")[1]
    words = re.findall(r"^\| ([a-z_]+)(\*?) \|", table, flags=re.MULTILINE)
    parts = {word for word, star in words if star}
    return {word for word, star in words if not star} - {"banned"}, parts | {f"{word}s" for word in parts}


@cache
def parts_of(identifier: str) -> set[str]:
    return {part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)}


def identifiers(file: Path) -> Iterator[tuple[str, int]]:
    """Yield the names in the code with their lines, not those in comments and strings."""
    for token in tokenize.generate_tokens(io.StringIO(file.read_text("utf-8")).readline):
        if token.type == tokenize.NAME:
            yield token.string, token.start[0]


def docstrings(file: Path) -> list[tuple[str, int]]:
    definitions = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [tree_of(file), *(node for node in statements(file) if isinstance(node, definitions))]
    return [(text, getattr(node, "lineno", 1)) for node in nodes if (text := ast.get_docstring(node))]


def test_the_glossary_lists_banned_words():
    exact, parts = banned_words()
    assert "found" in exact
    assert {"opinion", "opinions"} <= parts
    assert parts_of("FairThreads_of_lessons") == {"fair", "threads", "of", "lessons"}


def test_no_banned_word_is_an_identifier():
    exact, parts = banned_words()

    def is_banned(name: str) -> bool:
        return name in exact or bool(parts_of(name) & parts)

    uses = [
        f"{place(file, line)} {name}"
        for file in python_files(*PRODUCT)
        if "migrations" not in file.parts
        # Comments and strings may use the words. Tokens tell them apart, but slowly: only where a word occurs.
        if any(is_banned(word) for word in set(re.findall(r"[^\W\d]\w*", file.read_text("utf-8"))))
        for name, line in identifiers(file)
        if is_banned(name)
    ]
    assert uses == []


def names_defined_in(file: Path) -> Iterator[tuple[str, int]]:
    """Yield the names of all functions and classes, and of the variables of the module."""
    for statement in statements(file):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name, statement.lineno
    for statement in tree_of(file).body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for node in (node for target in targets for node in ast.walk(target)):
                if isinstance(node, ast.Name):
                    yield node.id, node.lineno


def test_no_banned_word_names_a_helper_or_a_fixture_of_the_tests():
    exact, parts = banned_words()
    uses = [
        f"{place(file, line)} {name}"
        for file in python_files("tests")
        for name, line in names_defined_in(file)
        if not name.startswith("test_") and (name.lower() in exact or parts_of(name) & parts)
    ]
    assert uses == []


def test_the_first_line_of_a_docstring_is_short():
    long = [
        f"{place(file, line)} {text.splitlines()[0]}"
        for file in python_files(*PRODUCT, "tests")
        for text, line in docstrings(file)
        if len(text.split("\n\n")[0].split()) > 0 and len(text.splitlines()[0].split()) > MAX_FIRST_LINE
    ]
    assert long == []


def test_the_first_line_of_a_docstring_says_what_the_thing_is_or_does():
    riddles = [
        f"{place(file, line)} {text.splitlines()[0]}"
        for file in python_files(*PRODUCT, "tests")
        for text, line in docstrings(file)
        if "migrations" not in file.parts and text.split(maxsplit=1)[0] in RIDDLES
    ]
    assert riddles == []


def test_the_names_of_tests_have_their_subject_first():
    names = [
        (node.name, place(file, node.lineno))
        for file in python_files("tests")
        for node in statements(file)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    riddles = [
        f"{at} {name}"
        for name, at in names
        if name.split("_")[1].capitalize() in RIDDLES or PERSONIFICATION & set(name.split("_"))
    ]
    assert len(names) > 1000
    assert riddles == []


def places_of(pattern: str) -> list[str]:
    """Return where the pattern is found in text that people read: code, pages, documentation."""
    folders = (*PRODUCT, "tests", "templates", "docs", "static/accord")
    endings = {".py", ".html", ".md", ".js", ".css", ".toml"}
    files = [file for folder in folders for file in (ROOT / folder).rglob("*") if file.suffix in endings]
    return [
        place(file, number)
        for file in (*files, ROOT / "README.md", ROOT / "CHANGELOG.md")
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]


def test_quotes_in_english_text_are_straight():
    assert places_of("[\u00ab\u00bb\u2039\u203a]") == []


def test_no_file_has_the_marks_of_an_unresolved_merge():
    assert places_of("^(<{7}|={7}|>{7})( |$)") == []


def test_lines_of_documentation_are_at_most_as_wide_as_code():
    """Tables and code blocks may be wider: they cannot be wrapped."""
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    texts = {
        file: re.sub(
            r"^```.*?^```", lambda code: "\n" * code[0].count("\n"), file.read_text("utf-8"), flags=re.M | re.S
        )
        for file in files
    }
    wide = [
        place(file, number)
        for file, text in texts.items()
        for number, line in enumerate(text.split("\n"), 1)
        if len(line) > 120 and not line.lstrip().startswith("|")
    ]
    assert wide == []
