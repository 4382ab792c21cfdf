"""best_of_n: picks against the exact best-of-n distribution, the learned policy, and refused input."""

import json
import math
from collections import Counter

import pytest
import scipy
import torch
from transformers import AutoModelForCausalLM

from tests.learner.worlds.letters import (
    LETTERS,
    MAX_LENGTH,
    best_policy,
    completions,
    damaged_policy,
    log_probs,
    objective,
    reward_model_folder,
    reward_of,
)
from tests.learner.worlds.picked import best_of_n, best_of_n_job
from training.learner import best_of_n as program
from training.learner.policy.picks import (
    Pick,
    as_example,
    best_of_groups,
    imitated_picks,
    imitation_steps,
    plan_imitation,
)
from training.learner.runtime.config.best_of_n import BestOfNConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory, TrainingFailed

BETA, N, PICKS = 0.5, 4, 1500
SMALL = {"completions_per_prompt": 2, "prompts_per_iteration": 8, "sampling_prompts": 4, "batch_completions": 4}


def transformers_model(folder):
    """Return the folder's model as transformers computes it."""
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def rows_of(job):
    return [json.loads(line) for line in (job / "picks.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run of one iteration on one prompt, until the picks are learned."""
    job = best_of_n_job(
        tmp_path_factory.mktemp("best of n") / "job", completions_per_prompt=N, prompts_per_iteration=PICKS,
        sampling_prompts=PICKS // 3, epochs=12, batch_completions=250, learning_rate=0.01, kl_coefficient=BETA,
        eval_prompts=1, optimum_samples=400,
    )  # fmt: skip
    program.main(job)
    return job


@pytest.fixture(scope="module")
def distributions(learned):
    """Log-probabilities of all completions under the reference and the learned policy."""
    folders = (learned.parent / "policy", learned / "model")
    return [log_probs(transformers_model(folder), [1]) for folder in folders]


def chi_square_p_value(counts, log_probs):
    """Return the p-value of the completions' counts under a distribution (Pearson's χ², cells of 5 and more)."""
    expected = log_probs.exp() * counts.sum()
    large = expected >= 5
    cells = [torch.cat([values[large], values[~large].sum()[None]]) for values in (counts, expected)]
    return scipy.stats.chisquare(*(values / values.sum() * counts.sum() for values in cells)).pvalue


@pytest.mark.full
@pytest.mark.slow
def test_the_picks_are_distributed_as_the_best_of_n(learned, distributions):
    """Enumerate all completions: finished texts of one or two letters, and texts that are cut off."""
    texts = [" ".join(LETTERS[token] for token in completion if token) for completion in completions()]
    picked = Counter(row["text"] for row in rows_of(learned))
    assert len(set(texts)) == len(texts) == 85 and picked.total() == PICKS and set(picked) <= set(texts)
    counts = torch.tensor([picked[text] for text in texts], dtype=torch.float64)
    reference, _ = distributions
    assert chi_square_p_value(counts, best_of_n(reference, N)) > 0.01
    for other in (1, N - 1, N + 1):
        assert chi_square_p_value(counts, best_of_n(reference, other)) < 1e-3


@pytest.mark.full
@pytest.mark.slow
def test_the_policy_learns_the_best_of_n_distribution_and_gets_closer_to_the_optimum(learned, distributions):
    reference, policy = distributions
    exact, best = best_of_n(reference, N), best_policy(reference, BETA)
    before, after = (float((exact.exp() * (exact - one)).sum()) for one in (reference, policy))
    assert after < 0.25 * before
    divergence = [float((one.exp() * (one - best)).sum()) for one in (reference, policy)]
    assert divergence[1] < 0.6 * divergence[0]


@pytest.mark.full
@pytest.mark.slow
def test_it_reports_the_distance_to_the_best_policy_as_ppo_does(learned, distributions):
    result, (reference, policy) = JobDirectory(learned).result(), distributions
    rewards = torch.tensor([reward_of(completion) for completion in completions()], dtype=torch.float64)
    best = objective(best_policy(reference, BETA), reference, BETA)
    assert result["objective_low"] < objective(policy, reference, BETA) < result["objective_high"]
    assert result["best_objective_at_least"] < best
    assert result["sampled_reward"] == pytest.approx(float((reference.exp() * rewards).sum()), abs=0.05)
    assert result["picked_reward"] == pytest.approx(float((best_of_n(reference, N).exp() * rewards).sum()), abs=0.08)
    assert result["imitated_reward"] == result["picked_reward"] > result["sampled_reward"] + 0.5
    assert result["kl_bound"] == pytest.approx(math.log(N) - (N - 1) / N)
    assert (result["picks"], result["imitated_picks"], result["evaluated_on"]) == (PICKS, PICKS, "train")
    assert {"reward", "reward_reference", "reward_gain", "kl", "best_of_n"} <= set(result)


@pytest.mark.slow
def test_its_steps_are_sampling_then_imitation(learned):
    lines = JobDirectory(learned).metrics()
    assert ["loss" in line for line in lines] == [False] * 3 + [True] * 72
    assert {line["total"] for line in lines} == {75}
    assert all(("picked_reward" in line) == (line["step"] <= 3) for line in lines)
    assert all(line["picked_reward"] > line["reward"] for line in lines[:3])
    assert [line["step"] for line in lines if "eval_kl" in line] == [3 + 8 * n for n in range(1, 10)]
    assert lines[3]["learning_rate"] == 0.01 > lines[-1]["learning_rate"] > 0


@pytest.mark.slow
def test_every_iteration_samples_the_newest_policy_and_picks_the_best_of_it(tmp_path):
    job = best_of_n_job(
        tmp_path / "job", ("a", "b"), **SMALL | {"prompts_per_iteration": 40, "sampling_prompts": 20}, iterations=3,
        epochs=5, learning_rate=0.01, threshold="quantile", reward_quantile=0.5,
    )  # fmt: skip
    program.main(job)
    lines, result = JobDirectory(job).metrics(), JobDirectory(job).result()
    sampled = [line["reward"] for line in lines if "picked_reward" in line]
    assert len(sampled) == 6 and sampled[4] + sampled[5] > sampled[0] + sampled[1] + 0.4
    totals = [line["total"] for line in lines]
    assert totals[0] == 3 * (2 + 50) > totals[-1] == lines[-1]["step"] and totals == sorted(totals, reverse=True)
    assert result["picks"] == 40 and "kl_bound" not in result
    rewards = sorted(row["reward"] for row in rows_of(job))
    assert all(row["imitated"] == (row["reward"] >= rewards[20]) for row in rows_of(job))
    imitated = [row["reward"] for row in rows_of(job) if row["imitated"]]
    assert result["imitated_reward"] == pytest.approx(sum(imitated) / len(imitated))
    assert result["imitated_reward"] > result["picked_reward"]
    assert 20 <= len(imitated) == result["imitated_picks"] < 40
    assert {row["prompt_id"] for row in rows_of(job)} == {0, 1}


@pytest.mark.slow
def test_a_reward_model_picks_and_an_adapter_learns(tmp_path):
    reward_model = reward_model_folder(tmp_path / "reward_model")
    job = best_of_n_job(
        tmp_path / "job", ("a", "b"), **SMALL, lora_rank=2, dtype="bfloat16", rewards=[{"name": "reward_model"}],
        reward_model=str(reward_model), eval_prompts=2,
    )  # fmt: skip
    program.main(job)
    result = JobDirectory(job).result()
    assert result["steps"] == 4 and result["reward"] is not None and (job / "model" / "adapter").is_dir()
    assert result["picked_reward"] > result["sampled_reward"]


def test_only_prompts_of_the_training_split_are_sampled(tmp_path):
    job = best_of_n_job(tmp_path / "job", ("a", "b", "c"), **SMALL, eval_prompts=2)
    rows = [json.loads(line) for line in (job / "prompts.jsonl").read_text().splitlines()]
    rows[1]["split"] = "held_out"
    (job / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    program.main(job)
    assert {row["prompt_id"] for row in rows_of(job)} == {0, 2}
    result = JobDirectory(job).result()
    assert (result["evaluated_on"], result["evaluation_prompts"]) == ("held_out", 1)


def picks(*rewards):
    return [Pick(None, [1, 2], [3, 0], "c", reward) for reward in rewards]


def settings(**changes):
    return BestOfNConfig(**{"model": "m", "reward_model": "r"} | changes)


def test_the_first_of_the_highest_rewards_of_a_group_is_picked():
    assert best_of_groups(torch.tensor([0.0, 2.0, 2.0, 5.0, -1.0, 4.0]), 3) == [1, 3]


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [
        ({}, [0.0, 3.0, 1.0, 2.0]),
        ({"threshold": "reward", "min_reward": 1.0}, [3.0, 1.0, 2.0]),
        ({"threshold": "quantile", "reward_quantile": 0.25}, [3.0, 1.0, 2.0]),
        ({"threshold": "quantile", "reward_quantile": 0.5}, [3.0, 2.0]),
        ({"threshold": "quantile", "reward_quantile": 0.99}, [3.0]),
    ],
)
def test_picks_below_the_threshold_are_not_imitated(chosen, kept):
    assert [pick.reward for pick in imitated_picks(picks(0.0, 3.0, 1.0, 2.0), settings(**chosen))] == kept


def test_with_equal_rewards_a_quantile_leaves_no_pick_out():
    assert len(imitated_picks(picks(1.0, 1.0, 1.0), settings(threshold="quantile", reward_quantile=0.9))) == 3


def test_the_tokens_of_the_completion_are_imitated_and_not_those_of_the_prompt():
    assert as_example(Pick(7, [5, 6, 7], [8, 0], "t", 1.0)) == ([5, 6, 7, 8, 0], [0.0, 0.0, 1.0, 1.0], False, False)


def test_every_pass_imitates_every_pick_once_in_steps_of_nearly_equal_size():
    chosen = settings(epochs=2, batch_completions=4)
    plan = plan_imitation(10, 1, chosen)
    assert len(plan) == imitation_steps(10, chosen) == 4 and [len(step) for step in plan] == [5, 5, 5, 5]
    assert sorted(plan[0] + plan[1]) == sorted(plan[2] + plan[3]) == list(range(10)) and plan[:2] != plan[2:]
    assert plan_imitation(10, 2, chosen) != plan and [len(step) for step in plan_imitation(1, 1, chosen)] == [1, 1]


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"completions_per_prompt": 1}, "completions_per_prompt must be at least 2"),
        ({"prompts_per_iteration": 30}, r"prompts_per_iteration \(30\) must be a multiple of sampling_prompts \(16\)"),
        ({"threshold": "mean"}, "threshold must be one of none, reward, quantile"),
        ({"reward_quantile": 1.0}, "reward_quantile must be below 1"),
        ({"rewards": []}, "rewards must contain at least one term"),
        ({"rewards": [{"name": "missing_eos"}]}, "set reward_model when, and only when"),
        ({"optimum_samples": 1}, "optimum_samples must be 2 or more"),
        (
            {"reward_model": "", "rewards": [{"name": "missing_eos"}], "pessimism": 1.0},
            "pessimism applies to the reward",
        ),
    ],
)
def test_settings_that_contradict_are_refused(chosen, sentence):
    with pytest.raises(BadInput, match=sentence):
        settings(**chosen)


@pytest.mark.slow
def test_settings_and_data_that_cannot_be_learned_are_refused_with_a_sentence(tmp_path):
    job = best_of_n_job(tmp_path / "job", **SMALL, threshold="reward", min_reward=1000)
    with pytest.raises(BadInput, match="no pick of iteration 1 reaches min_reward, 1000: the highest reward is "):
        program.main(job)
    long = best_of_n_job(tmp_path / "long", **SMALL | {"max_completion_tokens": 200})
    with pytest.raises(BadInput, match="take up to 201 tokens, the model has room for 128"):
        program.main(long)
    damaged = best_of_n_job(tmp_path / "nan" / "job", **SMALL, model=str(damaged_policy(tmp_path / "damaged")))
    with pytest.raises(TrainingFailed, match="the loss is nan at step 3; the last saved state is kept"):
        program.main(damaged)
    assert MAX_LENGTH == 3 and JobDirectory(damaged).result() is None
