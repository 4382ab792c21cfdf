"""Reading: layout, folding, differences, long conversations, a break, a change of language."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from rank_page import RankPage

from feedback import imports
from feedback.models import Ranking
from tests.browser.test_languages import choose_chinese

LONG = "It goes on and on about parcels. " * 120


def columns(ranking: RankPage) -> int:
    """Return the number of completions beside the first one."""
    tops = [round(card.bounding_box()["y"]) for card in ranking.page.locator(".completion").all()]
    return tops.count(tops[0])


def test_the_choice_of_columns_or_list_is_remembered(comparisons, user_pages, annotator):
    comparisons(count=2, size=3)
    ranking = RankPage(user_pages.open("ann"))
    assert columns(ranking) == 3
    ranking.press("l")
    assert columns(ranking) == 1
    ranking.press("ArrowDown", "2")
    ranking.page.reload()
    ranking.wait_until_ready()
    assert (columns(ranking), ranking.ranks) == (1, [0, 2, 0])


def test_long_completions_fold_at_one_height_and_unfold_by_a_key(comparisons, user_pages, annotator):
    comparisons([LONG, LONG * 3, "Short."])
    ranking = RankPage(user_pages.open("ann"))
    folded = ranking.page.locator(".completion.is-folded .prose")
    expect(folded).to_have_count(2)
    heights = [prose.bounding_box()["height"] for prose in folded.all()]
    assert abs(heights[0] - heights[1]) < 1
    ranking.press("e")
    expect(folded).to_have_count(0)


def test_word_differences_from_the_current_completion_are_marked(comparisons, user_pages, annotator):
    comparisons(["It comes on Friday, sorry.", "It comes on Monday, very sorry."])
    ranking = RankPage(user_pages.open("ann"))
    marked, other = ranking.texts
    ranking.press("d")
    new = [word for word in other.rstrip(".").replace(",", "").split() if word not in marked]
    assert " ".join(ranking.page.locator("ins.diff").all_inner_texts()).split() == new
    ranking.press("d")
    assert ranking.texts == [marked, other]


def test_a_conversation_reads_as_one(project, user_pages, annotator, keep):
    conversation = [("user", "Hello"), ("assistant", "Hello! How can I help?"), ("user", "Cancel my order.")]
    messages = [{"role": role, "content": content} for role, content in conversation]
    imports.add_prompts(project, [{"messages": messages, "completions": ["Done.", "No."]}], compare=True)
    ranking = RankPage(user_pages.open("ann"))
    turns = ranking.page.locator(".prompt .message")
    assert [(each.locator(".role").inner_text(), each.locator(".prose").inner_text()) for each in turns.all()] == [
        (role.capitalize(), content) for role, content in conversation
    ]
    keep(ranking.page, "rank-conversation")


def test_a_break_stops_the_clock(comparisons, user_pages, annotator):
    comparisons(count=1, size=2)
    page = user_pages.open("ann")
    page.clock.install()
    ranking = RankPage(page)
    page.clock.fast_forward(5_000)
    ranking.press("p")
    page.clock.fast_forward(3_600_000)
    ranking.press("p", "1", "2")
    ranking.submit()
    ranking.expect_sent()
    assert 5 <= Ranking.objects.get().seconds < 600


def test_another_language_in_the_middle_of_a_ranking_costs_nothing(comparisons, user_pages, annotator):
    comparisons(count=2, size=3)
    ranking = RankPage(user_pages.open("ann"))
    comparison = ranking.comparison
    ranking.press("3", "1")
    choose_chinese(ranking.page)
    ranking.wait_until_ready()
    assert (ranking.comparison, ranking.ranks) == (comparison, [3, 1, 0])


@pytest.fixture
def conversation(project) -> Callable[..., None]:
    """Make a comparison whose prompt has this many questions; the last one is `last`."""

    def make(questions: int, last: str = "Which of these do I pay for?", turn: str = LONG[:600]) -> None:
        turns = [message for n in range(questions - 1) for message in (("user", f"Q{n}: {turn}"), ("assistant", turn))]
        messages = [{"role": role, "content": content} for role, content in [*turns, ("user", last)]]
        imports.add_prompts(project, [{"messages": messages, "completions": ["The first.", "None."]}], compare=True)

    return make


def is_in_view(page: Page, text: str) -> bool:
    """Return whether the beginning of the text is visible in the prompt's box."""
    return page.get_by_text(text).evaluate(
        """(element) => {
            const [text, box] = [element, element.closest(".prompt")].map((each) => each.getBoundingClientRect());
            return text.height > 0 && text.top >= box.top && text.top + 20 <= box.bottom;
        }"""
    )


