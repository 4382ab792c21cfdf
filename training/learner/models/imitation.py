"""Loss of imitation: the weighted negative log-likelihood of demonstrations."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from training.learner.models.packing import pack_sequences
from training.learner.models.token_outputs import scores_at
from training.learner.text.demonstrations import Example


def weighted_loss(policy: Any, examples: Sequence[Example], temperature: float = 1.0) -> Tensor:
    """Return Σ weight · −log p(token | earlier tokens) over all tokens of all examples, in nats."""
    batch = pack_sequences([example.tokens for example in examples], policy.device)
    weights = torch.tensor([w for example in examples for w in (*example.weights, 0.0)], device=policy.device)
    counted = weights.nonzero()[:, 0]
    scores = scores_at(policy, batch, counted, batch.tokens[0, counted + 1], temperature)
    return -(scores.log_probs * weights[counted]).sum()


def total_weight(examples: Sequence[Example]) -> float:
    return sum(sum(example.weights) for example in examples)
