"""A demonstration that is written on the ranking page changes the next checkpoint."""

import pytest
from console_page import ConsolePage
from playwright.sync_api import expect
from rank_page import RankPage

from feedback import imports
from tests.factories import FAST
from tests.training import tiny
from training import checkpoints
from training.models import LoopSettings, Round

pytestmark = [pytest.mark.process, pytest.mark.django_db(transaction=True)]

MAX_WAIT = 480_000  # milliseconds until the test gives up; not a requirement on speed


@pytest.fixture
def loop(project, tmp_path, gpu_worker) -> str:
    """Comparisons, a round that imitates from one demonstration on, and a served tiny model; its folder."""
    project.held_out_percent = 0
    project.save()
    own = {"common": tiny.SETTINGS["common"], "sft": {"epochs": 30, "learning_rate": 0.01}}
    own["round"] = {"prompts": 3, "shown_prompts": 0, "comparison_size": 2, "recipe": "sft", "min_demonstrations": 1}
    LoopSettings.objects.create(project=project, settings=own)
    rows = [{"prompt": f"Parcel {n}?", "completions": ["zzz", "qqq"]} for n in range(3)]
    imports.add_prompts(project, rows, compare=True)
    folder = tiny.make_model(tmp_path / "base")
    checkpoints.import_checkpoint(project, str(folder), "base", serve=True, verdict=FAST)
    return str(folder)


def mean_negative_log_likelihood(folder: str, prompt: str, answer: str) -> float:
    """Mean of −log p of the answer's tokens after the prompt, by plain transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    before, tokens = (tokenizer(text, return_tensors="pt").input_ids for text in (prompt, prompt + answer))
    with torch.no_grad():
        log_probs = model(tokens).logits[0, :-1].float().log_softmax(-1)
    of_tokens = log_probs.gather(1, tokens[0, 1:, None])[before.shape[1] - 1 :]
    return -float(of_tokens.mean())


@pytest.mark.full
def test_a_demonstration_written_on_the_ranking_page_changes_the_next_checkpoint(
    loop, user_pages, project, annotator, manager, keep
):
    ranking = RankPage(user_pages.open("ann"))
    page = ranking.page
    prompt = page.locator(".prompt .prose").inner_text()
    ranking.press("w", "Control+a")
    page.keyboard.type("abcabc")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".submit-state")).to_contain_text("Your answer is stored")

    console = ConsolePage(user_pages.open("mona"))
    expect(console.page.get_by_role("link", name="1 demonstration")).to_be_visible()
    console.start_round()
    console.expect_status("Finished", timeout=MAX_WAIT)
    keep(console.page, "demonstration-round-finished")
    round_ = Round.objects.get()
    assert (round_.error, round_.results["sft"]["demonstrations"]) == ("", 1)
    made = project.checkpoints.exclude(path=loop).get()
    assert (
        mean_negative_log_likelihood(made.path, prompt, "abcabc")
        < mean_negative_log_likelihood(loop, prompt, "abcabc") - 1
    )