@pytest.mark.parametrize("phone", [pytest.param(False, marks=pytest.mark.full), True], ids=["desktop", "phone"])
def test_a_long_conversation_opens_at_the_last_user_turn(conversation, user_pages, annotator, keep, phone):
    conversation(12)
    ranking = RankPage(user_pages.open("ann", phone=phone))
    page, prompt = ranking.page, ranking.page.locator(".prompt")
    kind = "phone" if phone else "desktop"
    keep(page, f"rank-long-conversation-{kind}")
    assert is_in_view(page, "Which of these do I pay for?")
    expect(page.get_by_text("Q0:")).to_be_hidden()
    ranking.press("e")
    expect(page.get_by_text("Q0:")).to_be_attached()
    assert is_in_view(page, "Which of these do I pay for?")
    expect(prompt).to_contain_class("is-cut-above")
    page.wait_for_timeout(200)  # it fades in
    keep(page, f"rank-long-conversation-unfolded-{kind}")
    prompt.evaluate("(element) => { element.scrollTop = 0; }")
    expect(prompt).not_to_contain_class("is-cut-above")
    expect(prompt).to_contain_class("is-cut-below")
    assert is_in_view(page, "Q0:")
    page.locator(".earlier > summary").click()
    expect(page.get_by_text("Q0:")).to_be_hidden()
    assert is_in_view(page, "Which of these do I pay for?")
    ranking.rank_by_keys([2, 1])  # with the focus still on what was clicked
    assert ranking.ranks == [2, 1]


def test_a_last_turn_longer_than_its_box_opens_at_its_beginning_and_fades(conversation, user_pages, annotator, keep):
    conversation(3, last="**Here it begins.** " + LONG)
    ranking = RankPage(user_pages.open("ann"))
    assert is_in_view(ranking.page, "Here it begins.")
    expect(ranking.page.locator(".prompt")).to_contain_class("is-cut-below")
    expect(ranking.page.locator(".prompt")).not_to_contain_class("is-cut-above")
    keep(ranking.page, "rank-long-question")


@pytest.mark.full
def test_a_conversation_that_fits_is_not_folded_and_reviewers_see_the_same(
    conversation, user_pages, annotator, manager
):
    conversation(3, turn="Briefly.")
    conversation(9, last="And this one?")
    ranking = RankPage(user_pages.open("ann"))
    for _ in range(2):
        is_short = "pay for" in ranking.page.locator(".prompt").inner_text()
        expect(ranking.page.get_by_text("Q0:")).to_be_visible(visible=is_short)
        ranking.rank_by_keys([1, 2])
        ranking.submit()
        ranking.expect_sent()
    page = user_pages.open("mona")
    long = Ranking.objects.get(comparison__prompt__messages__8__isnull=False)
    page.goto(f"/projects/support/review/{long.comparison_id}/")
    page.locator("#review[data-ready]").wait_for()
    assert is_in_view(page, "And this one?")
    expect(page.get_by_text("Q0:")).to_be_hidden()
    page.keyboard.press("e")
    expect(page.locator(".earlier")).to_have_attribute("open", "")
