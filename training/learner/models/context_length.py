"""Context length: how many tokens a model can read, with RoPE frequencies that do not depend on the batch."""

from typing import Any

from torch import nn


def fix_rope_types(model: nn.Module) -> None:
    """Fix RoPE frequencies that depend on the longest row of the batch to those of the original context length.

    Otherwise the outputs of a short row would depend on the other rows. `max_positions` limits texts to that length.
    """
    for module in model.modules():
        types: Any = getattr(module, "rope_type", None)
        if isinstance(types, dict):
            module.rope_type = {layer: fixed_rope_type(kind) for layer, kind in types.items()}  # type: ignore[assignment]
        elif isinstance(types, str):
            module.rope_type = fixed_rope_type(types)  # type: ignore[assignment]


def fixed_rope_type(kind: str) -> str:
    return "default" if "dynamic" in kind or kind == "longrope" else kind


def max_positions(config: Any) -> int | None:
    """Return the maximum number of tokens of a text, or None if the config has no limit."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    for parameters in [rope, *(part for part in rope.values() if isinstance(part, dict))]:
        rope_type = str(parameters.get("rope_type"))
        if fixed_rope_type(rope_type) != rope_type:
            original = parameters.get("original_max_position_embeddings")
            positions = min(int(limit) for limit in (positions, original) if limit is not None)
    return positions
