"""Pages that change ask the server seldom while nobody touches them, and not at all while nobody sees them."""

import pytest
from test_keeping import set_hidden

from training.workers import rows

START = 1_700_000_000_000  # of the page's clock, ms


@pytest.fixture
def page(user_pages, manager, project):
    """The page Machines with a clock that moves only when the test says so."""
    rows.register("gpu-1", 100, queues=["gpu"], memory_total=2**36, memory_used=2**34, process_memory=2**30)
    page = user_pages.open("mona")
    page.clock.install(time=START)
    page.goto("/projects/support/machines/")
    page.clock.pause_at(START + 60_000)
    return page


@pytest.fixture
def questions(page):
    """Count the questions that the page asks in some seconds of its clock."""
    sent = []
    page.on("request", lambda request: sent.append(request) if "/watch/" in request.url else None)

    def within(seconds: int) -> int:
        before = len(sent)
        page.clock.run_for(1000 * seconds)
        page.wait_for_load_state("networkidle")
        return len(sent) - before

    return within


def test_a_page_that_nobody_sees_asks_nothing(page, questions):
    set_hidden(page, True)
    assert questions(120) == 0
    set_hidden(page, False)
    assert questions(10) > 0
    page.evaluate(
        "document.body.append(document.createElement('dialog')); document.querySelector('dialog').showModal()"
    )
    assert questions(120) == 0


def test_the_longer_nobody_touches_a_page_the_less_it_asks(page, questions):
    page.mouse.move(200, 200)
    page.mouse.move(210, 210)
    assert 8 <= questions(20) <= 10
    questions(280)
    assert 3 <= questions(100) <= 4
    page.mouse.move(220, 220)
    assert 4 <= questions(10) <= 5
