"""No element covers another at any size of window and comparison, also in high contrast, Chinese and dark."""

import pytest
from django.core.cache import cache
from playwright.sync_api import Page, expect
from rank_page import RankPage

from tests.browser.test_accessibility import check
from tests.factories import add_work, membership, person, rank_next

TABLET, SMALL, DESKTOP = (820, 1180), (1100, 800), (1280, 800)


def covered(page: Page) -> list[str]:
    """Return the buttons and boxes of the dock that are covered or outside the window."""
    return page.evaluate(
        """() => [...document.querySelectorAll(".dock :is(button, .tier)")].filter((each) => {
            const box = each.getBoundingClientRect();
            if (each.matches(".unranked") && !each.getClientRects().length) return false;
            const found = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
            const edge = document.elementFromPoint(box.right - 3, box.y + box.height / 2);
            return !each.contains(found) || !each.contains(edge);
        }).map((each) => each.innerText)"""
    )


@pytest.mark.parametrize(
    ("size", "window"),
    [
        (9, DESKTOP),
        pytest.param(9, SMALL, marks=pytest.mark.full),
        pytest.param(4, TABLET, marks=pytest.mark.full),
        (9, TABLET),
    ],
)
def test_the_places_and_the_buttons_do_not_cover_each_other(comparisons, user_pages, annotator, keep, size, window):
    comparisons(count=1, size=size)
    page = user_pages.open("ann")
    page.set_viewport_size({"width": window[0], "height": window[1]})
    ranking = RankPage(page)
    keep(page, f"rank-{size}-at-{window[0]}")
    assert not covered(page)
    ranking.rank_by_keys([1] * size)
    assert not covered(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    expect(page.locator(".completion").last).to_be_in_viewport(ratio=0.3)  # not beneath the places either


@pytest.mark.full
def test_on_a_phone_all_places_and_submit_are_in_sight(comparisons, user_pages, annotator, keep):
    """Check the layout with no letter ranked, each with its own rank, and all with the same."""
    for size in (2, 4, 9):
        comparisons([f"Answer {letter} of {size}." for letter in "abcdefghi"[:size]])
    page = user_pages.open("ann", phone=True)
    ranking = RankPage(page)
    for _ in range(3):
        size = page.locator(".completion").count()
        assert not covered(page)
        expect(page.locator(".tier .end").last).to_be_in_viewport(ratio=1)
        for ranks in (range(1, size + 1), [1] * size):
            for card, rank in zip(page.locator(".completion").all(), ranks, strict=True):
                card.locator(f".chips input[value='{rank}']").check()
            keep(page, f"rank-{size}-phone-{'tied' if ranks == [1] * size else 'ranked'}")
            assert not covered(page)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert not page.evaluate(
                "[...document.querySelectorAll('.dock :is(.tiers, .tier)')].some((e) => e.scrollWidth > e.clientWidth)"
            )
        ranking.submit()


def with_everything(page: Page) -> RankPage:
    ranking = RankPage(page)
    ranking.press("1", "ArrowLeft", "r", "4", "2", "Escape", "m", "ArrowRight", "+", "ArrowRight", "-", "Escape")
    return ranking


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("contrast", marks=pytest.mark.full),
        pytest.param("contrast-dark", marks=pytest.mark.full),
        pytest.param("phone-chinese", marks=pytest.mark.full),
        "phone-chinese-dark",
    ],
)
def test_ratings_and_marks_can_be_read(comparisons, user_pages, annotator, project, keep, kind):
    project.attributes, project.flags = ["helpful", "honest", "harmless"], ["unsafe"]
    project.save()
    comparisons(["It comes on **Friday**, sorry.", "No idea, sorry."])
    phone = "phone" in kind
    page = user_pages.open("ann", phone=phone, dark="dark" in kind, language="zh-CN" if phone else "en")
    if not phone:
        page.goto("/")
        page.locator(".menu > summary").click()
        page.get_by_role("button", name="High contrast").click()
    with_everything(page)
    keep(page, f"rank-marked-{kind}")
    check(page)
    assert page.locator(".mark").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(
    ("phone", "dark"),
    [
        pytest.param(True, False, marks=pytest.mark.full),
        (True, True),
        pytest.param(False, True, marks=pytest.mark.full),
    ],
)
def test_the_console_shows_the_verdict_on_the_labels_at_every_window_size(
    project, annotator, colleague, user_pages, manager, keep, phone, dark
):
    add_work(project, 12, wanted_rankings=2)
    for name in (annotator, colleague):
        for _ in range(12):
            rank_next(membership(name, project))
    cache.clear()
    page = user_pages.open("mona", phone=phone, dark=dark)
    page.goto("/projects/support/console/")
    expect(page.locator("#verdict")).to_be_visible()
    keep(page, f"console-trust-{'phone' if phone else 'desktop'}{'-dark' if dark else ''}")
    check(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(
    "width", [1280, *(pytest.param(width, marks=pytest.mark.full) for width in (1150, 1024, 900)), 768]
)
def test_every_entry_of_the_navigation_is_in_sight(user_pages, manager, project, keep, width):
    page = user_pages.open("mona")
    page.set_viewport_size({"width": width, "height": 800})
    page.goto("/projects/support/people/")
    keep(page, f"navigation-{width}")
    assert page.evaluate(
        """() => { const nav = document.querySelector(".bar nav"); return nav.scrollWidth <= nav.clientWidth }"""
    )


def test_on_a_phone_the_navigation_shows_where_one_is(user_pages, manager, project, keep):
    page = user_pages.open("mona", phone=True)
    page.goto("/projects/support/settings/")
    expect(page.locator(".bar nav [aria-current]")).to_be_in_viewport(ratio=0.99)
    keep(page, "navigation-phone")


def test_on_a_phone_the_tabs_of_review_show_where_one_is_and_that_there_are_more(user_pages, manager, project, keep):
    page = user_pages.open("mona", phone=True)
    page.goto("/projects/support/review/decisions/")
    expect(page.locator(".tabs [aria-current]")).to_be_in_viewport(ratio=0.99)
    assert page.locator(".tabs").evaluate("(tabs) => getComputedStyle(tabs).backgroundImage").count("gradient") == 4
    keep(page, "review-tabs-phone")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_role_and_its_button_stay_on_one_line_beside_a_long_name(user_pages, manager, project):
    person(project, "a.person.with.a.very.long.name@department.example.org", "annotator")
    page = user_pages.open("mona")
    page.goto("/projects/support/people/")
    role, button = (page.locator("tr", has_text="a.person").locator(each) for each in ("select", ".inline-form button"))
    assert abs(role.bounding_box()["y"] - button.bounding_box()["y"]) < role.bounding_box()["height"] / 2


def test_the_people_page_fits_a_phone(user_pages, manager, annotator, project, keep):
    page = user_pages.open("mona", phone=True)
    page.goto("/projects/support/people/")
    keep(page, "people-phone")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for name in ("Change", "Remove"):
        expect(page.get_by_role("button", name=name).first).to_be_in_viewport(ratio=0.99)


def height_to_read_in(page: Page) -> float:
    """Return the share of the window's height for prompt and completions, scrolled to the first of these."""
    return page.evaluate(
        """() => {
            const top = document.querySelector(".completion").getBoundingClientRect().top + scrollY;
            scrollTo({ top, behavior: "instant" });
            const at = (_, y) => document.elementFromPoint(innerWidth / 3, y + 0.5);
            const rows = Array.from({ length: innerHeight }, at);
            return rows.filter((each) => each?.closest(".comparison") && !each.closest(".dock")).length / innerHeight;
        }"""
    )


@pytest.mark.full
@pytest.mark.parametrize(
    ("size", "window"),
    [
        pytest.param(2, (640, 400)),
        (4, (640, 400)),
        pytest.param(2, (320, 200)),
        (9, (320, 200)),
    ],
)
def test_at_high_zoom_enough_height_is_left_for_reading(comparisons, user_pages, annotator, keep, size, window):
    """WCAG 1.4.10: at 200 % and 400 % zoom, a window of 1280 x 800 is one of 640 x 400 and 320 x 200."""
    comparisons(*[["word " * 150] * (size - 1) + ["more " * 150]] * 2)
    page = user_pages.open("ann")
    page.set_viewport_size({"width": window[0], "height": window[1]})
    ranking = RankPage(page)
    keep(page, f"rank-zoomed-{size}-at-{window[0]}")
    assert page.locator("form.comparison").evaluate("(form) => form.getBoundingClientRect().top") < window[1] / 4
    assert height_to_read_in(page) > 0.9
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    ranking.rank_by_keys([1] * size)
    page.get_by_role("button", name="Submit").scroll_into_view_if_needed()
    keep(page, f"rank-zoomed-{size}-at-{window[0]}-foot")
    assert not covered(page)
    page.get_by_role("button", name="Submit").click()
    ranking.expect_sent()
    assert page.locator("form.comparison").evaluate("(form) => form.getBoundingClientRect().top") < window[1] / 4
    check(page)
