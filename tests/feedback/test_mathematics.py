"""TeX in completions is recognised, and amounts of money are not taken for it."""

import re

import pytest

from feedback.rendering import render
from feedback.rendering.mathematics import MAX_FORMULA_LENGTH, MAX_FORMULAS_LENGTH


def formulas(text: str) -> list[tuple[str, str]]:
    """Return ("display" or "", TeX) of each formula in the HTML."""
    return re.findall(r'<span class="math ?(display)?">\s*(.*?)\s*</span>', render(text), re.DOTALL)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("so $x^2$ and \\(a_1*b*c\\) *too*", [("", "x^2"), ("", "a_1*b*c")]),
        ("there are $20$ ways, $2x$ each", [("", "20"), ("", "2x")]),
        ("\\( x \\) has room", [("", "x")]),
        ("$$\na\n+ b\n= c\n$$\nthen", [("display", "a\n+ b\n= c")]),
        ("so\n\\[ \\pmatrix{a \\\\ b} \\]\nthen", [("display", "\\pmatrix{a \\\\ b}")]),
        ("> $$x$$\n\n- \\[\n  y\n  \\]\n- z", [("display", "x"), ("display", "y")]),
        ("in a line $$x$$ too", [("display", "x")]),
        ("|a|\n|-|\n|$x_1$ and $x_2$|", [("", "x_1"), ("", "x_2")]),
        ("**$x$**, [$y$](https://example.org)", [("", "x"), ("", "y")]),
        ("$a<b$ & $\\text{<b>}$", [("", "a&lt;b"), ("", "\\text{&lt;b&gt;}")]),
    ],
)  # fmt: skip
def test_formulas_are_recognised(text, found):
    assert formulas(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "costs $5 and $10",
        "between $5-$10, or $20K to $30K",
        "US$5 (A$7), 5$ or 10$",
        "$5 or 10$ now",
        "it is $1,000, she paid $3.",
        "$ x $ and $x",
        "\\$x\\$ and `$x$`",
        "```\n$x$\n```",
        "$$",
        "$$\n\n$$",
        "\\[ never closed",
        "$\\def\\a{x}\\a$",
        "\\(\\newcommand{\\a}{xx}\\a\\a\\)",
        "$" + "x" * MAX_FORMULA_LENGTH + "y$",
    ],
)
def test_money_code_and_macro_definitions_are_not_formulas(text):
    assert formulas(text) == []


def test_the_number_of_formulas_in_a_text_is_limited():
    found = formulas("$x^2+y$ " * 2_000)
    assert sum(len(tex) for _, tex in found) == MAX_FORMULAS_LENGTH // 5 * 5
    assert "$x^2+y$" in render("$x^2+y$ " * 2_000)


@pytest.mark.parametrize("piece", ["\\(", "$", "$a", "$$\n", "\\[\n", "\\[ a\n", "> $$\n", "$$a\n\n", "$x$"])
def test_hostile_delimiters_are_read_in_time(piece):
    text = piece * (59_000 // len(piece))
    assert len(render(text)) >= len(text.replace("\n", "").replace(" ", "").replace(">", "")) // 2
