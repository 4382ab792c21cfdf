"""Pages of managers and the account page, in a browser."""

import json

import pytest
from playwright.sync_api import expect

from feedback import imports
from feedback.actions.tokens import digest_of
from feedback.models import ApiToken, Import, Membership, Prompt
from tests.factories import rank_next


def test_a_token_is_shown_once_and_works(user_pages, annotator, keep, client):
    page = user_pages.open("ann")
    page.goto("/account/")
    page.get_by_label("Name").fill("export job")
    page.get_by_text("Limit what it may do").click()
    page.get_by_label("Export preferences").check()
    page.get_by_role("button", name="New token").click()
    key = page.locator("#key").inner_text()
    keep(page, "account-token")
    token = ApiToken.objects.get()
    assert (token.digest, token.scopes) == (digest_of(key), ["preferences:read"])
    page.get_by_text("Limit what it may do").click()
    keep(page, "account-token-limits")
    page.goto("/account/")
    assert key not in page.content()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("The token is revoked")).to_be_visible()
    assert not ApiToken.objects.exists()


@pytest.mark.full
def test_a_manager_adds_people_and_changes_roles(user_pages, project, manager, stranger, keep):
    page = user_pages.open("mona")
    page.goto("/projects/support/people/")
    page.get_by_label("Username").fill("nobody")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_text('There is no user with the name "nobody".')).to_be_visible()
    page.get_by_label("Username").fill("stan")
    page.get_by_role("button", name="Add").click()
    page.get_by_label("Role of stan").select_option("reviewer")
    page.locator("tr", has_text="stan").get_by_role("button", name="Change").click()
    expect(page.get_by_label("Role of stan")).to_have_value("reviewer")
    keep(page, "people")
    assert Membership.objects.get(project=project, user=stranger).role == "reviewer"


def test_the_last_manager_cannot_be_removed_or_demoted(user_pages, project, manager, annotator):
    user_pages.expected_errors.append("409")
    page = user_pages.open("mona")
    page.goto("/projects/support/people/")
    page.get_by_label("Role of mona").select_option("annotator")
    page.locator("tr", has_text="mona").get_by_role("button", name="Change").click()
    expect(page.get_by_text("make somebody else a manager first")).to_be_visible()
    assert Membership.objects.get(project=project, user=manager).is_manager


def test_prompts_come_in_by_file_or_are_refused_line_by_line(user_pages, project, manager, keep):
    page = user_pages.open("mona")
    page.goto("/projects/support/prompts/")
    keep(page, "prompts-empty")
    good = [{"prompt": "One?", "completions": ["a", "b"]}, {"prompt": "Two?"}]
    for lines, message in (
        (["{}", '{"prompt": 3}'], "Line 2"),
        ([json.dumps(good[0]), "no JSON"], "The text is not JSON"),
        (map(json.dumps, good), "2 new prompts, 0 known already, 1 comparison made."),
    ):
        page.get_by_label("File").set_input_files(
            {"name": "prompts.jsonl", "mimeType": "application/jsonl", "buffer": "\n".join(lines).encode()}
        )
        page.get_by_role("button", name="Upload").click()
        expect(page.get_by_text(message).first).to_be_visible()
    keep(page, "prompts")
    assert Prompt.objects.count() == 2


@pytest.mark.parametrize("phone", [False, pytest.param(True, marks=pytest.mark.full)])
def test_an_import_is_undone_after_confirmation_and_kept_rows_are_reported(
    user_pages, project, manager, annotator, keep, phone
):
    for names in (["One?", "Two?", "Three?"], ["Four?"]):
        with imports.record_import(project, Import.How.PAGE, manager) as record:
            rows = [{"prompt": name, "completions": ["a", "b"]} for name in names]
            imports.add_prompts(project, rows, compare=True, made_by_import=record)
        if len(names) > 1:
            rank_next(annotator.memberships.get())
    page = user_pages.open("mona", phone=phone)
    page.goto("/projects/support/prompts/")
    first = page.locator("tr", has_text="mona").last
    first.scroll_into_view_if_needed()
    keep(page, f"imports-{'phone' if phone else 'desktop'}")
    page.once("dialog", lambda dialog: dialog.dismiss())
    first.get_by_role("button", name="Undo").click()
    assert Prompt.objects.count() == 4
    page.once("dialog", lambda dialog: dialog.accept())
    first.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("1 comparison stays: it was ranked.")).to_be_visible()
    expect(page.get_by_text("undone by mona")).to_be_visible()
    keep(page, f"imports-undone-{'phone' if phone else 'desktop'}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_settings_and_guidelines(user_pages, project, manager, keep):
    page = user_pages.open("mona", phone=True)
    page.goto("/projects/support/settings/")
    page.get_by_label("Guidelines").fill("# Be **brief**\n\n<script>alert(1)</script>")
    page.get_by_label("Rankings per comparison").fill("0")
    page.get_by_role("button", name="Save").click()
    page.get_by_label("Rankings per comparison").fill("3")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    keep(page, "settings-phone")
    page.goto("/projects/support/guidelines/")
    expect(page.get_by_role("heading", name="Be brief")).to_be_visible()
    expect(page.get_by_text("<script>alert(1)</script>")).to_be_visible()
    project.refresh_from_db()
    assert project.wanted_rankings == 3


def test_appearance_is_remembered(user_pages, annotator):
    page = user_pages.open("ann")
    page.goto("/")
    page.locator(".menu > summary").click()
    page.get_by_role("button", name="Dark").last.click()
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_empty_pages_say_what_to_do(user_pages, project, annotator, stranger, keep, django_user_model):
    django_user_model.objects.create_user("new", password="new-password")
    page = user_pages.open("new")
    page.goto("/")
    expect(page.get_by_role("heading", name="No project yet")).to_be_visible()
    keep(page, "home-empty")
    page = user_pages.open("ann")
    page.goto("/projects/support/rank/")
    expect(page.get_by_role("heading", name="No comparisons yet")).to_be_visible()
    keep(page, "rank-empty")


@pytest.mark.full
def test_the_api_page_works_under_the_strict_policy(user_pages, annotator, keep):
    page = user_pages.open("ann")
    page.goto("/api/")
    expect(page.get_by_role("heading", name="Accord")).to_be_visible()
    expect(page.locator(".opblock").first).to_be_visible()
    keep(page, "api")


def test_guidelines_typed_while_the_session_ended_are_saved_after_signing_in(user_pages, project, manager, keep):
    user_pages.expected_errors.append("401")
    page = user_pages.open("mona")
    page.goto("/projects/support/settings/")
    page.get_by_label("Guidelines").fill("First line of the guidelines.\nSecond line, which took an hour.")
    page.context.clear_cookies(name="sessionid")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("This page keeps what you entered")).to_be_visible()
    keep(page, "unsent-sign-in")
    page.locator("[name=username]").fill("mona")
    page.locator("[name=password]").fill("mona-password")
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_label("Your text")).to_have_value(
        "First line of the guidelines.\nSecond line, which took an hour."
    )
    keep(page, "unsent-send")
    page.get_by_role("button", name="Send it now").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    project.refresh_from_db()
    assert project.guidelines.splitlines() == ["First line of the guidelines.", "Second line, which took an hour."]


def test_single_line_ends_in_guidelines_are_blanks(user_pages, project, annotator):
    project.guidelines = "Say what the customer\ncan do next.\n\nNever promise a date."
    project.save()
    page = user_pages.open("ann")
    page.goto("/projects/support/guidelines/")
    first, second = page.locator("article p").all()
    height = "element => element.getBoundingClientRect().height"
    assert first.evaluate(height) == second.evaluate(height)  # one line each
