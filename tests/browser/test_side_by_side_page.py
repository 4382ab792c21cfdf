"""Two checkpoints beside each other in the browser: marked differences, and the texts as written."""

import pytest
from playwright.sync_api import expect

from feedback import imports
from tests.factories import FAST, fake_model
from tests.training.trial_worlds import import_second
from training import checkpoints

pytestmark = pytest.mark.full

TEXTS = {"base": "It arrives **soon**, at noon.", "second": "It arrives **today**, at noon, we hope."}


@pytest.fixture
def compared(project, tmp_path, manager):
    """The address of the page of two checkpoints that answered one prompt."""
    folder = str(fake_model(tmp_path / "base"))
    two = [checkpoints.import_checkpoint(project, folder, "base", serve=True, verdict=FAST)]
    two.append(import_second(project, tmp_path))
    (prompt,) = imports.add_prompts(project, [{"prompt": "Where is my parcel?"}]).prompt_ids
    for checkpoint in two:
        imports.add_completions(project, checkpoint.source, [{"prompt_id": prompt, "text": TEXTS[str(checkpoint)]}])
    return f"/projects/support/checkpoints/compare/?one={two[0].pk}&other={two[1].pk}"


def test_each_text_marks_the_words_that_the_other_lacks(user_pages, compared):
    page = user_pages.open("mona")
    page.goto(compared)
    sides, button = page.locator(".side"), page.get_by_role("button", name="Mark differences")
    expect(button).to_have_attribute("aria-pressed", "true")
    assert sides.nth(0).locator("ins.diff").all_inner_texts() == ["soon"]
    assert sides.nth(1).locator("ins.diff").all_inner_texts() == ["today", ", we hope"]
    page.keyboard.press("d")
    expect(page.locator("ins.diff")).to_have_count(0)
    expect(sides.nth(0).locator("strong")).to_have_text("soon")  # rendered again
    button.click()
    expect(page.locator("ins.diff")).to_have_count(3)
    page.keyboard.press("i")
    expect(page.locator("ins.diff")).to_have_count(0)
    expect(button).to_have_attribute("aria-pressed", "false")
    expect(sides.nth(0).locator(".written")).to_have_text(TEXTS["base"])
