"""Rendering of texts: nothing that carries meaning disappears, and no text takes long."""

import math
import random
import re
import time

import pytest

from feedback.rendering import controls, html, render
from feedback.rendering.blocks import MAX_NESTING
from feedback.rendering.cache import TextCache
from feedback.rendering.highlighting import LANGUAGES, highlight
from feedback.rendering.pieces import MAX_HIGHLIGHTS, MAX_STEPS, Formula, Marker, Text

# Patterns of hidden markers by kind, and the element that must be visible in their place.
MARKERS = {
    "bold": (r"\*\*", "<strong>"),
    "strike": (r"~~", "<s>"),
    "code": (r"`{1,4}", "<code>"),
    "heading": (r"#{1,6}", "<h"),
    "rule": (r"\s*(---|\*\*\*|___)\s*", "<hr>"),
    "fence": (r"\s*(`{3,}|~{3,})\s*", "<pre>"),
    "quote": (r">", "<blockquote>"),
    "bullet": (r"[-+*]", "<li>"),
    "number": (r"\d+[.)]", "<li value="),
    "table": (r"[ \t|:-]*", "<td"),
    "reasoning": (r"</?(think|thinking|reasoning)>", "<details"),
}
PIECES = [
    *("a", "b ", "你", "é", " ", "    ", "\t", "\n", "\n\n", "  \n", "*", "**", "***", "_", "__", "~~", "`", "``"),
    *("```\n", "```py\n", "> ", ">", ">>> ", "- ", "+ ", "* ", "1. ", "7) ", "007. ", "# ", "#", "---", "---\n\n"),
    *("===\n", "|", "|-|-|\n", "\n|a|b|\n|:-|-:|\n", "a|b", "\\", "\\|", "\\\n", "&lt;", "&#65;", "<b>", "<!-- "),
    *("<http://q>", "[", "](http://u)", "](u)", "]: ", "![", "$", "$$", "\\(", "\\)", "\\[", "\\]", "\ufeff"),
    *("<think>", "</think>", "\u200b", "\u200d", "\u202e", "5", "x^2", "\r\n", "\x85", "(", ")"),
]  # fmt: skip


def check_nothing_is_lost(text: str) -> None:
    """Check the invariant of `pieces`: every hidden character is a marker of something that is visible."""
    rendered = html.parse(text)
    source, pieces = rendered.document.source, rendered.document.pieces
    placed = [piece for piece in pieces if not isinstance(piece, str)]
    times = [0] * len(source)
    for piece in placed:
        for index in range(piece.start, piece.end):
            times[index] += 1
    assert max(times, default=0) <= 1, repr(text)
    assert not [source[i] for i, count in enumerate(times) if not count and not source[i].isspace()], repr(text)
    starts = [piece.start for piece in placed if isinstance(piece, (Text, Formula))]
    assert starts == sorted(starts), repr(text)
    tags = "".join(piece for piece in pieces if isinstance(piece, str))
    for piece in placed:
        if isinstance(piece, Marker):
            marker, element = MARKERS[piece.kind]
            assert re.fullmatch(marker, source[piece.start : piece.end]), repr(text)
            assert element in tags or (element == "<td" and "<th" in tags), repr(text)
        elif isinstance(piece, Formula):
            assert piece.tex.replace(" ", "")[:3] in source[piece.start : piece.end].replace(" ", ""), repr(text)


def on_screen(text: str) -> str:
    """Return the text of the HTML."""
    return (
        re.sub(r"<[^>]*>", "", render(text))
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
        .replace("&#x27;", "'")
        .strip("\n")
    )


@pytest.mark.parametrize(
    ("text", "folded", "answer"),
    [
        ("<think>\nIt is *3*.\n</think>\n\nThe answer: **4**.", "<p>It is <em>*3*</em>.</p>", "<p>The answer:"),
        (" <reasoning>a</reasoning> b", "<p>a</p>", "<p> b</p>"),
        ("So it is 3.\n</think>\n\n4", "<p>So it is 3.</p>", "<p>4</p>"),
    ],
)
def test_reasoning_before_an_answer_is_folded_and_nothing_of_it_is_lost(text, folded, answer):
    check_nothing_is_lost(text)
    before, after = render(text).split("</details>")
    assert before.startswith('<details class="reasoning"><summary ') and folded in before
    assert answer in after and "think" not in render(text)


