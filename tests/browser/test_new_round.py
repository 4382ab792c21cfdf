"""The form of a new round in a real browser: with JavaScript, without it, and as people read it."""

import pytest
from django.db.models import F
from playwright.sync_api import expect
from test_accessibility import check

from feedback.models import Comparison, Prompt, Ranking
from tests.factories import FAST, random_model, rank
from tests.training.services import keep_messages_here
from training import checkpoints
from training.models import Round
from training.rounds import lifecycle
from training.rounds.estimates import DURATIONS
from training.rounds.start import start_round

pytestmark = [pytest.mark.full, pytest.mark.slow]
URL = "/projects/support/rounds/new/"


@pytest.fixture
def finished(project, manager, annotator, colleague, comparisons, tmp_path, monkeypatch):
    """A finished round that took longer than estimated, of a project with several kinds of rankings."""
    keep_messages_here(monkeypatch)
    checkpoints.import_checkpoint(project, str(random_model(tmp_path / "b")), "base", serve=True, verdict=FAST)
    comparisons(count=14, size=3)
    Comparison.objects.update(wanted_rankings=2)
    rank(project, annotator, 12)
    rank(project, colleague, 5)
    type(colleague).objects.filter(pk=colleague.pk).update(is_active=False)
    first = Ranking.objects.order_by("pk").first()
    Ranking.objects.filter(pk=first.pk).update(flags=["nonsense"])
    Prompt.objects.filter(comparisons=first.comparison_id).update(split="train")
    for seconds in (1.0, 1.16):
        started = start_round(project, manager)
        lifecycle.claim(started.pk, "gpu-1:100")
        durations = {job.name: n * 40 * seconds for n, job in enumerate(started.jobs, 1)}
        results = {job.name: {"seconds": 30 * n, "peak_memory_gb": 0.6} for n, job in enumerate(started.jobs, 1)}
        done = {"status": "finished", "stage": started.last_stage.name, "finished_at": F("started_at")}
        Round.objects.filter(pk=started.pk).update(**done, results={DURATIONS: durations, **results})
    return Round.objects.get(pk=started.pk)


def test_a_changed_setting_is_marked_reset_and_refused_beside_its_field(user_pages, finished):
    page = user_pages.open("mona")
    page.goto(URL)
    expect(page.locator("#plan")).to_contain_text("with a flag that means not for training")
    before = page.locator("#needs-title ~ dl dd").first.inner_text()
    assert before.startswith("about ")
    page.get_by_label("Policy steps").fill("400")
    setting = page.locator(".setting", has=page.get_by_label("Policy steps"))
    expect(setting.locator(".tag")).to_be_visible()
    page.get_by_label("Policy steps").blur()
    expect(page.locator("#needs-title ~ dl dd").first).not_to_have_text(before)
    setting.get_by_role("button", name="Reset").click()
    expect(page.get_by_label("Policy steps")).to_have_value("100")
    expect(page.locator("#needs-title ~ dl dd").first).to_contain_text(before.split("\n")[0])
    page.locator("#all-settings > summary").click()
    page.get_by_label("Completions per step").fill("10")
    page.get_by_label("Optimizer steps per pass").fill("3")
    page.get_by_role("button", name="Start", exact=True).click()
    refused = page.locator(".setting", has=page.get_by_label("Completions per step"))
    expect(refused.locator(".errorlist")).to_contain_text("batch_episodes (10) must be a multiple of minibatches (3)")
    expect(page.get_by_label("Optimizer steps per pass")).to_have_value("3")
    page.get_by_label("Recipe").select_option("dpo")
    expect(page.get_by_label("Passes over the rankings")).to_have_value("1")
    expect(page.get_by_label("Policy steps")).to_have_count(0)
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Round 3")
    assert Round.objects.get(number=3).recipe.name == "dpo"


def test_without_javascript_the_form_estimates_resets_and_starts(browser, user_pages, finished):
    context = browser.new_context(base_url=user_pages.address, java_script_enabled=False)
    with_script = user_pages.open("mona")
    context.add_cookies(with_script.context.cookies())
    page = context.new_page()
    page.goto(URL)
    page.get_by_label("Recipe").select_option("dpo")
    page.get_by_role("button", name="Show its settings").click()
    page.get_by_label("Passes over the rankings").fill("3")
    page.get_by_role("button", name="Estimate again").click()
    page.get_by_role("button", name="Reset Passes over the rankings").click()
    expect(page.get_by_label("Passes over the rankings")).to_have_value("1")
    page.get_by_label("Prompts to answer").fill("7")
    page.get_by_role("button", name="Start", exact=True).click()
    started = Round.objects.get(number=3)
    assert (started.recipe.name, started.settings["round"]["prompts"]) == ("dpo", 7)
    context.close()


@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
@pytest.mark.parametrize(("dark", "language"), [(False, "en"), (True, "zh-Hans")])
def test_the_form_and_the_error_of_the_estimate_are_shown(user_pages, finished, keep, phone, dark, language):
    page = user_pages.open("mona", phone=phone, dark=dark, language=language)
    name = f"new-round-{'phone' if phone else 'desktop'}-{language}"
    page.goto(URL)
    check(page)
    keep(page, name)
    page.locator("#all-settings > summary").click()
    check(page)
    keep(page, f"{name}-all")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the screen"
    page.goto(f"{URL}?again={finished.number}")
    page.locator("[name=round-prompts]").fill("0")
    page.locator("#new-round > .actions .button.primary").click()
    expect(page.locator(".errorlist")).to_have_count(1)
    check(page)
    keep(page, f"{name}-refused")
    page.goto(f"/projects/support/rounds/{finished.number}/")
    expect(page.locator("#estimated")).to_contain_text("+16 %")
    check(page)
    keep(page, f"{name}-estimated")
