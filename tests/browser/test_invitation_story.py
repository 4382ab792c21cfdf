"""From an installation without a shell to a stranger's first ranking, in the browser."""

import pytest
from playwright.sync_api import expect
from rank_page import RankPage

from config.runtime.first_administrator import make_first_administrator
from feedback.models import Ranking, User

WORDS = "correct horse battery"
PROMPTS = b'{"prompt": "What is a comet?", "completions": ["Ice and dust.", "A kind of star."]}\n'


@pytest.mark.slow
def test_a_first_administrator_a_project_a_link_and_a_strangers_first_ranking(
    transactional_db, user_pages, monkeypatch, tmp_path, keep
):
    (tmp_path / "password").write_text(WORDS)
    monkeypatch.setenv("ACCORD_ADMIN", "ada")
    monkeypatch.setenv("ACCORD_ADMIN_PASSWORD_FILE", str(tmp_path / "password"))
    make_first_administrator(print)
    page = user_pages.open()
    page.goto("/sign-in/")
    page.get_by_label("Username").fill("ada")
    page.get_by_label("Password").fill(WORDS)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_role("link", name="New project").first.click()
    page.get_by_label("Name").fill("Support")
    page.get_by_label("Address").fill("support")
    page.locator("main form button.primary").click()
    page.locator("input[type=file]").set_input_files({"name": "p.jsonl", "mimeType": "text/plain", "buffer": PROMPTS})
    page.locator("form:has(input[type=file]) button.primary").click()
    expect(page.locator("#notices")).to_contain_text("1")
    page.goto("/projects/support/people/")
    page.get_by_role("button", name="Make a link").click()
    keep(page, "invitation-made")
    link = page.locator("#link").inner_text()

    stranger = user_pages.open(phone=True)
    stranger.goto(link)
    keep(stranger, "invitation-opened")
    stranger.get_by_label("Username").fill("newcomer")
    stranger.get_by_label("Password", exact=True).fill("another good word")
    stranger.get_by_label("Password confirmation").fill("another good word")
    stranger.get_by_role("button", name="Make an account and join").click()
    stranger.wait_for_url("**/projects/support/rank/")
    ranking = RankPage(stranger)
    ranking.rank_by_keys([1, 2])
    ranking.submit()
    ranking.expect_sent()
    keep(stranger, "invitation-first-ranking")
    assert Ranking.objects.get().annotator == User.objects.get(username="newcomer")
    page.reload()
    expect(page.locator("#invitations")).to_contain_text("used")
