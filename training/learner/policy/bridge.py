"""Bridge between the samples of the reference and of the policy: J* from both, see optimality.py.

With the log-ratio ℓ = log π(y|x) − log π_ref(y|x), half of all samples come from each model, so together they are
samples of the mixture (1 − ζ)·π_ref + ζ·π with ζ = 1/2, and

    exp(J*/β) = E_ref[exp(r/β)] = E_mixture[exp(r/β) / (1 − ζ + ζ·exp(ℓ))].

Where both models write a completion, its weight is bounded by either. The function 1/(1 + exp(ℓ)) is the acceptance
function of Bennett 1976 ("Efficient estimation of free energy differences from Monte Carlo data"), the optimal bridge
of Meng & Wong 1996 ("Simulating ratios of normalizing constants via a simple identity"). Shirts & Chodera 2008 use it
for a third density that nobody has sampled; here that is π*.

The ratio of the two normalising constants is known to be 1. To use this, ζ is not 1/2 but its maximum-likelihood
estimate from the samples (Tan 2004, "On a likelihood approach for Monte Carlo integration", §3; Kong et al. 2003): then
the estimate is exact for the functions exp(r/β) = a + b·exp(ℓ), if that ζ is between 0 and 1. So it has no error for
π = π*, as with the weights of the policy's samples alone, and none for constant rewards.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

BISECTIONS = 30  # of the interval from 0 to 1
MAX_GROUPS = 128  # parts of the samples that the jackknife leaves out in turn


class Samples(NamedTuple):
    """m completions of one model for each of P prompts."""

    rewards: Tensor  # [P, m]
    log_ratios: Tensor  # [P, m], log π(y|x) − log π_ref(y|x)


class LogMeans(NamedTuple):
    """Estimates of log E_ref[exp(r/β)] and their standard errors, nats."""

    values: Tensor  # [P]
    errors: Tensor  # [P]
    groups: int  # of samples, which the errors were computed from


def bridged_log_means(reference: Samples, policy: Samples, beta: float) -> LogMeans:
    """Return log E_ref[exp(r/β)] of every prompt from as many samples of both models, [P, m] each, m ≥ 2."""
    return jackknifed(*pooled(reference, policy, beta), copies=2)


def policy_log_means(policy: Samples, beta: float) -> LogMeans:
    """Return the same from the policy's samples alone, with the importance weights exp(r/β − ℓ).

    Owen 2013, "Monte Carlo theory, methods and examples", §9.1.
    """
    scaled = policy.rewards.double() / beta - policy.log_ratios.double()
    return jackknifed(scaled, torch.zeros_like(scaled), copies=1)


def jackknifed(scaled: Tensor, log_ratios: Tensor, copies: int) -> LogMeans:
    """Return `log_mean` of every prompt, [P, copies · m] samples, with the jackknife's correction and standard error.

    The logarithm of a sample mean is too low on average. The jackknife removes that bias to the order 1/m (Quenouille
    1956; Miller 1974, "The jackknife - a review", §2). It leaves out the samples i, m + i, … at a time, one of each
    model, so it also holds for models that were sampled with the same random numbers. Of more than MAX_GROUPS samples
    it leaves out a group at a time.
    """
    count = scaled.shape[1] // copies
    groups = min(count, MAX_GROUPS)
    group = torch.arange(count) * groups // count
    kept = (group != torch.arange(groups)[:, None]).double().repeat(1, copies)
    whole = log_mean(scaled, log_ratios, torch.ones(copies * count, dtype=torch.float64))
    parts = log_mean(scaled[:, None], log_ratios[:, None], kept)
    values = groups * whole - (groups - 1) * parts.mean(1)
    variances = (groups - 1) / groups * (parts - parts.mean(1, keepdim=True)).square().sum(1)
    return LogMeans(values, variances.sqrt(), groups)


def log_mean(scaled: Tensor, log_ratios: Tensor, kept: Tensor) -> Tensor:
    """Return log Ẑ with the likeliest ζ, from rewards divided by β and log-ratios [..., n].

    kept: 1 for the samples that count, 0 for others. All arguments are broadcast.
    """
    share = likeliest_share(log_ratios, kept)
    terms = scaled + log_weights(log_ratios, share)
    return (terms + kept.log()).logsumexp(-1) - kept.sum(-1).log()


def likeliest_share(log_ratios: Tensor, kept: Tensor) -> Tensor:
    """Return ζ between 0 and 1, [..., 1], that maximises the likelihood of the samples, Σ log(1 − ζ + ζ·exp(ℓ)).

    The sum is concave in ζ, so bisection finds where its slope changes sign.
    """
    reference, policy = torch.sigmoid(-log_ratios), torch.sigmoid(log_ratios)
    difference = kept * (policy - reference)
    low = torch.zeros_like(difference.sum(-1, keepdim=True))
    high = torch.ones_like(low)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        rises = (difference / ((1 - middle) * reference + middle * policy)).sum(-1, keepdim=True) > 0
        low, high = torch.where(rises, middle, low), torch.where(rises, high, middle)
    return (low + high) / 2


def log_weights(log_ratios: Tensor, share: Tensor | float) -> Tensor:
    """Return log(1 / (1 − ζ + ζ·exp(ℓ))), without overflow for large |ℓ|."""
    mixture = (1 - share) * torch.sigmoid(-log_ratios) + share * torch.sigmoid(log_ratios)
    return logsigmoid(-log_ratios) - mixture.log()


def pooled(reference: Samples, policy: Samples, beta: float) -> tuple[Tensor, Tensor]:
    """Return r/β and ℓ of the samples of both models, [P, 2m], float64."""
    rewards = torch.cat([reference.rewards.double(), policy.rewards.double()], 1)
    return rewards / beta, torch.cat([reference.log_ratios.double(), policy.log_ratios.double()], 1)


def markov_lower_bound(reference: Samples, policy: Samples, beta: float, level: float = 0.975) -> float:
    """Return a number that is at most J* with this probability, whatever the rewards and the models are.

    With ζ = 1/2 the product of the prompts' estimates Ẑ is unbiased. It is positive, so by Markov's inequality it
    exceeds its mean by the factor 1/(1 − level) with the probability 1 − level at most (Gogate et al. 2007, "Studies in
    lower bounding probability of evidence using the Markov inequality"; Grosse et al. 2015).
    """
    scaled, log_ratios = pooled(reference, policy, beta)
    log_means = (scaled + log_weights(log_ratios, 0.5)).logsumexp(1) - math.log(scaled.shape[1])
    return beta * (float(log_means.sum()) + math.log(1 - level)) / len(scaled)
