"""The map from visible characters to the raw text, which marked spans rely on."""

import random
from html.parser import HTMLParser

import pytest

from feedback.rendering import render
from feedback.rendering.visible import ATOM, SPACES, visible

# The parts of the HTML that a browser counts as one character.
ATOMS = {"control", "math"}


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.read, self.open = "", []

    def handle_starttag(self, tag, attributes):
        if tag in ("br", "hr"):
            return
        is_atom = bool(ATOMS & set((dict(attributes).get("class") or "").split()))
        if is_atom and not any(self.open):
            self.read += ATOM
        self.open.append(is_atom)

    def handle_endtag(self, tag):
        if tag not in ("br", "hr"):
            self.open.pop()

    def handle_data(self, data):
        if not any(self.open):
            self.read += "".join(character for character in data if character not in SPACES)


def on_screen(text):
    reader = Reader()
    reader.feed(render(text))
    reader.close()
    return reader.read


def marked(text, shown):
    """Return the raw text of the first place where these characters are on screen."""
    found = visible(text)
    start = found.text.index(shown)
    first, last = found.source_range(start, start + len(shown))
    return text[first:last]


@pytest.mark.parametrize(
    ("text", "shown", "raw"),
    [
        ("<think>a\nb</think>\n\n**c** d", "bcd", "b</think>\n\n**c** d"),
        ("a\n</think>\nb", "b", "b"),
        ("a **b** c", "bc", "b** c"),
        ("a **b** c", "ab", "a **b"),
        ("a **b** c", "b", "b"),
        ("# One #\n\nTwo\n===", "One#", "One #"),
        ("# One #\n\nTwo\n===", "Two===", "Two\n==="),
        ("1. 1 apple", "1a", "1 a"),
        ("- [x](http://y) x", "x](", "x]("),
        ("> - deep\n>   er", "per", "p\n>   er"),
        ("> ends\nhere", "sh", "s\nh"),
        ("`a  b`` c", "b``", "b``"),
        ("`` a` `` b", "a`", "a`"),
        ("*a\\*b* &lt; <http://c.d>", "\\*b*", "\\*b*"),
        ("*a\\*b* &lt; <http://c.d>", "&lt;", "&lt;"),
        ("*a\\*b* &lt; <http://c.d>", "<http://c.d>", "<http://c.d>"),
        ("x ![a *b*](http://c) y", "![a*b*]", "![a *b*]"),
        ("x $a$ y", "x" + ATOM, "x $a$"),
        ("|a|b|\n|-|-|\n| c | **d**|\n||e|", "cd", "c | **d"),
        ("|a|b|\n|-|-|\n| c | **d**|\n||e|", "e", "e"),
        ("|a|b|\n|-|-|\n|c\\|d|e\\||", "\\|de", "\\|d|e"),
        ("a|b\n-|-\nc|d", "cd", "c|d"),
        ("```python\nx = '<b>'\n  y\n```", "<b>'y", "<b>'\n  y"),
        ("- ```\n  code\n  ```\n- z", "code", "code"),
        ("    x\n    y", "xy", "x\n    y"),
        ("\u3000\u3000你好**世界**", "好世", "好**世"),
        ("a\r\n\r\n**b**\r\nc", "bc", "b**\r\nc"),
        ("pay \u202egni\u202c", ATOM + "gni" + ATOM, "\u202egni\u202c"),
        ("👩\u200d👩\u200d👧 a\u0301", "👩\u200d👧a\u0301", "👩\u200d👧 a\u0301"),
        ("مرحبا **يا** عالم", "ياعالم", "يا** عالم"),
        ("~~a~~ ~b ***c***", "~b*c", "~b ***c"),
    ],
)
def test_a_mark_on_the_screen_covers_the_same_part_of_the_source(text, shown, raw):
    assert visible(text).text == on_screen(text)
    assert marked(text, shown) == raw


def test_mapping_back_to_visible_characters_covers_the_marked_text():
    text = "a **bold `c`** and [d](http://e)\n\n> f\n> g"
    found = visible(text)
    for start in range(len(found.text)):
        for end in range(start + 1, len(found.text) + 1):
            assert found.visible_range(*found.source_range(start, end)) == (start, end)
    assert found.visible_range(2, 4) == (0, 0)  # "**" is not visible


PIECES = [
    *(
        "a",
        "b",
        "c ",
        "*",
        "**",
        "_",
        "`",
        "``",
        "\n",
        "\n\n",
        "> ",
        "- ",
        "1. ",
        "# ",
        " ",
        "  ",
        "[",
        "](u)",
        "](",
        "!",
    ),
    *("~~", "|", "\\", "&lt;", "<http://q>", "    ", "```\n", "\t", "é", "你", "\u3000", "---\n", "\n|-|-|\n", "a|b"),
    *("$", "$$", "\\(", "\\)", "\\[", "\\]", "\ufeff", "5", "\u202e", "\r\n", "\x85", "x^2"),
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_every_visible_character_maps_to_the_source_in_any_markdown(seed):
    dice = random.Random(seed)
    for _ in range(500):
        text = "".join(dice.choices(PIECES, k=dice.randint(1, 25)))
        found = visible(text)
        assert found.text == on_screen(text), repr(text)
        for character, start, end in zip(*found, strict=True):
            assert 0 <= start < end <= len(text), repr(text)
            assert character == ATOM or character == text[start:end].replace("\r\n", ""), repr(text)


@pytest.mark.slow
def test_text_too_long_for_markdown_is_its_own_place():
    text = "**word** \r\n" * 90_000
    found = visible(text)
    assert marked(text, "word****w") == "word** \r\n**w"
    assert len(found.text) == 8 * 90_000
