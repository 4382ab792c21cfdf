"""Reading: layout, folding, differences, whole conversations, a break, another language in the middle of it."""

from playwright.sync_api import expect
from rank_page import RankPage

from feedback import intake
from feedback.models import Ranking
from tests.browser.test_languages import choose_chinese

LONG = "It goes on and on about parcels. " * 120


def columns(ranking: RankPage) -> int:
    """How many completions stand beside the first one."""
    tops = [round(card.bounding_box()["y"]) for card in ranking.page.locator(".completion").all()]
    return tops.count(tops[0])


def test_columns_or_a_list_is_remembered(comparisons, desk, annotator):
    comparisons(count=2, size=3)
    ranking = RankPage(desk.sit("ann"))
    assert columns(ranking) == 3
    ranking.press("l")
    assert columns(ranking) == 1
    ranking.press("ArrowDown", "2")
    ranking.page.reload()
    ranking.wait_until_ready()
    assert (columns(ranking), ranking.ranks) == (1, [0, 2, 0])


def test_long_ones_fold_at_one_height_and_unfold_by_a_key(comparisons, desk, annotator):
    comparisons([LONG, LONG * 3, "Short."])
    ranking = RankPage(desk.sit("ann"))
    folded = ranking.page.locator(".completion.is-folded .prose")
    expect(folded).to_have_count(2)
    heights = [prose.bounding_box()["height"] for prose in folded.all()]
    assert abs(heights[0] - heights[1]) < 1
    ranking.press("e")
    expect(folded).to_have_count(0)


def test_differences_are_those_of_words_from_the_marked_one(comparisons, desk, annotator):
    comparisons(["It comes on Friday, sorry.", "It comes on Monday, very sorry."])
    ranking = RankPage(desk.sit("ann"))
    marked, other = ranking.texts
    ranking.press("d")
    new = [word for word in other.rstrip(".").replace(",", "").split() if word not in marked]
    assert " ".join(ranking.page.locator("ins.diff").all_inner_texts()).split() == new
    ranking.press("d")
    assert ranking.texts == [marked, other]


def test_a_conversation_reads_as_one(project, desk, annotator, keep):
    said = [("user", "Hello"), ("assistant", "Hello! How can I help?"), ("user", "Cancel my order.")]
    messages = [{"role": role, "content": content} for role, content in said]
    intake.add_prompts(project, [{"messages": messages, "completions": ["Done.", "No."]}], compare=True)
    ranking = RankPage(desk.sit("ann"))
    turns = ranking.page.locator(".prompt .message")
    assert [(each.locator(".role").inner_text(), each.locator(".prose").inner_text()) for each in turns.all()] == [
        (role.capitalize(), content) for role, content in said
    ]
    keep(ranking.page, "rank-conversation")


def test_a_break_stops_the_clock(comparisons, desk, annotator):
    comparisons(count=1, size=2)
    page = desk.sit("ann")
    page.clock.install()
    ranking = RankPage(page)
    page.clock.fast_forward(5_000)
    ranking.press("p")
    page.clock.fast_forward(3_600_000)
    ranking.press("p", "1", "2")
    ranking.submit()
    ranking.expect_sent()
    assert 5 <= Ranking.objects.get().seconds < 600


def test_another_language_in_the_middle_of_a_ranking_costs_nothing(comparisons, desk, annotator):
    comparisons(count=2, size=3)
    ranking = RankPage(desk.sit("ann"))
    comparison = ranking.comparison
    ranking.press("3", "1")
    choose_chinese(ranking.page)
    ranking.wait_until_ready()
    assert (ranking.comparison, ranking.ranks) == (comparison, [3, 1, 0])
