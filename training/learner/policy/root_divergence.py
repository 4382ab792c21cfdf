"""KL divergence of a policy from the imported model, its root, estimated on the policy's own samples.

A round reports KL from its base. After several rounds only the KL from the root tells how far the policy has gone in
all: KL(π‖π_root) = E_π[log π(y|x) − log π_root(y|x)], the mean of the k1 estimator (Schulman 2020, "Approximating KL
Divergence").
"""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from training.learner.models.generic_forward import shares_prompts
from training.learner.models.loading import computing_in
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packing import Episodes, by_episode, within_budget
from training.learner.models.token_outputs import score_tokens
from training.learner.runtime.intervals import normal_interval

MIN_PROMPTS_FOR_INTERVAL = 30  # with fewer, a normal interval covers too seldom


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


def root_divergence(prompts: Sequence[int], log_ratios: Sequence[float]) -> dict[str, float]:
    """Return `kl_from_root`, the mean log-ratio in nats per completion, and its 95 % interval from 30 prompts on.

    prompts: [N], the prompt of each completion; completions of one prompt follow each other. log_ratios: [N]. The
    interval treats a prompt's completions as one cluster (Cochran 1977, §9A): they share what makes a prompt special.
    """
    clusters = [
        [ratio for _, ratio in rows] for _, rows in groupby(zip(prompts, log_ratios, strict=True), lambda row: row[0])
    ]
    means = torch.tensor([sum(cluster) / len(cluster) for cluster in clusters], dtype=torch.float64)
    mean = float(means.mean())
    if len(means) < MIN_PROMPTS_FOR_INTERVAL:
        return {"kl_from_root": mean}
    _, low, high = normal_interval(mean, float(means.std()) / math.sqrt(len(means)))
    return {"kl_from_root": mean, "kl_from_root_low": low, "kl_from_root_high": high}
