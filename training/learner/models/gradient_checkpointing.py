"""Gradient checkpointing: keep the input of each layer alone, and compute the layer again in the backward pass.

Chen et al. 2016, "Training deep nets with sublinear memory cost". Models are in evaluation mode and a layer is computed
with the same adapter as before, so its second pass gives the same bits, and so do the gradients.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from training.learner.models.lora import AdaptedLayer, AdapterView
from training.learner.runtime.jobdir import BadInput


def checkpoint_layers(model: Any) -> None:
    """Let each layer of a transformers model, or of the model under a LoRA view, be computed again.

    Raises BadInput if transformers does not say which modules of its kind are layers.
    """
    network = network_of(model)
    layers = layers_of(network)
    if not layers:
        raise BadInput(f"gradient_checkpointing is not possible for a {type(network).__name__}: set it to false")
    for layer in layers:
        if not is_checkpointed(layer):
            layer.forward = partial(computed_again, layer, layer.forward)
            layer.accord_is_checkpointed = True  # type: ignore[assignment]


def network_of(model: Any) -> Any:
    """Return the transformers model, or that under a LoRA view."""
    return model.base.model if isinstance(model, AdapterView) else model


def layers_of(network: Any) -> list[nn.Module]:
    return [module for module in network.base_model.modules() if isinstance(module, GradientCheckpointingLayer)]


def has_checkpoints(model: Any) -> bool:
    """Return whether `checkpoint_layers` was called for this model."""
    return any(map(is_checkpointed, layers_of(network_of(model))))


def is_checkpointed(layer: nn.Module) -> bool:
    return getattr(layer, "accord_is_checkpointed", False)


def computed_again(layer: nn.Module, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call a function that computes a layer; with gradients, keep its arguments alone for the backward pass."""
    if not torch.is_grad_enabled():
        return function(*args, **options)
    contexts = lambda: (contextlib.nullcontext(), active_as_now(layer))  # noqa: E731 (an argument)
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False, context_fn=contexts, **options)


def active_as_now(layer: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Return a context in which the layer's active adapters are those of now. In a backward pass none is active."""
    adapted = [module for module in layer.modules() if isinstance(module, AdaptedLayer)]
    return activated(adapted, [module.active for module in adapted])


@contextlib.contextmanager
def activated(layers: list[AdaptedLayer], names: list[str]) -> Iterator[None]:
    before = [layer.active for layer in layers]
    for layer, name in zip(layers, names, strict=True):
        layer.active = name
    try:
        yield
    finally:
        for layer, name in zip(layers, before, strict=True):
            layer.active = name
