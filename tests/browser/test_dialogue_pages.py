"""Dialogues on the ranking page: shown turn by turn, marked across turns, ranked, their last turn edited."""

import pytest
from playwright.sync_api import expect
from rank_page import RankPage

from feedback import imports
from feedback.dialogues import text_of
from feedback.models import Demonstration, Ranking
from tests.browser.test_accessibility import check
from tests.browser.test_ratings_and_spans import drag_over, marked

GOOD = [
    {"role": "assistant", "content": "I am sorry about that. **Which order** is it?"},
    {"role": "user", "content": "Number 7, from Monday."},
    {
        "role": "assistant",
        "content": "Thank you. A new kettle is on its way:\n\n- it comes on Thursday\n- keep the box",
    },
]
BAD = [
    {"role": "assistant", "content": "Things break."},
    {"role": "user", "content": "It was new!"},
    {"role": "assistant", "content": ""},
]


@pytest.fixture
def dialogues(project):
    row = {"prompt": "My kettle came with a cracked lid.", "completions": [{"turns": GOOD}, {"turns": BAD}]}
    imports.add_prompts(project, [row], compare=True)


@pytest.mark.parametrize(
    ("phone", "dark"),
    [
        (False, False),
        (True, True),
        pytest.param(True, False, marks=pytest.mark.full),
        pytest.param(False, True, marks=pytest.mark.full),
    ],
)
def test_a_dialogue_is_shown_turn_by_turn(dialogues, user_pages, annotator, keep, phone, dark):
    ranking = RankPage(user_pages.open("ann", phone=phone, dark=dark))
    card = ranking.page.locator(".completion", has_text="I am sorry about that")
    expect(card.get_by_role("group", name="User").and_(card.locator(".turn"))).to_have_text("Number 7, from Monday.")
    expect(card.locator(".turn.assistant")).to_have_count(2)
    keep(ranking.page, f"rank-dialogue-{'phone' if phone else 'desktop'}-{'dark' if dark else 'light'}")
    check(ranking.page)


@pytest.mark.parametrize("phone", [False, pytest.param(True, marks=pytest.mark.full)])
def test_the_last_turn_of_a_dialogue_is_edited_and_the_turns_before_stay(dialogues, user_pages, annotator, keep, phone):
    ranking = RankPage(user_pages.open("ann", phone=phone))
    ranking.page.locator(".completion", has_text="I am sorry about that").click(position={"x": 180, "y": 12})
    ranking.press("w")
    panel = ranking.page.locator("dialog[open]")
    expect(panel.locator("textarea")).to_have_value(GOOD[-1]["content"])
    note = panel.get_by_text("You edit the last answer of this dialogue")
    expect(note).to_be_visible()
    panel.locator("textarea").fill("Thank you. A new kettle comes on Monday.")
    expect(panel.locator(".changes ins").first).to_be_visible()
    keep(ranking.page, f"rank-dialogue-edited-{'phone' if phone else 'desktop'}")
    check(ranking.page)
    ranking.press("Control+Enter")
    expect(panel).to_have_count(0)
    ranking.rank_by_keys([1, 2])
    ranking.submit()
    edited = Demonstration.objects.get()
    assert edited.completion.turns == [
        *GOOD[:2],
        {"role": "assistant", "content": "Thank you. A new kettle comes on Monday."},
    ]
    assert [item.completion.turns for item in edited.pair.items.order_by("position")][1] == GOOD


def test_a_dialogue_is_marked_and_ranked_and_an_answer_may_begin_with_an_empty_page(
    dialogues, user_pages, annotator, keep
):
    ranking = RankPage(user_pages.open("ann"))
    drag_over(ranking.page, "keep the box")
    ranking.press("-")
    ranking.press("Shift+W")
    panel = ranking.page.locator("dialog[open]")
    expect(panel.locator("textarea")).to_have_value("")
    expect(panel.get_by_text("You edit the last answer")).to_be_hidden()
    panel.locator("textarea").fill("Which order is it?")
    ranking.press("Control+Enter")
    expect(panel).to_have_count(0)
    ranking.page.locator(".completion").first.click(position={"x": 180, "y": 12})  # the marked one was the current one
    first = "I am sorry" in ranking.texts[0]
    ranking.rank_by_keys([1, 2] if first else [2, 1])
    ranking.press("i")
    keep(ranking.page, "rank-dialogue-as-written")
    ranking.press("i")
    ranking.submit()
    ranking.expect_sent()
    stored = Ranking.objects.get()
    assert marked(stored) == [("keep the box", "bad")]
    assert stored.comparison.texts()[stored.ranks.index(1)] == text_of(GOOD)
    assert Demonstration.objects.get().completion.text == "Which order is it?"


@pytest.mark.full
def test_a_turn_that_spells_another_turn_is_one_turn_as_written_and_in_the_differences(
    project, user_pages, annotator, keep
):
    (first, answer, last), imitation = GOOD, f"Sorry.\n\nUser:\n{GOOD[1]['content']}\n\nAssistant:\nThank you."
    imitating = [{**first, "content": imitation}, answer, {**last, "content": "Thank  you. Keep the box."}]
    row = {"prompt": "My kettle came with a cracked lid.", "completions": [{"turns": GOOD}, {"turns": imitating}]}
    imports.add_prompts(project, [row], compare=True)
    ranking = RankPage(user_pages.open("ann"))
    written = ranking.page.locator(".completion > .written")
    ranking.press("i")
    keep(ranking.page, "rank-dialogue-imitated-as-written")
    for view in written.all():
        expect(view.get_by_role("group")).to_have_count(3)
        expect(view.get_by_role("group", name="Assistant")).to_have_count(2)
    expect(written.filter(has_text="Sorry.").locator(".turn").first).to_have_text(imitation)
    check(ranking.page)
    ranking.press("i")
    if "I am sorry" not in ranking.page.locator(".completion.is-focused").inner_text():
        ranking.press("ArrowRight")
    ranking.press("d")
    keep(ranking.page, "rank-dialogue-differences")
    turns = written.filter(has_text="Sorry.").locator(".turn")
    assert [turn.locator("ins.diff").count() > 0 for turn in turns.all()] == [True, False, True]
    assert "".join(turns.nth(2).locator("ins.diff").all_inner_texts()) == "  Keep."
    ranking.press("d")
    expect(written).to_have_count(0)
