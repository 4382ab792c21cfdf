"""Formulas are typeset in the browser, and hostile ones do no harm."""

import pytest
from playwright.sync_api import expect
from rank_page import RankPage

from feedback.models import Ranking
from tests.browser.test_accessibility import check
from tests.browser.test_ratings_and_spans import marked

ROOTS = "$x = \\frac{-b \\pm \\sqrt{b^2-4ac}}{2a}$"
PLAIN = f"The roots are {ROOTS}, and it costs $5 and $10.\n\n" + "\\[\n\\int_0^1 x\\,dx = \\tfrac12\n\\]"
HOSTILE = " ".join(
    [
        "$\\href{javascript:document.title='owned'}{press}$",
        "\\(\\url{javascript:document.title='owned'}\\)",
        "$\\htmlData{act=submit}{x}$ $\\htmlClass{dock}{x}$ $\\htmlId{stage}{x}$ $\\htmlStyle{position:fixed}{x}$",
        "$\\includegraphics{https://example.org/pixel.png}$",
        "$\\rule{9000em}{9000em}$ $\\kern{-900em}{over}$ $\\raisebox{-90em}{under}$",
        "$\\color{white}{unseen}$ $\\def\\a{aa}\\def\\b{\\a\\a}\\b$",
        "$" + "{" * 900 + "$",
        "$\\text{<img src=x onerror=document.title='owned'>}$",
        "$\\frac{$ and $\\nonsense{x}$",
    ]
)


@pytest.mark.full
def test_formulas_are_set_and_prices_are_not(comparisons, user_pages, annotator, keep):
    comparisons([PLAIN, "| a | b |\n|-|-|\n| $x_1$ | مرحبا $y^2$ عالم |"], [PLAIN, "no formula"])
    page = user_pages.open("ann")
    ranking = RankPage(page)
    expect(page.locator(".completion .katex math").first).to_be_attached()
    keep(page, "rank-mathematics")
    check(page)
    assert "$5 and $10" in page.locator(".completions").inner_text()
    ranking.rank_by_keys([1, 2])
    ranking.submit()
    formulas = page.locator(".completion .math").count()
    assert page.locator(".completion .math .katex").count() == formulas > 1  # set before it was shown


@pytest.mark.full
def test_a_formula_wider_than_its_place_is_scrolled_by_keyboard_too(comparisons, user_pages, annotator):
    comparisons([f"$$ {'+'.join(f'x_{{{i}}}' for i in range(60))} $$", "$$ x $$"])
    page = RankPage(user_pages.open("ann")).page
    wide = page.locator(".math.display").filter(has_text="59")
    expect(wide).to_have_attribute("tabindex", "0")
    expect(page.locator(".math.display[tabindex]")).to_have_count(1)
    check(page)


def test_hostile_formulas_do_no_harm(comparisons, user_pages, annotator, keep):
    comparisons([HOSTILE, "plain"])
    page = RankPage(user_pages.open("ann")).page
    expect(page.locator(".katex").first).to_be_attached()
    keep(page, "hostile-mathematics")
    assert "owned" not in page.title()
    assert page.locator(".math :is(a, img, script, [data-act], [id], .dock)").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    outside = page.locator(".math").evaluate_all(
        "(all) => all.filter((each) => !getComputedStyle(each).contain.includes('paint')).length"
    )
    assert outside == 0
    seen = page.locator(".math", has_text="unseen").first
    colours = seen.evaluate(
        "(each) => [each, each.querySelector('.katex-html .mord .mord')].map((part) => getComputedStyle(part).color)"
    )
    assert colours[0] == colours[1]


@pytest.mark.full
def test_the_maximum_number_of_formulas_is_typeset_without_a_pause(comparisons, user_pages, annotator):
    comparisons(["$\\frac{x}{y}$ " * 2_000, "plain"])
    page = RankPage(user_pages.open("ann")).page
    expect(page.locator(".math[data-tex]")).to_have_count(8_000 // len("\\frac{x}{y}"))


def test_a_formula_can_only_be_marked_as_a_whole(comparisons, user_pages, annotator):
    comparisons([PLAIN, "No."])
    ranking = RankPage(user_pages.open("ann"))
    ranking.page.locator(".math[data-tex]").first.evaluate(
        "(formula) => getSelection().selectAllChildren(formula.querySelector('.katex-html'))"
    )
    ranking.press("-")
    ranking.rank_by_keys([1, 2])
    ranking.submit()
    ranking.expect_sent()
    assert marked(Ranking.objects.get()) == [(ROOTS, "bad")]
