"""A manager starts a round, watches it and promotes its checkpoint; the test plays the worker."""

import math
import re
from datetime import timedelta
from pathlib import Path

import pytest
from console_page import ConsolePage
from django.db.models.functions import Now
from playwright.sync_api import expect
from rank_page import RankPage
from test_accessibility import check

from feedback.models import Comparison
from tests.factories import FAST, fake_model, rank
from tests.training.services import keep_messages_here
from training import checkpoints
from training.checkpoints import checks
from training.checkpoints.checks import Verdict
from training.models import Checkpoint, Round
from training.rounds import lifecycle
from training.rounds.results import Outcome
from training.rounds.start import start_sampling


@pytest.fixture(autouse=True)
def _messages_stay_here(monkeypatch):
    keep_messages_here(monkeypatch)


@pytest.fixture
def base(project, tmp_path):
    return checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "base")), "base", serve=True, verdict=FAST)


@pytest.fixture
def console(user_pages, manager, base, comparisons, annotator, project) -> ConsolePage:
    comparisons(count=12, size=3)
    rank(project, annotator, 6)
    return ConsolePage(user_pages.open("mona"))


def lines(first: int, last: int) -> list[dict]:
    return [
        {
            "step": step,
            "total": 8,
            "time": 0.0,
            "reward": step / 4,
            "kl": step / 10,
            "policy_loss": -0.01,
            "value_loss": 1 / step,
        }
        | ({"eval_reward": step / 5, "eval_kl": step / 9} if step % 2 == 0 else {})
        for step in range(first, last + 1)
    ]


def outcome_of(project, tmp_path) -> Outcome:
    prompts = list(project.prompts.order_by("pk"))
    rows = [
        {
            "prompt_id": prompt.pk,
            "text": f"New answer {letter}.",
            "sampling": {"round": 1, "index": index, "score": 1.5},
        }
        for prompt in prompts
        for index, letter in enumerate("xyz")
    ]
    old = [
        {"prompt_id": prompt.pk, "text": "Old answer.", "sampling": {"round": 1, "index": 0, "score": 0.5}}
        for prompt in prompts
    ]
    folder = fake_model(tmp_path / "made")
    return Outcome(model=str(folder), reward_model="", samples=rows, baseline=old)


@pytest.mark.full
def test_a_round_from_start_to_promotion(console, user_pages, project, tmp_path, keep, colleague):
    page = console.page
    keep(page, "console")
    number = console.start_round()
    console.expect_status("Waiting")
    keep(page, "round-waiting")
    claim = lifecycle.claim(Round.objects.get(number=number).pk, "gpu-1")
    lifecycle.set_stage(claim, "policy")
    lifecycle.record_metrics(claim, "policy", lines(1, 3), from_start=True)
    console.expect_curve("policy", "reward")
    expect(page.locator(".stages .now")).to_contain_text("Policy")
    console.expect_status("Running")
    before = console.reading("policy", "reward")
    lifecycle.record_metrics(claim, "policy", lines(4, 6), from_start=False)
    expect(page.locator(".curve[data-job=policy][data-metric^=reward] output")).not_to_have_text(before)
    expect(page.locator("#round-status")).to_contain_text("6 of 8")
    assert console.reading("policy", "reward").endswith("evaluation 1.2")
    page.get_by_text("End of the log").click()
    expect(page.locator(".log")).to_be_visible()
    for text in ("step 5", "step 6"):  # a poll changes the text in the opened log
        lifecycle.beat(claim, text)
        expect(page.locator(".log")).to_have_text(text)
    expect(page.locator(".log")).to_be_visible()
    keep(page, "round-running")
    lifecycle.store_result(claim, "reward", {"held_out_accuracy": 0.71, "annotator_agreement": None})
    lifecycle.store_result(
        claim,
        "policy",
        {
            "kl": 0.6,
            "reward": 1.5,
            "reward_reference": 0.1,
            "evaluation_prompts": 64,
            "reward_gain": 1.4,
            "reward_gain_low": 1.1,
            "reward_gain_high": 1.7,
        },
    )
    lifecycle.finish(claim, outcome_of(project, tmp_path))
    console.expect_status("Finished")
    keep(page, "round-finished")
    console.open_samples()
    expect(page.get_by_text("New answer x.").first).to_be_visible()
    expect(page.get_by_text("Old answer.").first).to_be_visible()
    keep(page, "samples")
    console.promote()
    expect(page.get_by_text("served").first).to_be_visible()
    ranking = RankPage(user_pages.open("cole"))
    source = Comparison.objects.get(pk=ranking.comparison).completions.first().source
    assert source.name == "round-0001"
    assert all(text.startswith("New answer") for text in ranking.texts)


def test_cancel_then_resume(console, keep):
    page = console.page
    page.on("dialog", lambda dialog: dialog.accept())
    number = console.start_round()
    claim = lifecycle.claim(Round.objects.get(number=number).pk, "gpu-1")
    console.page.reload()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("its state saved first")).to_be_visible()
    lifecycle.cancel(claim)
    console.expect_status("Cancelled")
    page.get_by_role("button", name="Resume").click()
    console.expect_status("Waiting")


