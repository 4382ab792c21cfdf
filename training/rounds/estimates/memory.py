"""Memory of the models of a job, from the number of parameters: float32 weights, gradients and Adam's two moments.

Activations, the KV cache and the libraries come on top. They are not computed, but measured on past rounds.
"""

import json
import math
import struct
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

from training.learner.estimators import ALGORITHMS
from training.rounds.recipes.description import Job

GB = 1e9
FROZEN = 4  # bytes of a parameter: float32, whatever the computing dtype
TRAINED = 16  # weight, gradient, and the two moments of Adam
MAX_HEADER_BYTES = 100_000_000


def model_bytes(job: Job, values: dict[str, Any], models: Collection[str], parameters: int) -> int:
    """Return the bytes of the weights of all models that a job holds at once, and of what their training needs.

    All models are taken to have as many parameters as the base. With lora_rank the adapters are left out, which are a
    few percent of the base. values: the settings of the program. models: names of those that it loads, see `Job`.
    """
    has_adapter = values.get("lora_rank", 0) > 0
    trained, frozen = _models(job.program, values, models, has_adapter)
    return parameters * ((FROZEN if has_adapter else TRAINED) * trained + FROZEN * frozen)


def _models(program: str, values: dict[str, Any], models: Collection[str], has_adapter: bool) -> tuple[int, int]:
    """Return the numbers of models that a program trains, and of those that it only reads."""
    has_reward_model = "reward_model" in models
    # With an adapter the base without it is the reference, unless the reference is another model.
    has_reference = not has_adapter or "reference_model" in models
    if program == "ppo":
        algorithm = ALGORITHMS[values["algorithm"]]
        # With an adapter the critic is another adapter on the same base.
        has_critic = algorithm.needs_critic and values["critic"] == "separate" and not has_adapter
        return 1 + has_critic, has_reference + has_reward_model
    if program == "best_of_n":
        return 1, has_reference + has_reward_model
    if program == "dpo":
        return 1, int(has_reference and (values["loss"] != "simpo" or values["eval_prompts"] > 0))
    if program == "kto":
        return 1, int(has_reference)
    if program == "q":
        # Policy and values; the target network. With adapters all three are on one base.
        return (1, int(has_reward_model)) if has_adapter else (2, 1 + has_reward_model)
    if program in ("sft", "reward"):
        return 1, 0
    return 0, len(models)


def parameters_of(folder: str) -> int | None:
    """Return the number of parameters in a model's safetensors files, by their headers; None if it is not known."""
    try:
        files = sorted(Path(folder).glob("*.safetensors"))
        counts = [_parameters_in(str(file), file.stat().st_mtime_ns) for file in files]
    except (OSError, ValueError):
        return None
    return sum(counts) or None


@lru_cache(maxsize=256)
def _parameters_in(file: str, changed_at: int) -> int:
    """Return the number of parameters in a file, which begins with the length of its header and the header in JSON."""
    with open(file, "rb") as weights:
        length = weights.read(8)
        size = struct.unpack("<Q", length)[0] if len(length) == 8 else 0
        if not 0 < size <= MAX_HEADER_BYTES:
            raise ValueError(f"{file} has no safetensors header")
        header = json.loads(weights.read(size))
    shapes = [tensor["shape"] for name, tensor in header.items() if name != "__metadata__"]
    return sum(math.prod(shape) for shape in shapes)
