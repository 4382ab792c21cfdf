"""The best attainable objective: estimates against exact values, in a world that can be enumerated."""

import itertools
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy
import torch
from scipy.special import logsumexp

from tests.learner.worlds.letters import MAX_LENGTH, completions, log_probs, policy_folder, ppo_job, reward_of
from training.learner import ppo
from training.learner.models.loading import load_policy
from training.learner.policy.bridge import LogMeans, Samples, bridged_log_means
from training.learner.policy.optimality import (
    best_attainable,
    best_of_n_curve,
    best_of_n_kl,
    best_of_n_reward,
    effective_samples,
    is_reliable,
    mean_within_prompts,
    report,
    student_quantile,
)
from training.learner.runtime.config import PpoConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory
from training.learner.sampling.sampler import SamplingParams, sample

pytestmark = pytest.mark.slow

BETA = 0.5


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Rewards of samples that the sampler drew from the policy, and the exact distribution they came from."""
    policy, _ = load_policy(str(policy_folder(tmp_path_factory.mktemp("world") / "policy")))
    params = SamplingParams(MAX_LENGTH, frozenset([0]))
    written = sample(policy, [[1]] * 40_000, range(40_000), params, batch=10_000)
    drawn = torch.tensor([[reward_of(completion.tokens) for completion in written]])
    values = torch.tensor([reward_of(completion) for completion in completions()], dtype=torch.float64)
    return drawn, log_probs(policy, [1]), values


def best_from_the_reference(rewards):
    """J* from samples of the reference alone, [P, 2m]: the second half counts as those of an unchanged policy."""
    halves = [Samples(part, torch.zeros_like(part)) for part in rewards.double().chunk(2, 1)]
    return best_attainable(bridged_log_means(*halves, BETA), BETA)


def test_the_interval_over_sampled_completions_contains_the_exact_value(world):
    drawn, reference, values = world
    drawn = drawn[:, :8000]
    exact = BETA * float((reference + values / BETA).logsumexp(0))
    weights, mean = (values / BETA).exp(), math.exp(exact / BETA)
    error = BETA * math.sqrt(float((reference.exp() * (weights - mean).square()).sum()) / drawn.shape[1]) / mean
    estimate = best_from_the_reference(drawn)
    assert estimate.low < exact < estimate.high
    assert estimate.high - estimate.value == pytest.approx(1.96 * error, rel=0.2)  # 128 groups: 6 % standard error


def test_from_few_samples_the_jackknife_takes_the_bias_away(world):
    drawn, reference, values = world
    exact = BETA * float((reference + values / BETA).logsumexp(0))
    few = drawn.view(-1, 16)  # as if 2500 prompts with 16 samples each
    plain = float(BETA * ((few.double() / BETA).logsumexp(1) - math.log(16)).mean())
    estimate = best_from_the_reference(few)
    assert plain < exact - 0.03 and abs(estimate.value - exact) < 0.4 * abs(plain - exact)


def test_a_reward_far_above_the_others_gives_no_infinity():
    estimate = best_from_the_reference(torch.tensor([[1e4, 0.0, 0.0, 0.0]]))
    assert all(map(math.isfinite, estimate))


def test_intervals_contain_the_truth_nineteen_times_in_twenty(world):
    drawn, reference, values = world
    exact = BETA * float((reference + values / BETA).logsumexp(0))
    mean = float((reference.exp() * values).sum())
    batches = [part[None] for part in drawn[0].split(400)]
    held = [estimate.low < exact < estimate.high for estimate in map(best_from_the_reference, batches)]
    assert 0.85 <= sum(held) / len(held) <= 1.0
    held = [estimate.low < mean < estimate.high for estimate in map(mean_within_prompts, batches)]
    assert 0.88 <= sum(held) / len(held) <= 1.0


def test_best_of_n_is_the_mean_over_all_subsets():
    rewards = torch.tensor([[0.3, -1.0, 2.0, 0.5, 0.5, 7.0]])
    for n in range(1, 7):
        subsets = list(itertools.combinations(rewards[0].tolist(), n))
        assert best_of_n_reward(rewards, n) == pytest.approx(sum(map(max, subsets)) / len(subsets))


def test_the_bound_of_best_of_n_holds_for_its_exact_distribution(world):
    _, reference, values = world
    order = values.argsort()
    probabilities = reference.exp()[order]
    reached = probabilities.cumsum(0)
    for n in (1, 2, 4, 16):
        best = reached**n - (reached - probabilities).clamp_min(0) ** n
        kl = float((best * (best / probabilities).log()).nan_to_num().sum())
        assert kl <= best_of_n_kl(n) + 1e-9
    assert best_of_n_kl(1) == 0.0 and best_of_n_kl(4) == pytest.approx(0.6362943611)


def test_the_curve_never_passes_the_best_attainable(world):
    drawn, reference, values = world
    exact = BETA * float((reference + values / BETA).logsumexp(0))
    curve = best_of_n_curve(drawn.view(-1, 20), BETA)
    assert [point["n"] for point in curve] == [1, 2, 4, 8, 16]
    assert all(point["objective"] < exact for point in curve)
    assert curve[0]["reward"] < curve[1]["reward"] < curve[4]["reward"]


def test_effective_samples_are_all_for_equal_rewards_and_one_for_a_lone_high_one():
    assert effective_samples(torch.zeros(2, 8), BETA).tolist() == pytest.approx([8, 8])
    assert effective_samples(torch.tensor([[50.0, *[0.0] * 7]]), BETA).item() == pytest.approx(1)
    assert effective_samples(torch.tensor([[0.0, 0.5 * math.log(3)]]), 0.5).item() == pytest.approx(16 / 10)  # w = 1, 3


@pytest.mark.parametrize("freedom", [9, 15, 31, 127])
def test_students_quantile_is_scipys(freedom):
    assert student_quantile(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=3e-3)


PROMPTS, COMPLETIONS, SAMPLES = 16, 20_000, 16


def enumerated(chance: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The reference's log-probabilities and the rewards of all completions, [PROMPTS, COMPLETIONS]."""
    logits = chance.normal(scale=2.0, size=(PROMPTS, COMPLETIONS))
    rewards = chance.normal(size=logits.shape)
    if kind == "rare":  # one completion in a thousand is far better than the others
        rewards = 0.3 * rewards + 3.0 * (chance.random(logits.shape) < 1e-3)
    return logits - logsumexp(logits, axis=1, keepdims=True), rewards


