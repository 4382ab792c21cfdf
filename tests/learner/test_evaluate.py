"""The program evaluate: every figure beside an independent computation, and refused settings."""

import json
from itertools import pairwise
from statistics import fmean

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.learner.worlds.evaluated import REFERENCES, ensemble_folder, evaluate_job
from tests.learner.worlds.letters import (
    LETTERS,
    PROMPTS,
    completions,
    damaged_policy,
    log_probs,
    policy_folder,
    token_divergence,
)
from training.learner import evaluate
from training.learner.reward_terms import METRICS
from training.learner.runtime.config.evaluate import EvaluateConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory, TrainingFailed

pytestmark = pytest.mark.slow

PER_PROMPT = 150


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A run with many completions of four prompts, two of which have references."""
    folder = tmp_path_factory.mktemp("evaluated")
    job = evaluate_job(
        folder / "job", completions_per_prompt=PER_PROMPT, batch_completions=1000,
        reward_model=str(ensemble_folder(folder / "reward")), root_model=str(policy_folder(folder / "root", seed=2)),
    )  # fmt: skip
    evaluate.main(job)
    return job


def rows_of(job):
    return [json.loads(line) for line in (job / "completions.jsonl").read_text().splitlines()]


def figures_of(job):
    return JobDirectory(job).result()["metrics"]


def plain(folder):
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def test_its_files_have_a_row_for_each_completion_and_a_figure_for_each_column(evaluated):
    rows, result = rows_of(evaluated), JobDirectory(evaluated).result()
    assert [(row["prompt_id"], row["index"]) for row in rows] == [(p, i) for p in range(4) for i in range(PER_PROMPT)]
    measured = {
        "reward_model",
        "reward_model_deviation",
        "kl_from_root",
        "tokens",
        "finished",
        "cut_off",
        "empty",
        "repeated",
    }
    assert set(rows[0]) == {"prompt_id", "index", "text", *METRICS, *measured}
    assert set(rows[PER_PROMPT]) == {"prompt_id", "index", "text", *measured}, "prompt b has no references"
    assert set(result["metrics"]) == {*METRICS, *measured, "distinct_1", "distinct_2"}
    assert (result["program"], result["prompts"], result["completions"]) == ("evaluate", 4, 4 * PER_PROMPT)
    for name in (*METRICS, *measured):
        figure, values = result["metrics"][name], [row[name] for row in rows if name in row]
        assert (figure["value"], figure["count"]) == (pytest.approx(fmean(values)), 2 if name in METRICS else 4)


def test_the_text_metrics_are_those_of_the_references(evaluated):
    """Recompute two of them by hand; the others have tests of their own in test_text_metrics.py."""
    for row in rows_of(evaluated)[:PER_PROMPT]:
        words = [word for word in row["text"].split() if word != "a"]  # an article, which SQuAD leaves out
        shared = ("b" in words) + ("c" in words)
        # The reference "a" has no words, as an empty text.
        assert row["exact_match"] == float(words in (["b", "c"], []))
        assert row["token_f1"] == pytest.approx(2 * shared / (len(words) + 2) if words else 1.0)


def test_the_score_and_its_deviation_are_those_of_the_heads(evaluated):
    """Compute every head with transformers and numpy alone."""
    folder = evaluated.parent / "reward"
    network = AutoModelForSequenceClassification.from_pretrained(folder)
    tensors = {name: part.double().numpy() for name, part in load_file(folder / "ensemble.safetensors").items()}
    main, heads = network.score.weight[0].double().detach().numpy(), tensors["learned"] + tensors["prior"]
    for row in rows_of(evaluated)[::31]:
        words = [*PROMPTS[row["prompt_id"]], *row["text"].split(), "<end>"]
        with torch.no_grad():
            states = network.base_model(torch.tensor([[LETTERS.index(word) for word in words]])).last_hidden_state
        read = states[0, : 1 + 3][-1] if len(words) > 4 else states[0, -1]  # at most MAX_LENGTH tokens of a completion
        scores = [(read.double().numpy() @ (main + head - heads.mean(0)) - 0.5) / 2.0 for head in heads]
        assert row["reward_model"] == pytest.approx(np.mean(scores), abs=1e-5)
        assert row["reward_model_deviation"] == pytest.approx(np.std(scores, ddof=1), abs=1e-5)


def test_the_kl_agrees_with_enumeration(evaluated):
    """Compare the rows of a prompt with plain passes over their texts, and their mean with the sum over all texts."""
    policy, root = (plain(evaluated.parent / name) for name in ("policy", "root"))
    ours, theirs = (log_probs(model, [1]) for model in (policy, root))
    of_texts = [token_divergence(policy, root, [1], completion) for completion in completions()]
    texts = [" ".join(LETTERS[token] for token in completion if token) for completion in completions()]
    known, rows = dict(zip(texts, of_texts, strict=True)), rows_of(evaluated)[:PER_PROMPT]
    assert all(row["kl_from_root"] == pytest.approx(known[row["text"]], abs=1e-4) for row in rows)
    exact = float((ours.exp() * (ours - theirs)).sum())
    variance = float((ours.exp() * (torch.tensor(of_texts) - exact) ** 2).sum())
    assert fmean(row["kl_from_root"] for row in rows) == pytest.approx(exact, abs=3 * (variance / PER_PROMPT) ** 0.5)


def test_lengths_and_shares_are_those_of_the_texts(evaluated):
    for row in rows_of(evaluated):
        words = len(row["text"].split())
        assert row["tokens"] == words + row["finished"] and row["cut_off"] == 1 - row["finished"]
        assert row["finished"] == float(words < 3) and row["empty"] == float(words == 0)
    figures = figures_of(evaluated)
    assert 0 < figures["finished"]["low"] < figures["finished"]["value"] < figures["finished"]["high"] < 1


def test_distinct_n_is_of_all_texts_together(evaluated):
    texts = [row["text"].split() for row in rows_of(evaluated)]
    total = sum(map(len, texts))
    figures = figures_of(evaluated)
    assert figures["distinct_1"]["value"] == len({word for text in texts for word in text}) / total
    pairs = {pair for text in texts for pair in pairwise(text)}
    assert figures["distinct_2"]["value"] == len(pairs) / total


def test_the_texts_depend_on_the_seed_and_not_on_the_batch(tmp_path):
    texts = []
    for name, changes in (("one", {}), ("two", {"batch_completions": 3}), ("three", {"seed": 1})):
        job = evaluate_job(tmp_path / name, completions_per_prompt=4, **changes)
        evaluate.main(job)
        texts.append([row["text"] for row in rows_of(job)])
    assert texts[0] == texts[1] != texts[2]


def test_without_references_reward_model_and_root_only_the_texts_are_measured(tmp_path):
    job = evaluate_job(tmp_path / "job", ["b", "d"])
    evaluate.main(job)
    assert set(figures_of(job)) >= {"tokens", "finished", "cut_off", "empty", "repeated"}
    assert set(figures_of(job)) <= {"tokens", "finished", "cut_off", "empty", "repeated", "distinct_1", "distinct_2"}


def test_a_reward_model_with_one_head_has_no_deviation(tmp_path):
    reward_model = ensemble_folder(tmp_path / "reward", heads=1)
    job = evaluate_job(
        tmp_path / "job", list(REFERENCES), reward_model=str(reward_model), metrics=[{"name": "rouge_l"}]
    )
    evaluate.main(job)
    assert {"reward_model", "rouge_l"} <= set(figures_of(job))
    assert not {"reward_model_deviation", "bleu"} & set(figures_of(job))


def test_figures_of_a_damaged_policy_are_not_written(tmp_path):
    job = evaluate_job(tmp_path / "job", model=str(damaged_policy(tmp_path / "damaged")))
    with pytest.raises(TrainingFailed, match="the policy's log-probability is nan at step 1"):
        evaluate.main(job)
    assert not (job / "result.json").exists() and not (job / "completions.jsonl").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"metrics": [{"name": "length", "target": 3}]},
            "metrics are text metrics without weights .*bleu, exact_match",
        ),
        ({"metrics": [{"name": "bleu", "weight": 2}]}, "metrics are text metrics without weights"),
        ({"metrics": [{"name": "bleu"}, {"name": "bleu", "tokenize": "zh"}]}, "one metric twice: bleu, bleu"),
        ({"metrics": [{"name": "bleu", "tokenize": "words"}]}, "tokenize of the reward term bleu must be one of"),
        ({"root_model": "r", "temperature": 0.0}, "set top_p to 1 and temperature above 0"),
        ({"rewards": []}, "unknown setting 'rewards' for evaluate"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(changes, sentence):
    with pytest.raises(BadInput, match=sentence):
        EvaluateConfig.from_json({"model": "m", **changes})
