"""Best attainable objective J* of KL-regularised reinforcement learning, estimated from samples.

J(π) = E[r] − β·KL(π‖π_ref) has its maximum at π*(y|x) ∝ π_ref(y|x)·exp(r(x, y)/β). The maximum is
J* = β·log E_ref[exp(r/β)] (Donsker & Varadhan 1975; Korbak et al. 2022, "RL with KL penalties is better viewed as
Bayesian inference", equation 5). It is estimated from samples of the reference and of the policy together (bridge.py).
All functions are pure. Rewards are [P, m]: m samples of each of P prompts.

All figures are about *these* prompts: the 95 % intervals cover the error of sampling completions, not prompts.
"""

import math
from typing import Any

import torch
from torch import Tensor

from training.learner.policy.bridge import LogMeans, Samples, bridged_log_means, markov_lower_bound, policy_log_means
from training.learner.runtime.intervals import Z_95, Interval, normal_interval

# J* is reported only if the standard errors of log E_ref[exp(r/β)] are at most this, nats: their root mean square over
# the prompts, and the largest; see `is_reliable`.
MIN_SAMPLES, MAX_ERROR, MAX_ERROR_OF_A_PROMPT = 8, 0.1, 0.3


def best_attainable(estimate: LogMeans, beta: float) -> Interval:
    """Return J*, the mean over prompts of β·log E_ref[exp(r/β)]. The interval has Student's quantile."""
    error = math.sqrt(float(estimate.errors.square().sum())) / len(estimate.errors)
    return normal_interval(beta * float(estimate.values.mean()), beta * error, student_quantile(estimate.groups - 1))


def student_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's distribution (Abramowitz & Stegun 26.7.5). freedom: its degrees."""
    z = Z_95
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


def is_reliable(bridged: LogMeans, policy_alone: LogMeans) -> bool:
    """Return whether the interval of `best_attainable` can be trusted: both estimates must have small errors.

    Both, because samples of the reference make the error small where a reward is so rare that only a policy near π*
    finds it, and samples of the policy alone where it no longer writes completions that π* writes.

    The limits were chosen in worlds whose completions can be enumerated (training/LOG.md, 2026-11-28): where this is
    true, intervals covered J* in at least 90 % of the trials. If few samples have most of the weight, the estimate can
    be too low by any amount.
    """
    return all(
        estimate.groups >= MIN_SAMPLES
        and float(estimate.errors.square().mean().sqrt()) <= MAX_ERROR
        and float(estimate.errors.max()) <= MAX_ERROR_OF_A_PROMPT
        for estimate in (bridged, policy_alone)
    )


def effective_samples(objectives: Tensor, beta: float) -> Tensor:
    """Return (Σw)² / Σw² with w = exp(o/β), [P]: between 1 and m per prompt (Kish 1965; Owen 2013, §9.3).

    objectives: o = r − β·log(π/π_ref) of m samples of a policy π, [P, m]. At π = π* all are equal.
    """
    scaled = objectives.double() / beta
    return (2 * scaled.logsumexp(1) - (2 * scaled).logsumexp(1)).exp()


def mean_within_prompts(values: Tensor) -> Interval:
    """Return the mean of [P, m], m ≥ 2, with the error of sampling within prompts (Cochran 1977, §5.4)."""
    variance = values.double().var(1) / values.shape[1]
    return normal_interval(float(values.double().mean()), math.sqrt(float(variance.sum())) / len(values))


def best_of_n_reward(rewards: Tensor, n: int) -> float:
    """Return E[max of n samples], the mean over prompts: Σ_i r_(i)·C(i − 1, n − 1) / C(m, n), unbiased for n ≤ m.

    It is the mean over all subsets of size n (Nakano et al. 2021, "WebGPT", appendix; as pass@k in Chen et al. 2021,
    §2.1).
    """
    count = rewards.shape[1]
    shares = [math.comb(i - 1, n - 1) / math.comb(count, n) for i in range(1, count + 1)]
    return float((rewards.double().sort(1).values * torch.tensor(shares, dtype=torch.float64)).sum(1).mean())


def best_of_n_kl(n: int) -> float:
    """Return log n − (n − 1)/n nats, an upper bound of KL(best of n ‖ reference) (Stiennon et al. 2020, appendix G.3).

    It is exact for continuous rewards without ties (Beirami et al. 2024, theorem 1).
    """
    return math.log(n) - (n - 1) / n


def best_of_n_curve(rewards: Tensor, beta: float) -> list[dict[str, float]]:
    """Return the reward, the KL bound, and the objective with that bound (a lower bound), for n = 1, 2, 4, … ≤ m."""
    points = []
    for n in (2**power for power in range(rewards.shape[1].bit_length())):
        reward, kl = best_of_n_reward(rewards, n), best_of_n_kl(n)
        points.append({"n": n, "reward": reward, "kl_bound": kl, "objective": reward - beta * kl})
    return points


def report(reference: Samples, policy: Samples, beta: float) -> dict[str, Any]:
    """Return figures for result.json from samples of the reference and of the policy.

    - `objective`: J of the policy, with `_low` and `_high`.
    - `objective_reference`: J of the reference, its mean reward.
    - `best_objective`: J*, and `attained_fraction`: (J − J_ref) / (J* − J_ref); each with `_low` and `_high`; null if
      the estimate is not reliable.
    - `best_objective_at_least`: a lower bound of J*, the highest of J, J of the reference and `markov_lower_bound`.
    - `effective_samples`: mean of the policy's effective samples among `optimum_samples` per prompt.
    - `best_of_n`: the curve of `best_of_n_curve` for the reference.
    """
    objectives = policy.rewards.double() - beta * policy.log_ratios.double()
    of_policy, of_reference = mean_within_prompts(objectives), mean_within_prompts(reference.rewards)
    bridged = bridged_log_means(reference, policy, beta)
    best = best_attainable(bridged, beta) if is_reliable(bridged, policy_log_means(policy, beta)) else None
    return {
        **with_bounds("objective", of_policy),
        "objective_reference": of_reference.value,
        **with_bounds("best_objective", best),
        "best_objective_at_least": max(of_policy.low, of_reference.low, markov_lower_bound(reference, policy, beta)),
        **with_bounds("attained_fraction", attained_fraction(of_reference, of_policy, best)),
        "effective_samples": float(effective_samples(objectives, beta).mean()),
        "optimum_samples": reference.rewards.shape[1],
        "optimum_prompts": len(reference.rewards),
        "best_of_n": best_of_n_curve(reference.rewards, beta),
    }


def attained_fraction(of_reference: Interval, of_policy: Interval, best: Interval | None) -> Interval | None:
    """Return (J − J_ref) / (J* − J_ref), at most 1; the bounds combine the bounds of all three. None if J* is unknown.

    J* is at least J, so a fraction above 1 is sampling error.
    """
    if best is None or best.low <= of_reference.high:
        return None
    value = (of_policy.value - of_reference.value) / (best.value - of_reference.value)
    low = (of_policy.low - of_reference.high) / (best.high - of_reference.high)
    high = (of_policy.high - of_reference.low) / (best.low - of_reference.low)
    return Interval(min(value, 1.0), min(low, 1.0), min(high, 1.0))


def with_bounds(name: str, interval: Interval | None) -> dict[str, float | None]:
    """Return the interval as the keys `name`, `name_low` and `name_high`; null for None."""
    value, low, high = interval or (None, None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}
