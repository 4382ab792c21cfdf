"""Loss of imitation: the weighted negative log-likelihood of demonstrations."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from training.learner.models.loading import computing_in
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packing import pack_sequences
from training.learner.models.slot_budget import batches_within
from training.learner.models.token_outputs import scores_at
from training.learner.runtime.processes import Processes
from training.learner.text.demonstrations import Example
from training.learner.text.messages import share


def weighted_loss(policy: Any, examples: Sequence[Example], temperature: float = 1.0) -> Tensor:
    """Return Σ weight · −log p(token | earlier tokens) over all tokens of all examples, in nats."""
    batch = pack_sequences([example.tokens for example in examples], policy.device)
    weights = torch.tensor([w for example in examples for w in (*example.weights, 0.0)], device=policy.device)
    counted = weights.nonzero()[:, 0]
    scores = scores_at(policy, batch, counted, batch.tokens[0, counted + 1], temperature)
    return -(scores.log_probs * weights[counted]).sum()


def total_weight(examples: Sequence[Example]) -> float:
    return sum(sum(example.weights) for example in examples)


def accumulate_gradients(
    policy: Any,
    mine: Sequence[Example],
    weight: float,
    dtype: str,
    processes: Processes,
    micro_batches: MicroBatches,
) -> float:
    """Add up the gradient of the mean loss over all processes, and return that mean.

    mine: examples of this process. weight: the total weight of the examples of all processes.
    """
    lengths = [len(example.tokens) for example in mine]

    def pass_over(budget: int) -> float:
        total = 0.0
        for indices in batches_within([[(0, [length])] for length in lengths], budget):
            with computing_in(dtype):
                loss = weighted_loss(policy, [mine[i] for i in indices]) / weight
            loss.backward()
            total += float(loss.detach())
        return total

    total = micro_batches.attempt(lengths, pass_over, undo=policy.zero_grad)
    processes.sum_gradients(policy.parameters())
    return processes.sum_of(total)


@torch.no_grad()
def mean_loss(
    policy: Any, examples: Sequence[Example], dtype: str, processes: Processes, micro_batches: MicroBatches
) -> float:
    """Return the mean loss of the examples, in nats per token."""
    mine = share(examples, processes.rank, processes.count)
    lengths = [len(example.tokens) for example in mine]

    def pass_over(budget: int) -> float:
        batches = batches_within([[(0, [length])] for length in lengths], budget)
        with computing_in(dtype):
            return sum(float(weighted_loss(policy, [mine[i] for i in indices])) for indices in batches)

    return processes.sum_of(micro_batches.attempt(lengths, pass_over)) / total_weight(examples)