def sampler(chance: np.random.Generator, log_probs: np.ndarray) -> Callable[[], np.ndarray]:
    """Return a function that draws SAMPLES completions a prompt; it sums up the probabilities only once."""
    cumulated = np.exp(log_probs).cumsum(1)

    def draw() -> np.ndarray:
        places = chance.random((PROMPTS, SAMPLES)) * cumulated[:, -1:]
        return np.array([np.searchsorted(*each) for each in zip(cumulated, places, strict=True)])

    return draw


def drawn_report(policy_samples, reference_samples, reference, rewards, policy, beta: float) -> dict:
    """The report on these samples of the policy and of the reference, whose log-probabilities are given."""
    rows = np.arange(PROMPTS)[:, None]

    def scored(samples) -> Samples:
        return Samples(torch.tensor(rewards[rows, samples]), torch.tensor((policy - reference)[rows, samples]))

    return report(scored(reference_samples), scored(policy_samples), beta)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normal", "rare"])
@pytest.mark.parametrize("beta", [0.05, *(pytest.param(beta, marks=pytest.mark.full) for beta in (0.1, 0.2)), 0.5])
@pytest.mark.parametrize(
    ("way", "noise"),
    [
        (0.0, 0.0),
        pytest.param(0.3, 0.0, marks=pytest.mark.full),
        (0.5, 0.0),
        pytest.param(0.8, 0.0, marks=pytest.mark.full),
        (1.0, 0.3),
    ],
)
def test_the_estimate_of_the_best_attainable_is_right_in_enumerated_worlds(kind, beta, way, noise):
    """Policies from the reference (way 0) to near π* (way 1), some of them disturbed."""
    chance = np.random.default_rng(0)
    known, held, shares, bounds = [], [], [], []
    for _ in range(2):
        reference, rewards = enumerated(chance, kind)
        tilted = reference + rewards / beta
        best = float(beta * logsumexp(tilted, axis=1).mean())
        logits = reference + way * rewards / beta + chance.normal(scale=noise, size=rewards.shape)
        policy = logits - logsumexp(logits, axis=1, keepdims=True)
        mean = float((np.exp(reference) * rewards).sum(1).mean())
        reached = float((np.exp(policy) * (rewards - beta * (policy - reference))).sum(1).mean())
        draw_policy, draw_reference = sampler(chance, policy), sampler(chance, reference)
        for _ in range(25):
            figures = drawn_report(draw_policy(), draw_reference(), reference, rewards, policy, beta)
            bounds.append(figures["best_objective_at_least"] <= best)
            assert (figures["best_objective"] is None) == (figures["best_objective_low"] is None)
            known.append(figures["best_objective"] is not None)
            held.append(not known[-1] or figures["best_objective_low"] <= best <= figures["best_objective_high"])
            if figures["attained_fraction"] is not None:
                assert figures["attained_fraction"] <= 1
                share = (reached - mean) / (best - mean)
                shares.append(figures["attained_fraction_low"] <= share <= figures["attained_fraction_high"])
    assert sum(bounds) >= 0.95 * len(bounds)
    assert sum(held) >= 0.9 * len(held)
    assert len(shares) - sum(shares) <= 0.1 * len(held)
    if way == 1.0:  # near the best, it is known in nearly every draw
        assert sum(known) >= 45


