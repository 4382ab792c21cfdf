"""The whole loop without mocks: a browser, a worker, and the four programs on a tiny model."""

import time
from contextlib import contextmanager

import pytest
from console_page import ConsolePage
from playwright.sync_api import expect
from rank_page import RankPage

from feedback import imports
from feedback.models import Comparison, Lease, Ranking
from tests.factories import FAST
from tests.factories import rank as rank_some
from tests.training import tiny
from tests.training.services import ForkedWorker, wait_until
from tests.training.trial_worlds import WINS_TO_DECIDE
from training import checkpoints, tasks
from training.models import LoopSettings, Round
from training.rounds.start import start_sampling
from training.run_round import jobs

pytestmark = [pytest.mark.process, pytest.mark.django_db(transaction=True)]

MAX_WAIT = 240_000  # milliseconds until the test gives up; not a requirement on speed
STEPS = 24  # enough that a person, and a test, sees the curves grow


@pytest.fixture
def loop(project, tmp_path, gpu_worker) -> None:
    """Prompts, a served tiny model, and its first completions."""
    own = {**tiny.SETTINGS, "round": {"prompts": 30, "shown_prompts": 4, "comparison_size": 3, "guard_prompts": 0}}
    own["ppo"] = {**tiny.SETTINGS["ppo"], "steps": STEPS}
    LoopSettings.objects.create(project=project, settings=own)
    imports.add_prompts(project, [{"prompt": f"Where is parcel number {n}?"} for n in range(60)])
    checkpoints.import_checkpoint(project, str(tiny.make_model(tmp_path / "base")), "base", serve=True, verdict=FAST)
    first = start_sampling(project, None)
    wait_until(lambda: not Round.objects.get(pk=first.pk).is_active, "the first completions are written")
    assert Round.objects.get(pk=first.pk).error == ""


@contextmanager
def held(number: int, by: ForkedWorker):
    """Hold the round's policy program from its first steps on, so that it cannot end before the page was read."""
    folder = jobs.directory_of(Round.objects.get(number=number)) / "policy"
    lines = folder / "metrics.jsonl"
    deadline = time.monotonic() + MAX_WAIT / 1000
    while not (lines.is_file() and lines.read_text().count("\n")):
        assert time.monotonic() < deadline, "the policy program wrote no metrics"
        time.sleep(0.01)
    programs = by.programs()
    for program in programs:
        program.suspend()
    try:
        assert programs, "the policy program had ended already"
        assert lines.read_text().count("\n") < STEPS, "it was past its last step already"
        yield
    finally:
        for program in programs:
            program.resume()


def sources_of(comparison: int) -> set[str]:
    items = Comparison.objects.get(pk=comparison).items
    return set(items.values_list("completion__source__name", flat=True))


def test_twelve_rankings_by_keyboard_a_round_its_curves_a_promotion_and_the_new_completions(
    loop, gpu_worker, user_pages, project, annotator, manager, keep
):
    page = user_pages.open("ann")
    rank = RankPage(page)
    for n in range(12):
        assert sources_of(rank.comparison) == {"base"}
        rank.rank_by_keys([[1, 2, 3], [2, 1, 2], [3, 1, 2]][n % 3])
        rank.submit()
    rank.expect_sent()
    assert Ranking.objects.filter(project=project, is_live=True, annotator=annotator).count() == 12
    keep(page, "loop-ranked")

    console = ConsolePage(user_pages.open("mona"))
    with held(console.start_round(), gpu_worker):
        console.expect_curve("policy", "kl", timeout=MAX_WAIT)
        earlier = console.reading("policy", "reward")
        keep(console.page, "loop-round-running")
    reading = console.page.locator(".curve[data-job=policy][data-metric^=reward] output")
    expect(reading).not_to_have_text(earlier, timeout=MAX_WAIT)
    console.expect_status("Finished", timeout=MAX_WAIT)
    keep(console.page, "loop-round-finished")

    console.open_samples()
    console.page.wait_for_load_state()
    keep(console.page, "loop-samples")
    console.promote()
    expect(console.page.locator("body")).to_contain_text("round-0001")
    keep(console.page, "loop-promoted")
    assert checkpoints.served(project).source.name == "round-0001"

    # Comparisons on screen and fetched ahead stay leased; the next lease is of the new checkpoint.
    rank = RankPage(page)
    for _ in range(Lease.objects.filter(annotator=annotator).count()):
        assert sources_of(rank.comparison) == {"base"}
        rank.rank_by_keys([1, 2, 3])
        rank.submit()
    assert sources_of(rank.comparison) == {"round-0001"}
    keep(page, "loop-next-comparison")


def vote_for(source: str, rank: RankPage) -> None:
    """Rank the comparison of a trial on screen by keyboard, the completion of this source first."""
    lease = Lease.objects.get(annotator__username=rank.username, comparison=rank.comparison)
    items = lease.comparison.items.select_related("completion__source").order_by("position")
    sources = [str(item.completion.source) for item in items]
    rank.rank_by_keys([1 if sources[position] == source else 2 for position in lease.display_order])
    rank.submit()


@pytest.mark.full
def test_two_annotators_try_a_candidate_blind_the_gate_promotes_it_and_a_manager_rolls_back(
    loop, gpu_worker, user_pages, project, annotator, colleague, manager, keep
):
    settings = LoopSettings.objects.get(project=project)
    settings.settings["round"] |= {"trial_prompts": 30, "trial_share": 100}
    settings.settings["ppo"] |= {"steps": 3, "learning_rate": 0.05}  # so that the two write different texts
    settings.save()
    rank_some(project, annotator, 6)
    console = ConsolePage(user_pages.open("mona"))
    page = console.page
    console.start_round()
    console.expect_status("Finished", timeout=MAX_WAIT)

    page.goto(f"/projects/{project.slug}/trials/")
    page.get_by_role("button", name="Change the gate").click()
    page.get_by_role("dialog").get_by_label("Who promotes").select_option("automatic")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.locator("body")).to_contain_text("The gate promotes")
    keep(page, "trial-gate")

    console.open()
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("tr", has_text="round-0001").get_by_role("button", name="Try blind").first.click()
    console.expect_status("Finished", timeout=MAX_WAIT)
    keep(page, "trial-round")

    pages = [RankPage(user_pages.open(name)) for name in ("ann", "cole")]
    for n in range(WINS_TO_DECIDE):
        vote_for("round-0001", pages[n % 2])
    for rank in pages:
        rank.expect_sent()
    keep(pages[0].page, "trial-ranking")
    page.goto(f"/projects/{project.slug}/trials/1/")
    expect(page.locator("#trial-status")).to_contain_text(f"round-0001 wins 100 % of {WINS_TO_DECIDE} decisive votes")
    keep(page, "trial-decided")

    tasks.settle_trials()  # the beat sends this every five seconds
    expect(page.locator("#trial-status")).to_contain_text("The gate promoted round-0001", timeout=30_000)
    assert checkpoints.served(project).source.name == "round-0001"
    keep(page, "trial-ended")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Roll back to base").click()
    expect(page.locator("body")).to_contain_text("base is served again")
    assert checkpoints.served(project).source.name == "base"