def test_reasoning_without_an_answer_is_open():
    check_nothing_is_lost("<think>a</think>")
    assert '<details class="reasoning" open="">' in render("<think>a</think>\n")


@pytest.mark.parametrize(
    "text", ["<think>cut off", "<think> </think>b", "a <think>b</think>", "a </think> b", "</think>"]
)
def test_other_uses_of_such_tags_are_shown_as_written(text):
    check_nothing_is_lost(text)
    assert "<details" not in render(text) and "think&gt;" in render(text)


@pytest.mark.parametrize("seed", range(6))
def test_every_character_of_a_random_text_is_visible_or_is_markup_of_visible_text(seed):
    dice = random.Random(seed)
    for _ in range(400):
        check_nothing_is_lost("".join(dice.choices(PIECES, k=dice.randint(1, 30))))


@pytest.mark.parametrize(
    "text",
    [
        "[Agent]: Hello!\n[Customer]: Hi!",
        "def f(x):\n    if x:\n        return 1\n    return 2",
        "def f(x):\n\n    if x:\n\n        return __x__ ** 2",
        "__init__ and 2*3*4 and 2**3**4 and f(x)**(y) + g(x)**(z)",
        "C:\\_data\\*new*\\report.txt and \\\\host\\share",
        " /\\_/\\\n( o.o )\n > ^ <",
        "+---+---+\n| a | b |\n+---+---+",
        "Name: ________\n=====\n-----",
        ">>> print('a')\na",
        "&lt;b&gt; &amp; &copy; <b>bold</b> <!-- note -->",
        "SELECT COUNT(*), SUM(*) FROM **",
        "007. James\n1\\. one",
        "a = b[i](c)\n[x]: y\n![p](q)",
        "one  two   three\n\ttabbed\\\nend  ",
        "git commit -m '...' \\\n  --amend",
        "src/**/*.py and /**/",
    ],
)
def test_text_that_is_not_markdown_is_shown_exactly_as_written(text):
    check_nothing_is_lost(text)
    assert on_screen(text).replace("\n\n", "\n") == text.replace("\n\n", "\n")


def test_list_numbers_and_bullets_look_as_written():
    assert re.findall(r'value="(\d+)"', render("1. a\n1. b\n5. c\n\n1986. d")) == ["1", "1", "5", "1986"]
    assert [tag in render("- a\n+ b\n* c\n2) d") for tag in ('"dash"', '"plus"', "<ul>", '"paren"')] == [True] * 4


def test_cells_beyond_a_tables_head_are_kept():
    check_nothing_is_lost("|a|b|\n|-|-|\n|c|d|e|f|\n|g|")
    assert render("|a|b|\n|-|-|\n|c|d|e|f|\n|g|").count("<td") == 5


def test_markdown_that_is_meant_is_rendered():
    text = "# Head\n\n**Bold**, *so* and ~~not~~ `x`.\n\n1. one\n   - two\n\n> said\n\n"
    text += "```python\nreturn 1\n```\n\n|a|\n|-|\n|b|"
    for element in ("h1", "strong", "em", "s", "code", "ol", "ul", "blockquote", "pre", "table"):
        assert f"<{element}" in render(text)
    assert '<span class="k">return</span> <span class="m">1</span>' in render(text)


def test_only_empty_text_has_no_html():
    assert render("") == ""
    assert "Only white space" in render(" \n ")
    assert render("[a]: b") == "<p>[a]: b</p>\n"


@pytest.mark.parametrize(
    "hidden", ["a\u200db", "\u200d", "x\ufe0f", "\u3164", "a\ufe01", "\U000e0100", "م\u200d\u200d"]
)
def test_characters_without_a_glyph_are_shown_by_code_point(hidden):
    assert 'class="control"' in render(hidden)


@pytest.mark.parametrize(
    "wanted", ["👩\u200d👩\u200d👧", "❤\ufe0f\u200d🔥", "1\ufe0f\u20e3", "می\u200cخواهم", "क्\u200dष"]
)
def test_joiners_that_scripts_and_emoji_need_are_kept(wanted):
    assert 'class="control"' not in render(wanted)


