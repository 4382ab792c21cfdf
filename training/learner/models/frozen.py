"""Frozen models hold the matrices of their linear layers in the computing dtype, where that changes no result.

Autocast converts the matrix of a linear layer to the computing dtype at each use, and adds in float32 what layers add
to the residual stream. Whoever holds the matrix in that dtype from the start gets the same bits, from half the memory
and without the conversion. Only matrices whose numbers all exist in that dtype are converted, as those of a published
bfloat16 model do: their float32 copies can be made again, for merged adapters and saved folders. Norms and biases stay
float32. Plain embeddings are held in the computing dtype, too, and give float32.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def hold_frozen(model: Any, dtype: str) -> Any:
    """Convert the matrices of a transformers model that stays frozen, and return it. Use it under `computing_in`.

    Scores and log-probs keep their bits. Heads named "score" stay float32, as they may be trained.
    """
    target = getattr(torch, dtype)
    if target == torch.float32:
        return model
    # Embeddings with a forward pass of their own compute in the dtype of their weight, as Gemma's, which scale it.
    kept = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding) and type(m) is not nn.Embedding}
    for name, module in model.named_modules():
        is_held = isinstance(module, nn.Linear | Conv1D | nn.Embedding) and id(module.weight) not in kept
        if is_held and name.rpartition(".")[2] != "score":
            convert(module, target)
    return model


def convert(module: Any, dtype: torch.dtype) -> None:
    """Convert the weight of a module, if all its numbers exist in that dtype."""
    weight, is_embedding = module.weight, isinstance(module, nn.Embedding)
    if weight.dtype == torch.float32 and exists_in(weight.data, dtype):
        weight.data = weight.data.to(dtype)
    if is_embedding and weight.dtype == dtype and not hasattr(module, "accord_gives_float32"):
        module.register_forward_hook(lambda module, inputs, output: output.float())
        module.accord_gives_float32 = True


def exists_in(weight: Tensor, dtype: torch.dtype) -> bool:
    """Return whether a conversion to this dtype and back gives the same numbers; some rows at a time."""
    return all(torch.equal(part.to(dtype).float(), part) for part in weight.flatten().split(1 << 24))
