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


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def estimate(value: float, error: float) -> Estimate:
    """An estimate of this standard error."""
    return Estimate(value, value - NORMAL_QUANTILE * error, value + NORMAL_QUANTILE * error)


def best_attainable(rewards: Tensor, beta: float) -> Estimate:
    """J*, the mean over prompts of β·log mean exp(r/β), from reference samples [P, m], m ≥ 2; beta above 0.

    The logarithm of a mean is too low on average; the jackknife takes away that bias to the order 1/m (Quenouille
    1956; Miller 1974, «The jackknife — a review», §2). The interval is the delta method's (Owen 2013, «Monte Carlo
    theory, methods and examples», §2.8): the variance of log w̄ is var(w) / (m·w̄²).
    """
    count = rewards.shape[1]
    weights, offset = scaled_weights(rewards, beta)
    mean = weights.mean(1, keepdim=True)
    plain = beta * mean.log()[:, 0]
    jackknifed = count * plain - (count - 1) * beta * (without_each(weights) / (count - 1)).log().mean(1)
    variance = beta**2 * weights.var(1) / (count * mean[:, 0].square())
    return estimate(float((jackknifed + offset).mean()), math.sqrt(float(variance.sum())) / len(rewards))


def scaled_weights(rewards: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """w = exp((r − offset)/β) [P, m] in descending order, float64, and each prompt's offset [P], its highest reward."""
    ordered = rewards.double().sort(1, descending=True).values
    return ((ordered - ordered[:, :1]) / beta).exp(), ordered[:, 0]


def without_each(weights: Tensor) -> Tensor:
    """[P, m]: the sum of the others, of weights in descending order; never 0 by cancellation."""
    rest = weights.sum(1, keepdim=True) - weights
    rest[:, 0] = weights[:, 1:].sum(1)
    return rest.clamp_min(torch.finfo(torch.float64).tiny)


def effective_samples(rewards: Tensor, beta: float) -> float:
    """(Σw)² / Σw² with w = exp(r/β), the mean over prompts: between 1 and m (Kish 1965; Owen 2013, §9.3).

    Near 1, a single sample carries the estimate of J*: it is then too low, and its interval too narrow.
    """
    weights, _ = scaled_weights(rewards, beta)
    return float((weights.sum(1).square() / weights.square().sum(1)).mean())


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
    `best_objective`: J*, with `_low` and `_high`; `attained_fraction`: of the way from the one to the other, null where
    there is none; `effective_samples` of the `optimum_samples` a prompt; `best_of_n`: the curve.
    """
    reached, best = mean_within_prompts(rewards - beta * divergences), best_attainable(reference, beta)
    start = float(reference.double().mean())
    room = best.value - start
    return {
        **named("objective", reached),
        "objective_reference": start,
        **named("best_objective", best),
        "attained_fraction": (reached.value - start) / room if room > 0 else None,
        "effective_samples": effective_samples(reference, beta),
        "optimum_samples": reference.shape[1],
        "optimum_prompts": len(reference),
        "best_of_n": best_of_n_curve(reference, beta),
    }


def named(name: str, found: Estimate) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
