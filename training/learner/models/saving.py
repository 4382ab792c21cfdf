"""Save models as Hugging Face folders, in the dtype of the folder that they were loaded from."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


@torch.no_grad()
def save_weights(model: PreTrainedModel, folder: Path) -> None:
    """Write a Hugging Face folder without tokenizer, in the dtype of the folder that the model was loaded from.

    Modules that transformers always keeps in float32 stay in float32. The model itself is not changed.
    """
    dtype = getattr(model, "accord_stored_dtype", None)
    if dtype is None or all(weight.dtype == dtype for weight in model.parameters()):
        model.save_pretrained(folder)
        return
    kept = {*(model._keep_in_fp32_modules_strict or ())}
    if dtype == torch.float16:
        kept |= {*(model._keep_in_fp32_modules or ())}
    cast_once: dict[Tensor, Tensor] = {}  # tied weights must stay one tensor, or they would be saved twice

    def stored(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or any(part in kept for part in name.split(".")):
            return tensor
        return cast_once.setdefault(tensor, tensor.to(dtype))

    weights = {name: stored(name, tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    model.save_pretrained(folder, state_dict=weights)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a Hugging Face folder in safetensors with tokenizer, in the dtype of the folder it was loaded from.

    model: a transformers model, or a LoRA view, which is saved merged. Only `state/` keeps the float32 weights.
    """
    if getattr(model, "generation_config", None) is not None:
        # Without these settings transformers decodes greedily or samples from the top 50 tokens by default.
        model.generation_config.update(do_sample=True, top_k=model.generation_config.top_k or 0)
    if isinstance(model, PreTrainedModel):
        save_weights(model, folder)
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