HOSTILE = {
    "a fenced block of empty lines": "```c\n" + "\n" * 16_000,
    "quotations in quotations": "> " * 2_000 + "a\n" * 20_000,
    "arrows before lines": ">" * 2_000 + "\na" * 20_000,
    "lists in lists": "".join("  " * depth + "- a\n" for depth in range(1_000)),
    "invisible characters": "\u200b" * 1_000_000,
    "hidden characters between letters": "a\u200b" * 500_000,
    "a long text": "word " * 200_000,
    "links": "[a](http://b) " * 4_000,
    "cells": "|" * 20_000 + "\n" + "|-" * 20_000,
    "bold in bold": "**a " * 10_000 + "b** " * 5_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_read_in_bounded_steps_and_its_page_stays_small(text):
    """Count the work, not the time: steps of Python code, and characters of HTML. See training/LOG.md for the time."""
    rendered = html.parse(text)
    assert rendered.document.steps <= MAX_STEPS or rendered.plain_because
    shown = render(text)
    assert len(shown) < 3 * len(text) + 200 * min(MAX_STEPS, len(text))
    assert max(_depths(shown)) <= 3 * MAX_NESTING + 8
    check_nothing_is_lost(text) if "\u200b" not in text else None


def _depths(shown: str):
    depth = 0
    yield depth
    for tag in re.findall(r"<(/?)(?!hr|br)\w", shown):
        depth += -1 if tag else 1
        yield depth


def test_text_that_is_not_rendered_comes_with_the_reason():
    for text, why in (
        ("word " * 20_000, "longer than 60000 characters"),
        ("\u200b" * 2_000, "more than 1000 invisible characters"),
        ("> a\n" * 5_000, "more than 2500 lines and marks"),
    ):
        assert re.search(f'<div class="plain" data-note="Shown as plain text because it (is|has) {why}', render(text))


@pytest.mark.slow
@pytest.mark.parametrize("rules", sorted(set(LANGUAGES.values())))
def test_reading_code_takes_steps_in_proportion_to_its_length(rules):
    """Compare the CPU time of 20,000 characters with that of 5,000: 4 times for linear, 16 for quadratic reading.

    The least of at least three measurements each, and of more while a busy machine disturbs them. Quadratic reading
    does not come below ten however often it is measured. Every expression in use is measured.
    """
    language = next(alias for alias, its_rules in LANGUAGES.items() if its_rules == rules)

    def measured(code: str) -> float:
        before = time.process_time_ns()
        highlight(code, language, len(code))
        return time.process_time_ns() - before

    def is_proportional(piece: str) -> bool:
        short = long = math.inf
        for attempt in range(50):
            short, long = (
                min(least, measured((piece * length)[:length])) for least, length in ((short, 5_000), (long, 20_000))
            )
            if attempt >= 2 and long < 10 * short:
                return True
        return False

    for piece in (
        "\n",
        "a\n",
        "'",
        '"',
        "\\'",
        '\\"',
        "/*",
        "/* ",
        "<!-",
        "<!--",
        "'''",
        '"""',
        "`",
        "a(",
        "#",
        "-",
        "0",
        "&&",
        "a",
    ):
        assert is_proportional(piece), repr(piece)


def test_code_with_too_many_highlights_is_not_highlighted():
    assert "<span" in render("```py\n" + "1 " * 100 + "\n```")
    assert "<span" not in render("```py\n" + "1 " * (MAX_HIGHLIGHTS + 1) + "\n```")


def test_a_text_is_rendered_once_as_long_as_it_is_kept():
    made: list[str] = []

    def make(text: str) -> str:
        made.append(text)
        return text

    cache = TextCache(max_characters=10)
    for text in ("aaaa", "bbbb", "aaaa", "cccc", "aaaa", "bbbb", "d" * 11, "bbbb"):
        assert cache.get_or_make(text, lambda text=text: make(text)) == text
    assert made == ["aaaa", "bbbb", "cccc", "bbbb", "d" * 11]


def test_many_invisible_characters_are_counted_as_the_page_counts_them():
    assert controls.count_controls("\u200b" * 5_000) == controls.MAX_CONTROLS + 1
    assert "U+200B" not in render("\u200b" * 5_000)
