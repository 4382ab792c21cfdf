"""All pages in Simplified Chinese, and the language switch, which is remembered."""

import ast
import gettext
import re

import pytest
from django.conf import settings
from playwright.sync_api import Page, expect
from rank_page import RankPage

FOLDER = settings.BASE_DIR / "config" / "locale" / "zh_Hans" / "LC_MESSAGES"
# Names, formats and keys that stay as they are.
KEPT = {
    "webhook",
    "accord",
    "english",
    "api",
    "json",
    "lines",
    "utf",
    "markdown",
    "kl",
    "enter",
    "escape",
    "shift",
    "ann",
    "mona",
}
KEPT |= {
    "support",
    "replies",
    "question",
    "answer",
    "kind",
    "prompt",
    "messages",
    "completions",
    "hugging",
    "face",
    "hub",
}


def english_in(page: Page) -> set[str]:
    page.locator("details").evaluate_all("(all) => all.forEach((each) => { each.open = true })")
    page.locator("pre").evaluate_all("(all) => all.forEach((each) => each.remove())")
    words = re.findall(r"[A-Za-z]{3,}", page.locator("body").inner_text())
    return {word for word in words if word.lower() not in KEPT}


def choose_chinese(page: Page) -> None:
    page.locator(".menu > summary").click()
    page.get_by_role("button", name="简体中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-hans")


# Of algorithms, values, settings and devices: the same in every language.
NAMES = {"PPO", "DPO", "KTO", "Q", "V", "GPU", "Top-p", "GAE λ", "TD λ", "Adam ε"}


def test_every_sentence_is_translated_and_compiled():
    source = (FOLDER / "django.po").read_text()
    with (FOLDER / "django.mo").open("rb") as compiled:
        catalogue = gettext.GNUTranslations(compiled)
    sentences = [ast.literal_eval(found) for found in re.findall(r'^msgid (".+")$', source, re.MULTILINE)]
    assert len(sentences) > 250
    for sentence in sentences:
        if sentence and sentence not in NAMES:
            assert catalogue.gettext(sentence) != sentence or catalogue.ngettext(sentence, sentence, 1) != sentence


def test_the_ranking_page_in_chinese(comparisons, user_pages, annotator, project, keep):
    project.attributes, project.flags = ["有用", "诚实"], ["跑题"]
    project.save()
    comparisons(count=2, size=4)
    page = user_pages.open("ann")
    page.goto("/")
    choose_chinese(page)
    keep(page, "home-chinese")
    ranking = RankPage(page)
    keep(page, "rank-chinese")
    assert not english_in(page)
    ranking.press("m")
    keep(page, "rank-marking-chinese")
    assert not english_in(page)
    ranking.press("-", "Escape", "Enter")
    expect(page.locator("#state")).to_have_text("尚未排序：A、B、C和D")
    ranking.press("?")
    keep(page, "rank-keys-chinese")
    assert not english_in(page)


@pytest.mark.full
def test_the_managers_pages_in_chinese(user_pages, manager, annotator, keep):
    page = user_pages.open("mona", language="zh-CN")  # as the browser asks for it
    for path in ("rank/", "guidelines/", "prompts/", "people/", "settings/"):
        page.goto(f"/projects/support/{path}")
        keep(page, f"manager-{path.strip('/')}-chinese")
        assert not english_in(page), path


def test_each_language_is_named_in_its_own_language(user_pages, annotator):
    page = user_pages.open("ann", language="zh-Hans")
    page.goto("/account/")
    page.locator(".menu > summary").click()
    expect(page.locator(".languages button")).to_have_text(["English", "简体中文"])
