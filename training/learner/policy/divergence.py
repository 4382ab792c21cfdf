"""KL divergence of a policy from another model, estimated on the policy's own samples.

KL(π‖π_ref) = E_π[log π(y|x) − log π_ref(y|x)] is the mean of the k1 estimator (Schulman 2020, "Approximating KL
Divergence"). A round reports KL from its reference, and from its root, the imported model: after several rounds only
the second shows how far the policy has moved in all.
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
from training.learner.models.token_outputs import score_tokens
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


def root_divergence(prompts: Sequence[int], log_ratios: Sequence[float]) -> dict[str, float]:
    """Return `kl_from_root`, the mean log-ratio in nats per completion, and its 95 % interval from 30 prompts on.

    prompts: [N], the prompt of each completion; completions of one prompt follow each other. log_ratios: [N]. The
    interval treats a prompt's completions as one cluster (Cochran 1977, §9A): they share the properties of the prompt.
    """
    clusters = groupby(zip(prompts, log_ratios, strict=True), lambda row: row[0])
    return mean_with_interval("kl_from_root", [fmean(ratio for _, ratio in rows) for _, rows in clusters])
