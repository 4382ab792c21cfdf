"""Logits of a policy at indices of a packed row, by the fastest exact path."""

from collections.abc import Callable
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor

from training.learner.models.generic_forward import generic_logits_and_states, path_of
from training.learner.models.lora import AdapterView
from training.learner.models.packed_attention import PackedBatch, forward_packed
from training.learner.models.partial_forward import is_supported, states_at


def logits_at(policy: Any, batch: PackedBatch, indices: Tensor) -> Tensor:
    """Return the policy's logits [C, V] at these indices [C] of the batch's row."""
    path = path_of(policy)
    if path.scoring != "packed":
        return generic_logits_and_states(policy, batch, indices, path.scoring)[0]
    head = linear_head(policy)
    if head is None:
        return cast(Tensor, forward_packed(policy, batch, logits_to_keep=indices).logits[0])
    return F.linear(states_at(policy, batch, indices), head)


def logits_reader(policy: Any, batch: PackedBatch, indices: Tensor) -> Callable[[slice], Tensor]:
    """Return a function from a slice of these indices to the logits there, as of `logits_at`.

    Where the logits are a product with one matrix, only those of the slice are in memory.
    """
    head = linear_head(policy)
    if head is None:
        logits = logits_at(policy, batch, indices)
        return lambda part: logits[part]
    states = states_at(policy, batch, indices)
    return lambda part: F.linear(states[part], head)


def linear_head(policy: Any) -> Tensor | None:
    """Return the matrix [V, E] that maps last hidden states to logits, or None if the model computes more than that."""
    model = policy.base.model if isinstance(policy, AdapterView) else policy
    if path_of(policy).scoring != "packed" or not is_supported(model.base_model):
        return None
    return cast(Tensor, model.lm_head.weight) if model.lm_head.bias is None else None