@pytest.mark.full
def test_a_failed_round_shows_its_reason(console, keep):
    number = console.start_round()
    claim = lifecycle.claim(Round.objects.get(number=number).pk, "gpu-1")
    lifecycle.set_stage(claim, "reward")
    lifecycle.fail(claim, "The reward program ran out of memory.", "step 1\n<b>MemoryError</b>")
    console.expect_status("Failed")
    expect(console.page.get_by_text("The reward program ran out of memory.")).to_be_visible()
    expect(console.page.locator(".log")).to_contain_text("<b>MemoryError</b>")
    keep(console.page, "round-failed")


@pytest.mark.full
def test_an_ended_round_shows_no_empty_curve(console):
    number = console.start_round()
    claim = lifecycle.claim(Round.objects.get(number=number).pk, "gpu-1")
    lifecycle.set_stage(claim, "policy")
    lifecycle.record_metrics(claim, "policy", lines(1, 3), from_start=True)
    lifecycle.fail(claim, "The ppo program stopped.")
    console.expect_status("Failed")
    console.expect_curve("policy", "reward")
    for curve in console.page.locator("figure.curve[data-job=reward]").all():  # the reward model wrote no number
        expect(curve).to_be_hidden()
    expect(console.page.locator(".stages li.failed")).to_have_count(1)


@pytest.mark.full
def test_the_console_of_an_empty_project_has_no_start_button(user_pages, manager, keep):
    page = user_pages.open("mona", phone=True)
    page.goto("/projects/support/console/")
    expect(page.get_by_role("heading", name="No model yet")).to_be_visible()
    expect(page.get_by_role("link", name="Start a round")).to_have_count(0)
    keep(page, "console-empty-phone")


@pytest.mark.full
def test_a_checkpoint_is_evaluated_by_a_button_and_its_table_is_shown(console, user_pages, keep):
    page = console.page
    page.get_by_role("button", name="Evaluate").click()
    console.expect_status("Waiting")
    claim = lifecycle.claim(Round.objects.get().pk, "gpu-1")
    lifecycle.set_stage(claim, "evaluate")
    figures = {
        name: {"value": 0.413, "low": 0.35, "high": 0.47, "count": 240}
        for name in ("similarity", "tokens", "distinct_1")
    }
    lifecycle.store_result(claim, "evaluate", {"metrics": figures | {"bleu": figures["tokens"] | {"low": None}}})
    lifecycle.finish(claim, Outcome("", "", [], []))
    console.expect_status("Finished")
    expect(page.locator("#evaluation tbody tr")).to_have_count(4)
    expect(page.locator("#evaluation tbody tr").first).to_contain_text("0.350 to 0.470")
    check(page)
    keep(page, "evaluation")
    phone = user_pages.open("mona", phone=True)
    phone.goto(page.url)
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the screen"
    keep(phone, "evaluation-phone")
    console.open()
    expect(page.get_by_role("link", name="Evaluated in round 1")).to_be_visible()
    check(page)
    keep(page, "console-evaluated")


@pytest.mark.full
def test_a_round_without_training_shows_no_curves(console, user_pages, project):
    """The `user_pages` fixture checks that the console has no errors."""
    start_sampling(project, None)
    console.page.goto("/projects/support/rounds/0/")
    expect(console.page.locator(".stages")).to_be_visible()
    expect(console.page.locator(".curves")).to_have_count(0)


@pytest.mark.full
def test_a_failed_rounds_settings_are_changed_and_it_starts_again(console, keep):
    page = console.page
    number = console.start_round()
    lifecycle.fail(lifecycle.claim(Round.objects.get(number=number).pk, "gpu-1"), "The ppo program ran out of memory.")
    console.expect_status("Failed")
    page.get_by_role("link", name="Change settings and start again").click()
    page.locator("#all-settings > summary").click()
    page.get_by_label("Completions per step").fill("8")
    keep(page, "round-again")
    page.get_by_role("button", name="Start", exact=True).click()
    console.expect_status("Waiting")
    assert Round.objects.get(number=number + 1).settings["ppo"]["batch_episodes"] == 8


def test_promoting_asks_first(console, user_pages, project, tmp_path):
    checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "other")), "other", verdict=FAST)
    console.open()
    asked = []
    console.page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    console.page.get_by_role("button", name="Promote").click()
    assert asked == ["Serve other instead of base from now on? You can roll back."]
    assert project.checkpoints.get(is_served=True).source.name == "base"


