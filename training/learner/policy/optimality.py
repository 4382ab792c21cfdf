"""How close to the best possible: KL-regularised reinforcement learning has an exact answer, and samples estimate it.

J(π) = E[r] − β·KL(π‖π_ref) is highest at π*(y|x) ∝ π_ref(y|x)·exp(r(x, y)/β), where it is
J* = β·log E_ref[exp(r/β)] (Donsker & Varadhan 1975; Korbak et al. 2022, «RL with KL penalties is better viewed as
Bayesian inference», equation 5). All functions are pure; rewards are [P, m]: m samples of each of P prompts.

Everything is told of *these* prompts: intervals (95 %, normal) say what other samples of them could have shown.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

NORMAL_QUANTILE = 1.959964  # of 97.5 %
# J* is told only where the weights are this even, as shares of a prompt's samples: see `is_known`.
LEAST_SAMPLES, LEAST_MEAN_SHARE, LEAST_SHARE = 8, 0.9, 0.5


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def estimate(value: float, error: float) -> Estimate:
    """An estimate of this standard error."""
    return Estimate(value, value - NORMAL_QUANTILE * error, value + NORMAL_QUANTILE * error)


def best_attainable(objectives: Tensor, beta: float) -> Estimate:
    """J*, the mean over prompts of β·log mean exp(o/β), from samples [P, m] of any policy π, m ≥ 2; beta above 0.

    o = r − β·log(π/π_ref) of each sample, so that exp(o/β) = exp(r/β)·π_ref/π: importance weights turn samples of π
    into the expectation over the reference (Owen 2013, "Monte Carlo theory, methods and examples", §9.1). Of the
    reference itself, o = r. At π = π* all weights are equal and the estimate has no error.

    The logarithm of a mean is too low on average; the jackknife takes away that bias to the order 1/m (Quenouille
    1956; Miller 1974, "The jackknife - a review", §2). The interval is the jackknife's own, with Student's quantile.
    """
    count = objectives.shape[1]
    weights, offset = scaled_weights(objectives, beta)
    plain = beta * weights.mean(1).log()
    parts = beta * (without_each(weights) / (count - 1)).log()
    jackknifed = count * plain - (count - 1) * parts.mean(1)
    variance = (count - 1) / count * (parts - parts.mean(1, keepdim=True)).square().sum(1)
    value, error = float((jackknifed + offset).mean()), math.sqrt(float(variance.sum())) / len(objectives)
    half = student_quantile(count - 1) * error
    return Estimate(value, value - half, value + half)


def student_quantile(freedom: int) -> float:
    """The 97.5 % point of Student's distribution with so many degrees of freedom (Abramowitz & Stegun 26.7.5)."""
    z = NORMAL_QUANTILE
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


def is_known(objectives: Tensor, beta: float) -> bool:
    """Whether the interval of `best_attainable` can be trusted: the weights must be even, of every prompt.

    Chosen in enumerated worlds (training/LOG.md, 2026-11-27): intervals held J* in at least 90 % of draws wherever this
    is true. Where few samples carry the estimate it is too low, by any amount.
    """
    count = objectives.shape[1]
    samples = effective_samples(objectives, beta)
    is_even = float(samples.mean()) >= LEAST_MEAN_SHARE * count and float(samples.min()) >= LEAST_SHARE * count
    return count >= LEAST_SAMPLES and is_even


