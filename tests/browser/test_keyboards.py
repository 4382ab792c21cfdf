"""Keyboards other than QWERTY: Cyrillic, Greek, Hebrew, Arabic, AZERTY, Dvorak, number pad, input methods."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from rank_page import RankPage

from feedback.models import Ranking
from tests.factories import add_work

SHIFT = 8  # the protocol's bit
Type = Callable[..., None]


def typist(page: Page) -> Type:
    """Return a function that presses a key by its character and its position."""
    keyboard = page.context.new_cdp_session(page)

    def press(key: str, code: str, *, shift: bool = False) -> None:
        event = {"key": key, "code": code, "modifiers": SHIFT if shift else 0}
        keyboard.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **event})
        keyboard.send("Input.dispatchKeyEvent", {"type": "keyUp", **event})

    return press


@pytest.fixture
def ranking(comparisons, user_pages, annotator, project) -> RankPage:
    project.flags = ["unsafe"]  # F
    project.save()
    comparisons(count=2, size=3)
    return RankPage(user_pages.open("ann"))


LAYOUTS = {
    "Russian": (("п", "KeyG"), ("а", "KeyF")),
    "Greek": (("γ", "KeyG"), ("φ", "KeyF")),
    "Hebrew": (("ע", "KeyG"), ("כ", "KeyF")),
    "Arabic": (("ل", "KeyG"), ("ب", "KeyF")),
    "Korean": (("ㅎ", "KeyG"), ("ㄹ", "KeyF")),
    "Thai": (("เ", "KeyG"), ("ด", "KeyF")),
    "Caps Lock": (("G", "KeyG"), ("F", "KeyF")),
    "Dvorak": (("g", "KeyU"), ("f", "KeyY")),  # the character counts, not the position
}


def test_letter_keys_work_on_any_layout(ranking):
    press = typist(ranking.page)
    dialog = ranking.page.get_by_role("dialog", name="Guidelines")
    box = ranking.page.get_by_label("unsafe")
    for layout, (guidelines, flag) in LAYOUTS.items():
        press(*guidelines)
        expect(dialog, layout).to_be_visible()
        press(*guidelines)
        expect(dialog, layout).to_be_hidden()
        press(*flag)
        expect(box, layout).to_be_checked()
        press(*flag)
        expect(box, layout).not_to_be_checked()


def test_digits_work_without_shift_on_layouts_whose_row_types_other_characters(ranking):
    press = typist(ranking.page)
    for key, code in (("é", "Digit2"), ("&", "Digit1"), ('"', "Digit3")):  # AZERTY
        press(key, code)
    assert ranking.ranks == [2, 1, 3]
    press("3", "Digit3", shift=True)  # the digit itself, where no strength is asked
    assert ranking.ranks == [2, 1, 3]
    press("١", "Digit1")  # Arabic, for the last one that was marked
    assert ranking.ranks == [2, 1, 1]


def test_the_number_pad_types_digits_and_without_num_lock_arrows(ranking):
    press = typist(ranking.page)
    press("2", "Numpad2")
    assert ranking.ranks == [2, 0, 0]
    press("ArrowRight", "Numpad6")
    press("1", "Numpad1")
    assert ranking.ranks == [2, 0, 1]


def test_a_question_mark_above_the_7_opens_the_keys(ranking):
    typist(ranking.page)("?", "Digit7", shift=True)  # Russian
    expect(ranking.page.get_by_role("dialog", name="Keys")).to_be_visible()
    assert ranking.ranks == [0, 0, 0]


def test_keys_of_others_are_left_alone(ranking):
    """AltGr symbols, words in composition, dead keys, and letter positions that type no letter."""
    ranking.page.evaluate(
        """() => {
            const press = (options) =>
                document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { bubbles: true, ...options }));
            press({ key: "@", code: "Digit2", modifierAltGraph: true });
            press({ key: "2", code: "Digit2", isComposing: true });
            press({ key: "Process", code: "KeyS", keyCode: 229 });
            press({ key: "Dead", code: "KeyG" });
        }"""
    )
    assert ranking.ranks == [0, 0, 0]
    expect(ranking.page.locator("dialog[open]")).to_have_count(0)


def test_a_word_under_composition_in_the_comment_submits_and_leaves_nothing(ranking):
    page = ranking.page
    ranking.rank_by_keys([1, 2, 3])
    ranking.press("c")
    page.context.new_cdp_session(page).send(
        "Input.imeSetComposition", {"text": "ni hao", "selectionStart": 6, "selectionEnd": 6}
    )
    for key in ("Enter", "Escape"):
        page.evaluate(
            """(key) => document.activeElement.dispatchEvent(
                new KeyboardEvent("keydown", { key, code: key, isComposing: true, bubbles: true }))""",
            key,
        )
    expect(page.get_by_label("Comment")).to_be_focused()
    expect(page.get_by_label("Comment")).to_have_value("ni hao")
    assert not Ranking.objects.exists()


def test_review_works_on_a_cyrillic_layout(project, user_pages, manager):
    (comparison,) = add_work(project, 1)
    page = user_pages.open("mona")
    page.goto(f"/projects/support/review/{comparison.pk}/")
    page.locator("#review[data-ready]").wait_for()
    typist(page)("с", "KeyC")
    expect(page.get_by_label("Why this ranking is right")).to_be_focused()
