"""KL divergence of a policy from another model, estimated on the policy's own samples.

KL(π‖q) = E_π[log π(y|x) − log q(y|x)] is the mean of the k1 estimator (Schulman 2020, "Approximating KL Divergence"),
which training uses. Figures of a round or an evaluation use its Rao–Blackwellised form (Amini, Vieira and Cotterell
2025, "Better Estimation of the Kullback–Leibler Divergence Between Language Models", §3): the log-ratio of each sampled
token is replaced by its expectation given the tokens before it, the exact KL of the two distributions of the next
token. It is unbiased too, never negative, and its variance is at most that of k1.

A round reports KL from its base, and from its root, the imported model: after several rounds only the second shows how
far the policy has moved in all.
"""

from collections.abc import Sequence
from itertools import groupby
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from training.learner.models.generic_forward import shares_prompts
from training.learner.models.loading import computing_in
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packing import Episodes, by_episode, within_budget
from training.learner.models.token_outputs import score_tokens, token_divergences
from training.learner.policy.evaluation import EVALUATION_NUMBERS
from training.learner.runtime.intervals import mean_with_interval
from training.learner.runtime.processes import Processes
from training.learner.sampling.sampler import SamplingParams, sample
from training.learner.text.messages import share


@torch.no_grad()
def log_probs_of(
    model: Any, episodes: Episodes, temperature: float, dtype: str, micro_batches: MicroBatches
) -> list[Tensor]:
    """Return the log-probs of the completion tokens under softmax(logits / temperature): one tensor per episode."""

    def score(part: Episodes) -> tuple[Tensor, Tensor]:
        with computing_in(dtype):
            return score_tokens(model, part, temperature)

    def pass_over(budget: int) -> list[Tensor]:
        parts = within_budget(episodes, budget, shares_prompts(model))
        log_probs, _ = by_episode(score, episodes, parts)
        return log_probs

    return micro_batches.attempt(episodes.lengths(), pass_over) if episodes.prompts else []


@torch.no_grad()
def divergences_of(
    policy: Any, other: Any, episodes: Episodes, temperature: float, dtype: str, micro_batches: MicroBatches
) -> list[float]:
    """Return the Rao–Blackwellised estimate of KL(policy‖other) from each episode of the policy, in nats.

    It is the sum of the exact KL of the next token's distributions, softmax(logits / temperature), over the policy's
    tokens of all turns.
    """

    def compare(part: Episodes) -> tuple[Tensor]:
        with computing_in(dtype):
            return (token_divergences(policy, other, part, temperature),)

    def pass_over(budget: int) -> list[Tensor]:
        parts = within_budget(episodes, budget, shares_prompts(policy) and shares_prompts(other))
        (divergences,) = by_episode(compare, episodes, parts)
        return divergences

    if not episodes.prompts:
        return []
    return [float(tokens.double().sum()) for tokens in micro_batches.attempt(episodes.lengths(), pass_over)]


@torch.no_grad()
def sampled_log_ratios(
    policy: Any,
    reference: Any,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    dtype: str,
    processes: Processes,
    micro_batches: MicroBatches,
    rows: MicroBatches,
) -> list[float]:
    """Return log π(y|x) − log π_ref(y|x) of one completion per prompt, sampled from the policy, in nats.

    The random numbers are the same at every call. rows: completions decoded together. Every process does its share.
    """
    mine = list(share(range(len(prompts)), processes.rank, processes.count))
    my_prompts, numbers = [prompts[i] for i in mine], [EVALUATION_NUMBERS + i for i in mine]
    with computing_in(dtype):
        sampled = rows.attempt([1] * len(mine), lambda size: sample(policy, my_prompts, numbers, params, batch=size))
    episodes = Episodes(my_prompts, [completion.tokens for completion in sampled])
    both = [log_probs_of(model, episodes, params.temperature, dtype, micro_batches) for model in (policy, reference)]
    return processes.gather([float((ours - theirs).double().sum()) for ours, theirs in zip(*both, strict=True)])


def mean_divergence(name: str, prompts: Sequence[int], divergences: Sequence[float]) -> dict[str, float]:
    """Return the mean divergence as `name`, in nats per completion, with its interval and error from 30 prompts on.

    prompts: [N], the prompt of each completion; completions of one prompt follow each other. divergences: [N]. The
    interval treats a prompt's completions as one cluster (Cochran 1977, §9A): they share the properties of the prompt.
    """
    clusters = groupby(zip(prompts, divergences, strict=True), lambda row: row[0])
    return mean_with_interval(name, [fmean(value for _, value in rows) for _, rows in clusters])
