"""Letters dragged into rank boxes: the whole box is the target, and nothing moves before the drop."""

import pytest
from playwright.sync_api import Page, expect
from rank_page import RankPage

PARTS = [(0.02, 0.5), (0.98, 0.5), (0.5, 0.04), (0.5, 0.96), (0.03, 0.06)]


def boxes(page: Page) -> list[dict[str, float]]:
    return [each.bounding_box() for each in page.locator(".tier").all()]


def press_letter(page: Page, letter: str) -> None:
    """Press the pointer on the letter in the dock."""
    page.locator(f".dock .letter[data-letter={letter}]").hover()
    page.mouse.down()


@pytest.mark.full
@pytest.mark.parametrize("size", [2, 4, 9])
def test_a_letter_dropped_on_any_part_of_a_box_gets_its_rank(comparisons, user_pages, annotator, size):
    comparisons(count=1, size=size)
    ranking = RankPage(user_pages.open("ann"))
    for rank in range(1, size + 1):
        for part in PARTS:
            ranking.drag("A", rank, part)
            assert ranking.ranks == [rank] + [0] * (size - 1), (rank, part)
    ranking.drag("A", 0, (0.02, 0.5))
    assert not any(ranking.ranks)
    ranking.drag_from_corner("B", 1, (0.02, 0.1))
    ranking.drag("A", 1, (0.98, 0.5))
    assert ranking.ranks[:2] == [1, 1]


@pytest.mark.full
def test_the_box_below_the_letter_is_highlighted_and_no_box_moves(comparisons, user_pages, annotator, keep):
    comparisons(count=1, size=4)
    ranking = RankPage(user_pages.open("ann"))
    page = ranking.page
    ranking.rank_by_keys([2, 2, 2])
    before = boxes(page)
    press_letter(page, "D")
    for box, rank in zip(before[1:], range(1, 5), strict=True):
        for part in (0.02, 0.5, 0.98):
            page.mouse.move(box["x"] + box["width"] * part, box["y"] + box["height"] / 2)
            expect(page.locator(".tier.is-target")).to_have_attribute("data-rank", str(rank))
            assert boxes(page) == before
    keep(page, "rank-dragging")
    page.mouse.move(640, 300)
    expect(page.locator(".tier.is-target")).to_have_count(0)
    page.mouse.up()
    assert ranking.ranks == [2, 2, 2, 0]  # dropped beside the boxes: as it was


def test_boxes_stay_where_they_are_while_letters_come_and_go(comparisons, user_pages, annotator):
    comparisons(count=1, size=4)
    ranking = RankPage(user_pages.open("ann"))
    before = boxes(ranking.page)
    ranking.rank_by_keys([1, 4, 4, 2])
    assert boxes(ranking.page) == before


def test_escape_ends_a_drag_without_a_rank(comparisons, user_pages, annotator):
    comparisons(count=1)
    ranking = RankPage(user_pages.open("ann"))
    page = ranking.page
    press_letter(page, "A")
    ranking.box(2).hover(force=True)
    expect(ranking.box(2)).to_contain_class("is-target")
    ranking.press("Escape")
    page.mouse.up()
    assert ranking.ranks == [0, 0, 0]
    expect(page.locator(".is-target, .is-lifted, .is-away")).to_have_count(0)


def test_a_finger_drags_to_the_last_of_nine_places(comparisons, user_pages, annotator, keep):
    comparisons(count=1, size=9)
    ranking = RankPage(user_pages.open("ann", phone=True))
    page = ranking.page
    finger = page.context.new_cdp_session(page)

    def touch(kind: str, *point: float) -> None:
        points = [{"x": point[0], "y": point[1]}] if point else []
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    letter = page.locator(".dock .letter[data-letter=A]").bounding_box()
    place = ranking.box(9).bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    touch("touchStart", letter["x"] + 10, letter["y"] + 10)
    touch("touchMove", x - 20, y)
    touch("touchMove", x, y)
    expect(ranking.box(9)).to_contain_class("is-target")
    keep(page, "rank-phone-dragging")
    touch("touchEnd")
    expect(ranking.box(9).locator(".letter")).to_have_text("A")
    assert ranking.ranks[0] == 9
