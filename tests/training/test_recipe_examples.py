"""The examples of docs/recipes.md, run through the API on a small GPT-2 with a chat template."""

import json
import re
from pathlib import Path

import pytest

from feedback.models import Completion, Prompt
from tests.factories import FAST, client_of, lines
from tests.training import tiny
from training import checkpoints
from training.learner.reward_terms import make_metric
from training.models import Round
from training.run_round import run_round

DOCUMENT = Path(__file__).parents[2] / "docs" / "recipes.md"
URL = "/api/v1/projects/support"
BLOCK = r"```{}\n(.*?)```"
SMALL = {
    "ppo": {"steps": 2, "batch_episodes": 4, "epochs": 1, "eval_prompts": 2, "optimum_samples": 0},
    "best_of_n": {
        "iterations": 1,
        "prompts_per_iteration": 2,
        "sampling_prompts": 2,
        "eval_prompts": 2,
        "optimum_samples": 0,
    },
}


def examples():
    """Return rows of prompts and the body of the round, by heading."""
    found = {}
    for section in DOCUMENT.read_text("utf-8").split("\n## ")[1:]:
        rows = re.search(BLOCK.format(r"prompts\.jsonl"), section, re.DOTALL)
        if rows is None:  # a blind trial needs two checkpoints, not prompts: tests/training/test_trial_recipe.py
            continue
        body = re.search(BLOCK.format(r"round\.json"), section, re.DOTALL)[1]
        found[section.split("\n")[0]] = ([json.loads(row) for row in rows[1].splitlines()], json.loads(body))
    return found


EXAMPLES = examples()


def varied(rows):
    """Return the rows and further ones like them, so that prompts of both splits are there."""
    more = []
    for number in range(12):
        row = json.loads(json.dumps(rows[number % len(rows)]))
        if "messages" in row:
            row["messages"][-1]["content"] += f" ({number})"
        else:
            row["prompt"] += f" ({number})"
        more.append(row)
    return rows + more


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory):
    return tiny.make_chat_model(tmp_path_factory.mktemp("models") / "chat")


def section_of(settings):
    """Return the section of the example's settings that has the rewards of its policy; {} for imitation."""
    return next((settings[name] for name in SMALL if name in settings), {})


def test_the_page_of_recipes_has_eight_examples():
    metrics = [
        [term["name"] for term in section_of(body["settings"]).get("rewards", [])] for _, body in EXAMPLES.values()
    ]
    of_metrics = [["similarity"], ["token_f1", "exact_match"], ["rouge_l", "length"], ["bleu"], ["token_f1"]]
    assert metrics == [*of_metrics, ["similarity"], [], []], "then a dialogue, imitation, and an evaluation"


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("forked_programs")
@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_runs_as_it_is_written(project, chat_model, manager, name):
    checkpoints.import_checkpoint(project, str(chat_model), "chat", serve=True, verdict=FAST)
    rows, body = EXAMPLES[name]
    api, settings = client_of(manager), body["settings"]
    sent = api.post(f"{URL}/prompts", lines(*varied(rows)), content_type="application/x-ndjson")
    assert sent.status_code in (200, 201), sent.content
    assert {"train", "held_out"} <= set(Prompt.objects.values_list("split", flat=True))
    settings["round"] |= {"prompts": 3, "shown_prompts": 0, "guard_prompts": 0}
    settings["common"] = {"max_prompt_tokens": 48, "max_completion_tokens": 8}
    for section in SMALL:
        if section in settings:
            settings[section] |= SMALL[section]
    answer = api.post(f"{URL}/rounds", body, format="json")
    assert answer.status_code == 201, answer.content
    run_round.run(Round.objects.get().pk)

    done = api.get(f"{URL}/rounds/1").json()
    assert (done["status"], done["error"]) == ("finished", "")
    assert done["recipe"] == settings["round"]["recipe"] and done["ranking_count"] == 0
    if done["recipe"] == "evaluate":
        check_evaluation(done)
        return
    if done["recipe"] == "sft":
        learned = done["results"]["sft"]
        assert done["demonstrations_used"] == learned["demonstrations"] > 0
        assert 0 < learned["held_out_loss"] < learned["held_out_loss_before"]
        rewards = settings["sample"]["rewards"]
    else:
        assert (done["stages"], done["demonstrations_used"]) == (["snapshot", "policy", "samples", "comparisons"], 0)
        assert [line["step"] for line in done["metrics"] if line["job"] == "policy"] == [1, 2]
        assert done["results"]["policy"]["evaluated_on"] == "held_out"
        rewards = section_of(settings)["rewards"]
    if "environment" in section_of(settings):
        check_dialogues(Round.objects.get(), section_of(settings)["environment"])
    check_scores(Round.objects.get(), rewards)


def check_evaluation(done):
    """Check that the figures are of the held-out prompts, and that nothing else was made."""
    assert (done["stages"], done["checkpoint"]) == (["snapshot", "evaluate", "result"], None)
    held_out, figures = Prompt.objects.filter(split="held_out"), done["results"]["evaluate"]["metrics"]
    assert done["results"]["evaluate"]["completions"] == 2 * held_out.count()
    assert figures["tokens"]["count"] == held_out.count()
    assert figures["kl_from_root"]["value"] == pytest.approx(0, abs=1e-6), "the imported model itself"
    with_references = held_out.exclude(references=[]).count()
    assert [figures[name]["count"] for name in ("similarity", "bleu") if with_references] == [with_references] * 2
    assert not Completion.objects.exists()


def check_dialogues(done, environment):
    """Check that the samples have as many turns as the environment says, unless a turn was cut off, and its lines."""
    written = list(done.checkpoint.source.completions.all())
    spoken = [completion.turns or [{"role": "assistant", "content": completion.text}] for completion in written]
    for completion, turns in zip(written, spoken, strict=True):
        assert len(turns) == 2 * environment["turns"] - 1 or not completion.sampling["ended"]
        assert [turn["content"] for turn in turns[1::2]] == environment["lines"][: len(turns) // 2]


def check_scores(done, rewards):
    """Recompute the scores of the new completions from their text, where they are of text metrics alone."""
    assert done.reward_terms == [term["name"] for term in rewards]
    written = list(done.checkpoint.source.completions.all())
    assert written and all(completion.sampling["score"] is not None for completion in written)
    if "length" in done.reward_terms:
        return
    for completion in written:
        last = completion.turns[-1]["content"] if completion.turns else completion.text
        expected = sum(term.get("weight", 1) * measure(term)(last, completion.prompt.references) for term in rewards)
        penalty = section_of(done.settings).get("missing_eos_penalty", 0)
        assert any(completion.sampling["score"] == pytest.approx(expected - fixed, abs=1e-4) for fixed in (0, penalty))


def measure(term):
    return make_metric(term["name"], **{name: value for name, value in term.items() if name not in ("name", "weight")})
