"""LoRA adapters in the format of the PEFT library: `adapter_config.json` and `adapter_model.safetensors`.

Matrices are named by the module's path in the whole model: `base_model.model.<module>.lora_A.weight` [r, in] and
`lora_B.weight` [out, r]; the head of a reward model is `base_model.model.score.weight`. A digest of the base's weights
is in the metadata of the safetensors file, which PEFT ignores. Adapters that earlier versions wrote (`adapter.json` and
`adapter.safetensors`) can be read too.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from training.learner.runtime.jobdir import BadInput

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
OLD_CONFIG_FILE, OLD_WEIGHTS_FILE = "adapter.json", "adapter.safetensors"
ROOT = "base_model.model."  # before the module's path, in PEFT's names
DIGEST = "accord_base_digest"  # key of the metadata
# Values of these settings with which an adapter is y + (α/r)·B A x on an unchanged base. Others, such as DoRA or PiSSA,
# need more than that.
PLAIN: dict[str, list[Any]] = {
    "peft_type": ["LORA"],
    "use_dora": [None, False],
    "bias": [None, "none"],
    "rank_pattern": [None, {}],
    "alpha_pattern": [None, {}],
    "lora_bias": [None, False],
    "init_lora_weights": [None, True, False, "gaussian", "orthogonal", "eva"],
}


class Adapter(NamedTuple):
    """Matrices of an adapter, and the head of a model that scores."""

    rank: int
    alpha: float  # the low-rank product is multiplied by alpha / rank
    layers: Mapping[str, tuple[Tensor, Tensor]]  # A [r, in] and B [out, r], by the layer's path in the whole model
    head: Mapping[str, Tensor]  # weight and perhaps bias of `score`; empty without a head
    base: str  # folder or hub id of the base
    digest: str | None  # of the base's weights; None if another tool wrote the adapter

    def fits(self, source: str) -> bool:
        """Return whether this folder or hub id has the base's weights."""
        if self.digest is not None:
            return self.digest == digest_of(source)
        return source == self.base or (Path(source).exists() and Path(source).resolve() == Path(self.base).resolve())


def trunk_path(model: PreTrainedModel) -> str:
    """Return the path of the trunk in the whole model, with a final dot; empty if the model is its own trunk."""
    path = next(path for path, module in model.named_modules() if module is model.base_model)
    return f"{path}." if path else ""


def is_adapter_folder(folder: str | Path) -> bool:
    """Return whether the folder has an adapter and no model."""
    return (Path(folder) / CONFIG_FILE).is_file() and not (Path(folder) / "config.json").is_file()


def weights_source(path: str) -> str:
    """Return the base's folder or hub id if the path is an adapter's folder, else the path itself."""
    return str(read_config(Path(path))["base_model_name_or_path"]) if is_adapter_folder(path) else path


def read_config(folder: Path) -> dict[str, Any]:
    """Return the settings in adapter_config.json. Raises BadInput if it is no JSON object that names its base."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder / CONFIG_FILE} is not JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("base_model_name_or_path"), str):
        raise BadInput(f'{folder / CONFIG_FILE} must be a JSON object with "base_model_name_or_path"')
    return config


def read_adapter(folder: Path, model: PreTrainedModel) -> Adapter | None:
    """Read the adapter in a folder, or return None if there is none. Raises BadInput if it is not a plain LoRA.

    model: source of the trunk's path, which the old format leaves out.
    """
    if (folder / CONFIG_FILE).is_file():
        return _read_peft(folder)
    return _read_old(folder, trunk_path(model)) if (folder / OLD_CONFIG_FILE).is_file() else None


def _read_peft(folder: Path) -> Adapter:
    config = read_config(folder)
    for name, values in PLAIN.items():
        if config.get(name) not in values:
            raise BadInput(f"{folder} is not a plain LoRA adapter: its {name} is {json.dumps(config[name])}")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1:
        raise BadInput(f'{folder / CONFIG_FILE} must have a number "lora_alpha" and a positive integer "r"')
    if config.get("use_rslora"):
        alpha *= math.sqrt(rank)  # rank-stabilised LoRA multiplies by alpha / √r
    tensors, metadata = _load(folder / WEIGHTS_FILE)
    sides: dict[str, dict[str, Tensor]] = {}
    head: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        path = name.removeprefix(ROOT)
        module, _, side = path.removesuffix(".weight").rpartition(".")
        if path in ("score.weight", "score.bias"):
            head[path.removeprefix("score.")] = tensor
        elif side in ("lora_A", "lora_B") and path.endswith(".weight"):
            sides.setdefault(module, {})[side] = tensor
        else:
            raise BadInput(f'{folder} has weights that are not supported here: "{name}"')
    layers: dict[str, tuple[Tensor, Tensor]] = {}
    for module, pair in sides.items():
        if len(pair) != 2 or pair["lora_A"].shape[0] != rank or pair["lora_B"].shape[1] != rank:
            raise BadInput(f'{folder} has no pair of matrices of rank {rank} for "{module}"')
        layers[module] = pair["lora_A"], pair["lora_B"]
    return Adapter(rank, alpha, layers, head, config["base_model_name_or_path"], metadata.get(DIGEST))


def _read_old(folder: Path, trunk: str) -> Adapter:
    about = json.loads((folder / OLD_CONFIG_FILE).read_text("utf-8"))
    tensors, _ = _load(folder / OLD_WEIGHTS_FILE)
    layers: dict[str, tuple[Tensor, Tensor]] = {}
    for name in tensors:
        if name.endswith(".a"):  # "adapters.layers/0/mlp/up_proj.a"
            path = name.removeprefix("adapters.").removesuffix(".a").replace("/", ".")
            layers[trunk + path] = tensors[name], tensors[f"{name.removesuffix('.a')}.b"]
    head = {name.removeprefix("score."): tensor for name, tensor in tensors.items() if name.startswith("score.")}
    return Adapter(about["rank"], about["alpha"], layers, head, "", about["base"])


def _load(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and metadata of a safetensors file."""
    try:
        with safe_open(file, "pt") as opened:
            names = list(opened.keys())
            return {name: opened.get_tensor(name) for name in names}, opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{file} cannot be read: {error}") from error