def test_with_a_low_kl_coefficient_samples_of_the_reference_give_no_estimate_of_the_optimum():
    """16 samples of 20,000 completions: the old estimate was 1.4 below J*, and its interval never held it."""
    chance = np.random.default_rng(1)
    reference, rewards = enumerated(chance, "normal")
    draw = sampler(chance, reference)
    figures = drawn_report(draw(), draw(), reference, rewards, reference, 0.05)
    assert figures["best_objective"] is None and figures["attained_fraction"] is None
    best, start = (
        0.05 * logsumexp(reference + rewards / 0.05, axis=1).mean(),
        (np.exp(reference) * rewards).sum(1).mean(),
    )
    assert 0.4 < (figures["best_objective_at_least"] - start) / (best - start) < 1


def test_near_the_best_policy_samples_of_both_models_give_an_estimate():
    """The policy's samples alone were even enough in 61 % of such draws."""
    chance = np.random.default_rng(2)
    reference, rewards = enumerated(chance, "normal")
    logits = reference + 0.9 * rewards / BETA + chance.normal(scale=0.3, size=rewards.shape)
    policy = logits - logsumexp(logits, axis=1, keepdims=True)
    draw_policy, draw_reference = sampler(chance, policy), sampler(chance, reference)
    reports = [drawn_report(draw_policy(), draw_reference(), reference, rewards, policy, BETA) for _ in range(40)]
    known = [figures for figures in reports if figures["best_objective"] is not None]
    best = BETA * logsumexp(reference + rewards / BETA, axis=1).mean()
    held = [figures["best_objective_low"] <= best <= figures["best_objective_high"] for figures in known]
    assert len(known) >= 36 and sum(held) >= 0.9 * len(held)


def test_few_samples_and_large_errors_give_no_estimate():
    def reliable(errors, groups):
        both = [LogMeans(torch.zeros(4), torch.tensor(each), groups) for each in (errors, [0.0] * 4)]
        assert is_reliable(*both) == is_reliable(*reversed(both))
        return is_reliable(*both)

    assert reliable([0.09] * 4, 8) and not reliable([0.09] * 4, 7)
    assert not reliable([0.11] * 4, 8)
    assert reliable([0.0, 0.0, 0.0, 0.19], 8) and not reliable([0.0, 0.0, 0.0, 0.21], 8)
    large = LogMeans(torch.zeros(16), torch.tensor([0.31] + [0.0] * 15), 8)
    assert not is_reliable(large, large)


@pytest.mark.full
def test_ppo_reports_its_distance_to_the_optimum(tmp_path):
    job = ppo_job(tmp_path / "job", ["a", "b"], steps=2, batch_episodes=64, kl_coefficient=BETA, optimum_samples=512,
                  eval_prompts=2, learning_rate=0.003)  # fmt: skip
    ppo.main(job)
    result, lines = JobDirectory(job).result(), JobDirectory(job).metrics()
    policy, reference = (load_policy(str(folder))[0] for folder in (job / "model", tmp_path / "policy"))
    values = torch.tensor([reward_of(completion) for completion in completions()], dtype=torch.float64)
    exact = {"objective": 0.0, "best_objective": 0.0, "objective_reference": 0.0}
    for prompt in ([1], [2]):
        start, now = log_probs(reference, prompt), log_probs(policy, prompt)
        exact["objective"] += float((now.exp() * (values - BETA * (now - start))).sum()) / 2
        exact["best_objective"] += BETA * float((start + values / BETA).logsumexp(0)) / 2
        exact["objective_reference"] += float((start.exp() * values).sum()) / 2
    width = result["objective_high"] - result["objective"]
    assert 0 < width < 0.5 and abs(result["objective"] - exact["objective"]) < 2 * width  # one in 10,000 misses
    assert result["best_objective_at_least"] <= exact["best_objective"]
    assert result["objective_reference"] == pytest.approx(exact["objective_reference"], abs=0.15)
    assert not any("best_objective" in line for line in lines)
    assert (result["optimum_prompts"], result["optimum_samples"]) == (2, 512)
    assert 1 < result["effective_samples"] < 512 and result["best_of_n"][-1]["n"] == 512
    json.dumps(result, allow_nan=False)


def test_without_a_kl_penalty_no_best_attainable_objective_is_reported(tmp_path):
    job = ppo_job(tmp_path / "job", steps=1, batch_episodes=8, kl_coefficient=0.0, optimum_samples=4, eval_prompts=1)
    ppo.main(job)
    assert "best_objective" not in JobDirectory(job).result()
    with pytest.raises(BadInput, match="optimum_samples must be 2 or more"):
        PpoConfig(model="m", rewards=[{"name": "missing_eos"}], optimum_samples=1)