@pytest.mark.full
def test_an_imported_model_waits_for_its_check_and_the_page_updates_its_verdict(
    console, user_pages, project, manager, keep, tmp_path
):
    manager.is_staff = True
    manager.save()
    console.open()
    page = console.page
    for label in ("refused-one", "slow-one"):
        page.get_by_role("button", name="Import a model").click()
        page.get_by_label("Folder").fill(str(fake_model(tmp_path / label)))
        page.get_by_label("Label").fill(label)
        keep(page, "import")
        page.get_by_role("dialog").get_by_role("button", name="Import", exact=True).click()
        expect(page.get_by_role("row", name=label)).to_contain_text("Waiting for its check")
    keep(page, "check-waiting")
    refused, slow = (
        project.checkpoints.get(source__name="refused-one"),
        project.checkpoints.get(source__name="slow-one"),
    )
    Checkpoint.objects.update(check_requested_at=Now() - timedelta(minutes=2))
    expect(page.locator("#check-hint")).to_contain_text("--only gpu")
    page.locator("#checkpoints").scroll_into_view_if_needed()
    keep(page, "check-late")
    checks.claim(refused.pk, "gpu-1:100")
    expect(page.get_by_role("row", name="refused-one")).to_contain_text("Being checked")
    page.get_by_role("button", name="Import a model").click()
    page.get_by_label("Label").fill("half typed")
    sentence = "packed hidden states differ from those of the model's own forward pass by 0.3 of their size"
    checkpoints.settle_check(
        refused, Verdict("refused", "", "", f"{refused.path}: no way of computing is exact ({sentence})")
    )
    checkpoints.settle_check(slow, Verdict("generic", "padded", "cached", f"in packed passes {sentence}"))
    page.wait_for_timeout(3000)
    assert page.get_by_label("Label").input_value() == "half typed"  # an open form is not reloaded
    page.get_by_role("dialog").get_by_role("button", name="Back").click()
    expect(page.get_by_role("row", name="slow-one")).to_contain_text("served")
    row = page.get_by_role("row", name="refused-one")
    expect(row).to_contain_text(sentence)
    expect(row.get_by_role("button")).to_have_text(["Check again"])
    page.locator("#checkpoints").scroll_into_view_if_needed()
    keep(page, "check-verdicts")
    page.get_by_role("link", name="Start a round").click()
    expect(page.locator("#new-round")).to_contain_text("Exact by the generic path")
    keep(page, "check-start")
    phone = ConsolePage(user_pages.open("mona", phone=True)).page
    phone.locator("#checkpoints").scroll_into_view_if_needed()
    keep(phone, "check-verdicts-phone")
    phone.get_by_role("link", name="Start a round").click()
    keep(phone, "check-start-phone")


def follow(page, number: int, job: str, count: int):
    """Store `count` steps of a job of the round, and open its page."""
    claim = lifecycle.claim(Round.objects.get(number=number).pk, "gpu-1")
    lifecycle.set_stage(claim, job)
    steps = range(1, count + 1)
    lines = [{"step": n, "total": count, "time": 0.0, "reward": math.sin(n / 50), "kl": n / count} for n in steps]
    lifecycle.record_metrics(claim, job, lines, from_start=True)
    page.reload()
    return claim


@pytest.mark.full
def test_curves_are_read_enlarged_compared_and_saved(console, project, keep):
    page = console.page
    first = follow(page, console.start_round(), "policy", 40)
    lifecycle.fail(first, "The ppo program stopped.")
    console.expect_status("Failed")
    console.open()
    follow(page, console.start_round(), "policy", 1000)
    reward = page.locator(".curve[data-job=policy][data-metric^='reward ']")
    plot = reward.get_by_role("slider", name="Reward")
    expect(plot).to_have_attribute("aria-valuenow", "1000")
    plot.focus()
    page.keyboard.press("Home")
    expect(plot).to_have_attribute("aria-valuetext", re.compile("^step 1: training 0.02"))
    page.keyboard.press("+")
    expect(reward.get_by_role("button", name="Show all steps")).to_be_visible()
    expect(plot).to_have_attribute("aria-valuemax", "251")
    page.keyboard.press("0")
    expect(plot).to_have_attribute("aria-valuemax", "1000")
    box = plot.locator(".u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 3 / 4, box["y"] + 40, steps=3)
    page.mouse.up()
    expect(plot).to_have_attribute("aria-valuemin", re.compile("^(49|50)[0-9]$"))
    reward.get_by_role("button", name="Show all steps").click()
    page.get_by_text("Compare with other rounds").click()
    page.get_by_label("Round 1").check()
    expect(reward.locator("output")).to_contain_text("round 1 · training")
    page.get_by_label("Smoothing").fill("0.5")
    page.get_by_label("Logarithmic scale").check()
    reward.get_by_text("Values").click()
    expect(reward.locator("tbody tr")).to_have_count(25)
    expect(reward.locator("tbody tr").last).to_contain_text("1,000")
    check(page)
    keep(page, "curves-compared")
    with page.expect_download() as saved:
        reward.get_by_role("button", name="save as PNG").click()
    assert saved.value.suggested_filename == "policy-reward-eval_reward.png"
    with page.expect_download() as saved:
        reward.get_by_role("link", name="save as CSV").click()
    text = Path(saved.value.path()).read_text()
    assert text.startswith("round,job,step,reward,eval_reward\n2,policy,1,0.0199") and "\n1,policy,40," in text
