"""The page of ratings with charts: it fits desktop and phone, and axe-core finds nothing, in all appearances."""

import pytest
from test_accessibility import check

from tests.factories import FAST, fake_model, membership, person
from tests.training.rated_rounds import make_rounds, rank_rounds
from training import checkpoints

pytestmark = pytest.mark.full


@pytest.fixture
def rated(project, manager, tmp_path):
    base = checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "base")), "base", serve=True, verdict=FAST)
    members = [membership(person(project, f"p{n}", "annotator"), project) for n in range(7)]
    rank_rounds(project, members, make_rounds(project, base), 320)


def test_the_page_of_ratings_fits_and_is_accessible(rated, user_pages, keep):
    for phone in (False, True):
        for dark in (False, True):
            for language in ("en", "zh-CN"):
                page = user_pages.open("mona", phone=phone, dark=dark, language=language)
                page.goto("/projects/support/ratings/?style=on")
                page.locator("main details").first.evaluate("one => { one.open = true; }")
                width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
                assert width[0] <= width[1], (phone, language)
                assert page.locator("svg.chart").count() == 3
                check(page)
                height = page.evaluate("document.documentElement.scrollHeight")
                page.set_viewport_size({"width": page.viewport_size["width"], "height": height})
                keep(page, f"ratings-{'phone' if phone else 'desktop'}-{'dark' if dark else 'light'}-{language}")
