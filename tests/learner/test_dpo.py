"""dpo: the learned policy, its distance to π*, and refused input."""

import itertools
import json
import math
import random

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.learner.test_kinds import GENERIC
from tests.learner.worlds.letters import (
    LETTERS,
    best_policy,
    completions,
    letters_tokenizer,
    log_prob,
    log_probs,
    objective,
    policy_folder,
    reward_of,
)
from tests.learner.worlds.spoken import LONG, dialogue_ranking, spoken
from tests.learner.worlds.two_processes import run_on_two
from tests.learner.worlds.words import ranking_rows, reward_job
from training.learner import dpo
from training.learner.models.loading import load_policy
from training.learner.runtime.config.dpo import DpoConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory

pytestmark = pytest.mark.slow

QUICK = {"learning_rate": 3e-3, "epochs": 4, "batch_rankings": 8, "max_completion_tokens": 40, "eval_prompts": 4}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a job that dpo has run."""
    folder = reward_job(tmp_path_factory.mktemp("dpo") / "job", ranking_rows(60, held_out=20), **QUICK)
    dpo.main(folder)
    return folder


@pytest.mark.full
def test_it_learns_to_order_held_out_rankings_and_reports_kl_and_margins(finished):
    result, lines = JobDirectory(finished).result(), JobDirectory(finished).metrics()
    assert result["program"] == "dpo" and result["steps"] == len(lines) == 20
    assert result["held_out_accuracy"] > 0.65 and result["held_out_accuracy_low"] < result["held_out_accuracy"]
    assert result["held_out_reward_margin"] > 0.1
    assert result["preferred_log_ratio"] > result["rejected_log_ratio"] + 1
    assert result["kl"] > 0.3 and 0.05 < result["tie_share"] < 0.5
    assert abs(lines[0]["reward_margin"]) < 1e-4 and lines[-1]["loss"] < lines[0]["loss"]
    assert sum("kl" in line and "held_out_accuracy" in line for line in lines) == 9


def test_log_probs_under_the_reference_are_computed_once(tmp_path, monkeypatch):
    job = reward_job(tmp_path / "job", ranking_rows(12, held_out=3), **QUICK | {"epochs": 3, "eval_prompts": 0})
    read, plain = [], dpo.ReferenceLogProbs.compute

    def counting(known, context, groups):
        read.append(sum(bool(known.of([group]).isnan().any()) for group in groups))
        plain(known, context, groups)

    monkeypatch.setattr(dpo.ReferenceLogProbs, "compute", counting)
    dpo.main(job)
    assert sum(read) == 12 and len(read) > 3


def text_of(completion):
    return " ".join(LETTERS[token] for token in completion if token)


def exact_rows(pairs):
    """Return both orders of each pair of completions of "a", weighted by its probability under Bradley–Terry."""
    rows = []
    for first, second in pairs:
        wins = 1 / (1 + math.exp(reward_of(second) - reward_of(first)))
        for ranks, weight in (([1, 2], wins), ([2, 1], 1 - wins)):
            texts = [text_of(first), text_of(second)]
            rows.append({"prompt_id": 1, "split": "train", "messages": [{"role": "user", "content": "a"}],
                         "completions": texts, "ranks": ranks, "weight": weight})  # fmt: skip
    return rows


def learned_in_the_world(tmp_path, rows, beta, **settings):
    """Return the log-probs of all completions under the learned policy and the reference, [85] each."""
    job = tmp_path / "job"
    job.mkdir()
    config = {"model": str(policy_folder(tmp_path / "policy")), "max_completion_tokens": 3, "beta": beta,
              "eval_prompts": 0, "learning_rate": 0.01} | settings  # fmt: skip
    (job / "config.json").write_text(json.dumps(config))
    (job / "rankings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dpo.main(job)
    return [log_probs(load_policy(str(folder))[0], [1]) for folder in (job / "model", tmp_path / "policy")]


def divergence(policy, other):
    return float((policy.exp() * (policy - other)).sum())


@pytest.mark.full
@pytest.mark.slow
def test_with_exact_preferences_dpo_gets_close_to_the_best_policy(tmp_path):
    """With all pairs the optimum of DPO is π* (Rafailov et al. 2023, theorem 1)."""
    rows = exact_rows(itertools.combinations(completions(), 2))
    policy, reference = learned_in_the_world(tmp_path, rows, 0.5, epochs=4, batch_rankings=250)
    best = best_policy(reference, 0.5)
    reached, start, attainable = (objective(one, reference, 0.5) for one in (policy, reference, best))
    assert divergence(reference, best) > 1.5
    assert divergence(policy, best) < 0.2 and (reached - start) / (attainable - start) > 0.9


@pytest.mark.full
@pytest.mark.slow
def test_with_exact_preferences_ipo_reaches_its_own_optimum(tmp_path):
    """π ∝ π_ref·exp(p(y ≻ μ) / τ), with the mean win rate over all completions (Azar et al. 2023, equation 7)."""
    rows = exact_rows(itertools.combinations(completions(), 2))
    policy, reference = learned_in_the_world(tmp_path, rows, 0.5, loss="ipo", epochs=2, batch_rankings=250)
    rewards = torch.tensor([reward_of(completion) for completion in completions()], dtype=torch.float64)
    best = (reference + torch.sigmoid(rewards[:, None] - rewards).mean(1) / 0.5).log_softmax(0)
    assert divergence(policy, best) < 0.3 * divergence(reference, best)


@pytest.mark.full
@pytest.mark.slow
def test_with_rankings_of_four_the_plackett_luce_loss_gets_close_to_the_best_policy(tmp_path):
    """Orders drawn from Plackett–Luce by Gumbel noise; 500 orders are noisy, so the best policy is not reached."""
    chance, rows = random.Random(0), []
    for _ in range(500):
        chosen = chance.sample(completions(), 4)
        noisy = [reward_of(one) - math.log(-math.log(chance.random())) for one in chosen]
        ranks = [1 + sum(other > value for other in noisy) for value in noisy]
        rows.append({"prompt_id": 1, "split": "train", "messages": [{"role": "user", "content": "a"}],
                     "completions": list(map(text_of, chosen)), "ranks": ranks})  # fmt: skip
    policy, reference = learned_in_the_world(tmp_path, rows, 0.5, loss="plackett_luce", epochs=6, batch_rankings=40)
    best = best_policy(reference, 0.5)
    reached, start, attainable = (objective(one, reference, 0.5) for one in (policy, reference, best))
    assert divergence(policy, best) < 0.7 * divergence(reference, best)
    assert (reached - start) / (attainable - start) > 0.35


def test_simpo_needs_no_reference_and_loads_none_without_a_kl(tmp_path, monkeypatch):
    settings = QUICK | {"loss": "simpo", "beta": 2.0, "eval_prompts": 0, "epochs": 1}
    job = reward_job(tmp_path / "job", ranking_rows(12, held_out=4), **settings)
    assert dpo.load_models(DpoConfig.from_json(JobDirectory(job).config()))[1] is None
    dpo.main(job)
    result = JobDirectory(job).result()
    assert "kl" not in result and "preferred_log_ratio" not in result and "brier_score" not in result
    assert result["held_out_accuracy"] is not None and result["held_out_reward_margin"] is not None


@pytest.mark.parametrize("loss", ["dpo", "plackett_luce"])
def test_it_learns_as_an_adapter_whose_reference_is_the_base(tmp_path, loss):
    settings = QUICK | {"lora_rank": 4, "learning_rate": 0.02, "loss": loss, "epochs": 4, "eval_prompts": 0}
    job = reward_job(tmp_path / "job", ranking_rows(8, held_out=2, seed=1), **settings)
    policy, reference, _ = dpo.load_models(DpoConfig.from_json(JobDirectory(job).config()))
    assert policy.base is reference.base and not list(reference.parameters())
    dpo.main(job)
    lines = JobDirectory(job).metrics()
    assert abs(lines[0]["reward_margin"]) < 1e-4 and lines[-1]["loss"] < lines[0]["loss"]
    assert (job / "model" / "adapter" / "adapter_model.safetensors").is_file()


def test_another_reference_than_the_start_is_measured_from(tmp_path):
    rows = ranking_rows(8, held_out=4)
    job = reward_job(tmp_path / "job", rows, **QUICK | {"reference_model": str(tmp_path / "other"), "epochs": 1})
    model, tokenizer = load_policy(str(tmp_path / "policy"))
    with torch.no_grad():
        model.lm_head.weight.mul_(3).add_(0.2 * torch.randn(model.lm_head.weight.shape))
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    dpo.main(job)
    assert abs(JobDirectory(job).metrics()[0]["reward_margin"]) > 1e-3
    policy_folder(tmp_path / "letters")
    job = reward_job(tmp_path / "refused", rows, **QUICK | {"reference_model": str(tmp_path / "letters")})
    with pytest.raises(BadInput, match="model and reference_model must have the same tokenizer"):
        dpo.main(job)


def test_a_hybrid_takes_the_generic_path(tmp_path):
    config = AutoConfig.for_model("lfm2", **GENERIC["lfm2"] | {"vocab_size": len(LETTERS), "eos_token_id": 0})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "policy")
    letters_tokenizer().save_pretrained(tmp_path / "policy")
    rows = exact_rows([([1, 2, 0], [3, 0]), ([4, 4, 0], [1, 0])])
    job = reward_job(tmp_path / "job", rows, max_completion_tokens=4, epochs=4, eval_prompts=2, loss="plackett_luce")
    dpo.main(job)
    result = JobDirectory(job).result()
    assert result["path"].startswith("generic: padded rows") and "packed" in result["path_reason"]
    assert abs(JobDirectory(job).metrics()[0]["reward_margin"]) < 1e-4


@pytest.mark.process
def test_two_processes_learn_the_same_as_one(tmp_path):
    rows = ranking_rows(17, held_out=5)
    one, two = (reward_job(tmp_path / name, rows, **QUICK | {"epochs": 2}) for name in ("one", "two"))
    dpo.main(one)
    run_on_two(dpo.main, two)
    for line, expected in zip(JobDirectory(two).metrics(), JobDirectory(one).metrics(), strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], abs=1e-4)
        assert line["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-2)
    results = [JobDirectory(job).result() for job in (one, two)]
    assert [result["processes"] for result in results] == [1, 2]
    for name in ("held_out_reward_margin", "preferred_log_ratio", "kl"):
        assert results[1][name] == pytest.approx(results[0][name], abs=0.05)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"loss": "kto"}, "loss must be one of dpo, ipo, simpo, plackett_luce, not 'kto'"),
        ({"beta": 0}, "beta must be above 0"),
        ({"label_smoothing": 0.5}, "label_smoothing must be below 0.5"),
        ({"loss": "plackett_luce", "tie_model": "none"}, "set tie_model to davidson"),
        ({"loss": "plackett_luce", "label_smoothing": 0.1}, "label_smoothing is the error rate of a pair"),
        ({"loss": "ipo", "margin": 1.0}, "the loss ipo has no margin"),
        ({"model": ""}, "set model"),
    ],
)
def test_invalid_settings_are_refused(changes, sentence):
    with pytest.raises(BadInput, match=sentence):
        DpoConfig.from_json({"model": "m"} | changes)


def test_rankings_that_cannot_be_learned_from_are_refused(tmp_path):
    rows = ranking_rows(4)
    with pytest.raises(BadInput, match="no training ranking"):
        dpo.main(reward_job(tmp_path / "ties", [row | {"ranks": [1] * 4} for row in rows], **QUICK))
    with pytest.raises(BadInput, match=r"rankings.jsonl, row 2 .*one rank per completion"):
        dpo.main(reward_job(tmp_path / "ranks", [rows[0], rows[1] | {"ranks": [1]}], **QUICK))
    long = [{"role": "user", "content": "help " * 130}]
    with pytest.raises(BadInput, match="the model has room for 128"):
        dpo.main(reward_job(tmp_path / "long", [rows[0] | {"messages": long}], **QUICK | {"eval_prompts": 0}))
    with pytest.raises(BadInput, match="the model has room for 128"):
        dpo.main(reward_job(tmp_path / "sampled", rows, **QUICK | {"max_completion_tokens": 125}))


def test_a_prompt_without_tokens_is_refused(tmp_path):
    policy_folder(tmp_path / "policy")
    rows = [row | {"messages": [{"role": "user", "content": ""}]} for row in exact_rows([([1, 0], [3, 0])])]
    with pytest.raises(BadInput, match="a prompt without tokens"):
        dpo.main(reward_job(tmp_path / "job", rows))


def test_it_learns_a_dialogue_against_the_same_tokens_of_other_speakers(tmp_path):
    """The tokens [2, 0, 3, 1, 0] are b, c, a, and also b, "c a" and an empty turn: only the speakers differ."""
    policy_folder(tmp_path / "policy")
    far = [{"role": "user", "content": "c"}]
    rows = [
        dialogue_ranking(spoken("b", "c", "a"), spoken("b", "c a", "")),
        dialogue_ranking(LONG, "b", prompt_id=2, messages=far),
    ]
    job = reward_job(tmp_path / "job", rows, epochs=20, learning_rate=3e-3, eval_prompts=2, max_completion_tokens=3)
    dpo.main(job)
    result, lines = JobDirectory(job).result(), JobDirectory(job).metrics()
    assert (result["train_accuracy"], result["truncated_completions"]) == (1.0, 0)
    assert abs(lines[0]["reward_margin"]) < 1e-4 and lines[-1]["reward_margin"] > 0.05
    policy, start = (load_policy(str(folder))[0] for folder in (job / "model", tmp_path / "policy"))

    def log_ratio(prompt, token):
        return float((log_prob(policy, prompt, [token]) - log_prob(start, prompt, [token])).detach())

    assert log_ratio([1, 2, 0, 3], 1) > 0, "the second turn of the better dialogue has become more likely"


def test_a_dialogue_longer_than_the_models_is_cut_and_counted(tmp_path):
    policy_folder(tmp_path / "policy", max_position_embeddings=12)
    job = reward_job(tmp_path / "job", [dialogue_ranking(LONG, "b")], eval_prompts=0, max_completion_tokens=3)
    dpo.main(job)
    assert JobDirectory(job).result()["truncated_completions"] == 1