def scaled_weights(rewards: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """w = exp((r − offset)/β) [P, m] in descending order, float64, and each prompt's offset [P], its highest reward."""
    ordered = rewards.double().sort(1, descending=True).values
    return ((ordered - ordered[:, :1]) / beta).exp(), ordered[:, 0]


def without_each(weights: Tensor) -> Tensor:
    """[P, m]: the sum of the others, of weights in descending order; never 0 by cancellation."""
    rest = weights.sum(1, keepdim=True) - weights
    rest[:, 0] = weights[:, 1:].sum(1)
    return rest.clamp_min(torch.finfo(torch.float64).tiny)


def effective_samples(objectives: Tensor, beta: float) -> Tensor:
    """(Σw)² / Σw² with w = exp(o/β), [P]: between 1 and m of each prompt (Kish 1965; Owen 2013, §9.3)."""
    weights, _ = scaled_weights(objectives, beta)
    return weights.sum(1).square() / weights.square().sum(1)


def mean_within_prompts(values: Tensor) -> Estimate:
    """The mean of [P, m], m ≥ 2, with the error that sampling within prompts leaves (Cochran 1977, §5.4)."""
    variance = values.double().var(1) / values.shape[1]
    return estimate(float(values.double().mean()), math.sqrt(float(variance.sum())) / len(values))


def best_of_n_reward(rewards: Tensor, n: int) -> float:
    """E[max of n samples], the mean over prompts: Σ_i r_(i)·C(i − 1, n − 1) / C(m, n), unbiased for 1 ≤ n ≤ m.

    The mean over all subsets of n (Nakano et al. 2021, «WebGPT», appendix; as pass@k in Chen et al. 2021, §2.1).
    """
    count = rewards.shape[1]
    shares = [math.comb(i - 1, n - 1) / math.comb(count, n) for i in range(1, count + 1)]
    return float((rewards.double().sort(1).values * torch.tensor(shares, dtype=torch.float64)).sum(1).mean())


def best_of_n_kl(n: int) -> float:
    """log n − (n − 1)/n nats, at least the KL of best-of-n to the reference (Stiennon et al. 2020, appendix G.3).

    It is exact for rewards without ties in a continuum, else an upper bound (Beirami et al. 2024, theorem 1).
    """
    return math.log(n) - (n - 1) / n


def best_of_n_curve(rewards: Tensor, beta: float) -> list[dict[str, float]]:
    """For n = 1, 2, 4, … ≤ m: its reward, the bound of its KL, and the objective that it attains at least."""
    points = []
    for n in (2**power for power in range(rewards.shape[1].bit_length())):
        reward, kl = best_of_n_reward(rewards, n), best_of_n_kl(n)
        points.append({"n": n, "reward": reward, "kl_bound": kl, "objective": reward - beta * kl})
    return points


def report(reference: Tensor, rewards: Tensor, divergences: Tensor, beta: float) -> dict[str, Any]:
    """What result.json says: of reference samples' rewards, and the policy's rewards and log-ratios, all [P, m].

    `objective`: J of the policy, with `_low` and `_high`; `objective_reference`: J of the reference, its mean reward;
    `best_objective`: J*, and `attained_fraction`: of the way from the reference to it, each with `_low` and `_high`,
    null where they are not known; `best_objective_at_least`: what J* is at least, since no policy has more;
    `effective_samples` of the policy's `optimum_samples` a prompt; `best_of_n`: the curve.
    """
    objectives = rewards.double() - beta * divergences.double()
    reached, start = mean_within_prompts(objectives), mean_within_prompts(reference)
    best = best_attainable(objectives, beta) if is_known(objectives, beta) else None
    return {
        **named("objective", reached),
        "objective_reference": start.value,
        **named("best_objective", best),
        "best_objective_at_least": max(reached.low, start.low),
        **named("attained_fraction", attained_fraction(start, reached, best)),
        "effective_samples": float(effective_samples(objectives, beta).mean()),
        "optimum_samples": reference.shape[1],
        "optimum_prompts": len(reference),
        "best_of_n": best_of_n_curve(reference, beta),
    }


def attained_fraction(start: Estimate, reached: Estimate, best: Estimate | None) -> Estimate | None:
    """(J − J_ref) / (J* − J_ref), at most 1, with bounds at the ends of all three intervals; None: not known.

    J* is at least J, so a share above 1 can only be the samples' error.
    """
    if best is None or best.low <= start.high:
        return None
    value = (reached.value - start.value) / (best.value - start.value)
    low = (reached.low - start.high) / (best.high - start.high)
    high = (reached.high - start.low) / (best.low - start.low)
    return Estimate(min(value, 1.0), min(low, 1.0), min(high, 1.0))


def named(name: str, found: Estimate | None) -> dict[str, float | None]:
    if found is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
