"""KL divergence of a policy from a reference, estimated on completions that the policy samples."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from training.learner.models.loading import computing_in
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packing import Episodes
from training.learner.policy.evaluation import EVALUATION_NUMBERS
from training.learner.policy.root_divergence import MIN_PROMPTS_FOR_INTERVAL, log_probs_of
from training.learner.runtime.intervals import normal_interval
from training.learner.runtime.processes import Processes
from training.learner.sampling.sampler import SamplingParams, sample
from training.learner.text.messages import share


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


def divergence_result(log_ratios: Sequence[float]) -> dict[str, float]:
    """Return `kl`, the mean in nats per completion (Schulman 2020, k1), and from 30 prompts on its 95 % interval."""
    ratios = torch.tensor(log_ratios, dtype=torch.float64)
    mean = float(ratios.mean())
    if len(ratios) < MIN_PROMPTS_FOR_INTERVAL:
        return {"kl": mean}
    _, low, high = normal_interval(mean, float(ratios.std()) / math.sqrt(len(ratios)))
    return {"kl": mean, "kl_low": low, "kl_high": high}
