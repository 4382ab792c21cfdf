"""Figures of a round from its exported samples, in plain Python: KL, reward, objective and the best attainable one."""

import math
from statistics import fmean, stdev, variance

from scipy.stats import norm, t

Z = norm.ppf(0.975)


def with_interval(name, values):
    """Return the mean of independent values, and from 30 values on its interval and standard error."""
    figures = {name: fmean(values)}
    if len(values) >= 30:
        error = stdev(values) / math.sqrt(len(values))
        figures |= {f"{name}_low": figures[name] - Z * error, f"{name}_high": figures[name] + Z * error}
        figures |= {f"{name}_error": error}
    return figures


def by_prompt(lines, value):
    """Return the values of each prompt's completions, in the order of the file."""
    groups = {}
    for line in lines:
        groups.setdefault(line["prompt_id"], []).append(value(line))
    return list(groups.values())


def log_ratio(line):
    return line["log_prob"] - line["reference_log_prob"]


def chosen(lines, purpose, model="policy"):
    return [line for line in lines if (line["purpose"], line["model"]) == (purpose, model)]


def divergence(lines, name):
    """Return the KL of a checkpoint from its base or its root: the mean over prompts of the means over completions."""
    groups = by_prompt(chosen(lines, "guards"), lambda line: line[name])
    return with_interval(name, [fmean(values) for values in groups])


def evaluation(lines):
    """Return reward and KL on the evaluation prompts, and the gain over the reference, prompt by prompt."""
    policy, reference = (chosen(lines, "evaluation", model) for model in ("policy", "reference"))
    assert [line["prompt_id"] for line in policy] == [line["prompt_id"] for line in reference]
    gains = [after["reward"] - before["reward"] for after, before in zip(policy, reference, strict=True)]
    return {
        "reward": fmean(line["reward"] for line in policy),
        "kl": fmean(map(log_ratio, policy)),
        "reward_reference": fmean(line["reward"] for line in reference),
        **with_interval("reward_gain", gains),
    }


def objective(lines, beta):
    """Return J = E[r] − β·KL, with the interval of sampling within prompts."""
    groups = by_prompt(chosen(lines, "objective"), lambda line: line["reward"] - beta * log_ratio(line))
    error = math.sqrt(sum(variance(values) / len(values) for values in groups)) / len(groups)
    value = fmean(map(fmean, groups))
    return {"objective": value, "objective_low": value - Z * error, "objective_high": value + Z * error}


def best_objective(lines, beta):
    """Return J* = β·log E_ref[exp(r/β)], the mean over prompts, by the bridge of both models' samples.

    Half of the samples are of each model. Of the densities (1 − ζ)·π_ref + ζ·π the likeliest is taken (Tan 2004). The
    jackknife leaves out one sample of each model at a time (Miller 1974, §2).
    """
    pairs = [
        by_prompt(chosen(lines, "objective", model), lambda line: (line["reward"], log_ratio(line)))
        for model in ("reference", "policy")
    ]
    values, variances = [], []
    for of_reference, of_policy in zip(*pairs, strict=True):
        count = len(of_reference)
        whole = log_mean([*of_reference, *of_policy], beta)
        parts = [
            log_mean([*of_reference[:i], *of_reference[i + 1 :], *of_policy[:i], *of_policy[i + 1 :]], beta)
            for i in range(count)
        ]
        values.append(count * whole - (count - 1) * fmean(parts))
        variances.append((count - 1) / count * sum((part - fmean(parts)) ** 2 for part in parts))
    value, error = beta * fmean(values), beta * math.sqrt(sum(variances)) / len(values)
    half = t.ppf(0.975, count - 1) * error
    return {"best_objective": value, "best_objective_low": value - half, "best_objective_high": value + half}


def log_mean(samples, beta):
    """Return log E_ref[exp(r/β)] from samples (reward, log-ratio) of both models."""

    def likelihood(share):
        return sum(math.log(1 - share + share * math.exp(ratio)) for _reward, ratio in samples)

    low, high = 0.0, 1.0
    for _ in range(80):  # ternary search of a concave function
        third = (high - low) / 3
        low, high = (low + third, high) if likelihood(low + third) < likelihood(high - third) else (low, high - third)
    share = (low + high) / 2
    weights = [math.exp(reward / beta) / (1 - share + share * math.exp(ratio)) for reward, ratio in samples]
    return math.log(fmean(weights))