def write_adapter(folder: Path, adapter: Adapter, model: PreTrainedModel) -> None:
    """Write an adapter for this model into the folder. model: without adapters on its layers."""
    tensors: dict[str, Tensor] = {}
    for path, (a, b) in adapter.layers.items():
        tensors[f"{ROOT}{path}.lora_A.weight"] = a
        tensors[f"{ROOT}{path}.lora_B.weight"] = b
    tensors |= {f"{ROOT}score.{name}": tensor for name, tensor in adapter.head.items()}
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    digest = {} if adapter.digest is None else {DIGEST: adapter.digest}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"} | digest)
    layers = [model.get_submodule(path) for path in adapter.layers]
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if adapter.head else "CAUSAL_LM",
        "base_model_name_or_path": adapter.base,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "bias": "none",
        "target_modules": target_modules(model, list(adapter.layers)),
        "modules_to_save": ["score"] if adapter.head else None,
        "fan_in_fan_out": any(isinstance(layer, Conv1D) for layer in layers),
        "inference_mode": True,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def target_modules(model: nn.Module, paths: list[str]) -> list[str]:
    """Return the last parts of the modules' paths, or whole paths where a last part would match other modules too."""
    last = {path.rpartition(".")[2] for path in paths}
    matches = {path for path, _ in model.named_modules() if path.rpartition(".")[2] in last}
    return sorted(last) if matches == set(paths) else sorted(paths)


@torch.no_grad()
def merge_adapter(model: Any, adapter: Adapter, where: str) -> None:
    """Add the adapter to the weights of a model, and set its head if it scores.

    Raises BadInput if the model has no linear layer of the adapter's shape. where: name of the adapter in messages.
    """
    for path, (a, b) in adapter.layers.items():
        change = (b.float() * (adapter.alpha / adapter.rank)) @ a.float()
        layer = linear_layer(model, path, (a, b), where)
        layer.weight += (change.T if isinstance(layer, Conv1D) else change).to(layer.weight)
    if adapter.head and isinstance(getattr(model, "score", None), nn.Linear):
        if "bias" in adapter.head or adapter.head["weight"].shape != model.score.weight.shape:
            raise BadInput(f"{where} has a head of another shape than one score without bias")
        model.score.weight.copy_(adapter.head["weight"])


def linear_layer(model: Any, path: str, pair: tuple[Tensor, Tensor], where: str) -> Any:
    """Return the linear layer at this path. Raises BadInput if it is not in the trunk or the matrices do not fit it."""
    a, b = pair
    try:
        layer = model.get_submodule(path) if path.startswith(trunk_path(model)) else None
    except AttributeError:
        layer = None
    shape = tuple(layer.weight.shape) if isinstance(layer, nn.Linear | Conv1D) else None
    if shape != ((a.shape[1], b.shape[0]) if isinstance(layer, Conv1D) else (b.shape[0], a.shape[1])):
        raise BadInput(f'{where} does not fit the model: it adapts "{path}", from {a.shape[1]} to {b.shape[0]} numbers')
    return layer


def digest_of(source: str) -> str:
    """Return an identity of a model: a hash of its weight files if it is a folder, else its name."""
    files = sorted(Path(source).glob("*.safetensors"))
    if not files:
        return source
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
