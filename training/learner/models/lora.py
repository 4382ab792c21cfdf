"""Low-rank adapters: one copy of a base model's weights plays every role of a round.

Hu et al. 2021, «LoRA: low-rank adaptation of large language models», §4.1: a linear layer computes W x + (α/r)·B A x,
with W frozen, A [r, in] random and B [out, r] zero at first, so that a new adapter changes nothing, to the bit. All
linear layers of the trunk have one (Dettmers et al. 2023, «QLoRA», §4: needed to match full fine-tuning). The fused
expert tensors of mixture-of-experts models are no linear layers: they have none, and stay as they were. The log and
result.json name the matrices that have adapters, and the share of matrix weights that has none.

A `Role` is the base with one adapter on, and with a scalar head if it scores: policy, critic, reward model; with none
it is the reference. Roles are called like the models they stand for, and each knows as its parameters only what is its
own, so an optimiser, a sum of gradients and a saved state hold just that. On disk a role is an ordinary Hugging Face
folder with the adapter merged into the weights, and the adapter beside it, by which a later program can put the role on
a base it holds already.
"""

import contextlib
import hashlib
import json
import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AutoConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from training.learner.models.loading import save_weights, value_head
from training.learner.runtime.config import Training
from training.learner.runtime.jobdir import BadInput

ADAPTER_FOLDER = "adapter"  # within a model's folder: adapter.safetensors, adapter.json


class Shape(NamedTuple):
    """Of an adapter."""

    rank: int
    alpha: float  # what the low-rank product is multiplied by, times the rank


class LowRank(nn.Module):
    """An adapter of one layer."""

    def __init__(self, width_in: int, width_out: int, shape: Shape, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width_in)  # as a new nn.Linear's
        self.a = nn.Parameter(torch.empty(shape.rank, width_in).uniform_(-bound, bound, generator=generator))
        self.b = nn.Parameter(torch.zeros(width_out, shape.rank))
        self.scale = shape.alpha / shape.rank

    def change(self) -> Tensor:
        """[out, in]: what it adds to the layer's weight."""
        return self.b * self.scale @ self.a


class AddedProduct(torch.autograd.Function):
    """y + s·x Bᵀ [..., out] of y [..., out] and x [..., rank], in y's own memory: nothing as wide is made beside it."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, b: Tensor, scale: float) -> Tensor:
        ctx.mark_dirty(y)
        ctx.scale = scale
        ctx.save_for_backward(x, b)
        y.view(-1, y.shape[-1]).addmm_(x.flatten(0, -2), b.to(y.dtype).T, alpha=scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x, b = ctx.saved_tensors
        wide, narrow = gradient.flatten(0, -2), x.flatten(0, -2)
        inner = (wide @ b.to(wide.dtype)).mul_(ctx.scale).view_as(x)
        own = (wide.T @ narrow).mul_(ctx.scale).to(b.dtype) if ctx.needs_input_grad[2] else None
        return gradient, inner, own, None


class AdaptedLayer(nn.Module):
    """A frozen linear layer, and whichever adapter is on."""

    def __init__(self, layer: nn.Linear | Conv1D) -> None:
        super().__init__()
        self.layer = layer
        self.adapters: dict[str, LowRank] = {}  # not the layer's own: they belong to their roles
        self.active = ""

    def forward(self, x: Tensor) -> Tensor:
        adapter = self.adapters.get(self.active)
        if adapter is None:
            return cast(Tensor, self.layer(x))
        inner = nn.functional.linear(x, adapter.a)
        return cast(Tensor, AddedProduct.apply(self.layer(x), inner, adapter.b, adapter.scale))

    def widths(self) -> tuple[int, int]:
        """Numbers in and out."""
        weight = self.layer.weight
        return tuple(weight.shape) if isinstance(self.layer, Conv1D) else tuple(weight.shape[::-1])  # type: ignore[return-value]

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """The layer's weight with the active adapter in it, in the layer's own layout; a new tensor."""
        change = self.adapters[self.active].change().to(self.layer.weight)
        return self.layer.weight + (change.T if isinstance(self.layer, Conv1D) else change)


class Base:
    """A model whose trunk's linear layers take adapters. Its weights are frozen; `source` is where they came from."""

    def __init__(self, model: PreTrainedModel, source: str) -> None:
        self.model = model.requires_grad_(False)
        self.source = source
        self.layers: dict[str, AdaptedLayer] = {}
        self.coverage = coverage(model.base_model)
        print(f"{source}: {describe(self.coverage)}", file=sys.stderr, flush=True)
        for name, layer in list(model.base_model.named_modules()):
            if isinstance(layer, nn.Linear | Conv1D):
                self.layers[name] = AdaptedLayer(layer)
                replace(model.base_model, name, self.layers[name])

    @contextlib.contextmanager
    def wearing(self, role: str) -> Iterator[None]:
        """The adapters of this role are on, in passes forward; one backward needs none of it."""
        before = [layer.active for layer in self.layers.values()]
        for layer in self.layers.values():
            layer.active = role
        try:
            yield
        finally:
            for layer, active in zip(self.layers.values(), before, strict=True):
                layer.active = active

    @contextlib.contextmanager
    def merged(self, role: str) -> Iterator[PreTrainedModel]:
        """The model as it was before it took adapters, this role's merged into the weights; undone to the bit after."""
        kept = {name: layer.layer.weight.data for name, layer in self.layers.items()}
        with self.wearing(role):
            for name, layer in self.layers.items():
                layer.layer.weight.data = layer.merged_weight()
                replace(self.model.base_model, name, layer.layer)
        try:
            yield self.model
        finally:
            for name, layer in self.layers.items():
                layer.layer.weight.data = kept[name]
                replace(self.model.base_model, name, layer)


class Coverage(NamedTuple):
    """Which of a trunk's matrices take adapters, by the last part of their names; embeddings do not count."""

    adapted: list[str]
    frozen: list[str]
    frozen_share: float  # of all weights in these matrices


def coverage(trunk: nn.Module) -> Coverage:
    """Of a trunk that has no adapters yet."""
    adapted: dict[str, int] = {}
    frozen: dict[str, int] = {}
    for place, module in trunk.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim < 2 or isinstance(module, nn.Embedding):
                continue
            own = place.rpartition(".")[2] + ("" if name == "weight" else f".{name}")
            counts = adapted if isinstance(module, nn.Linear | Conv1D) else frozen
            counts[own] = counts.get(own, 0) + parameter.numel()
    left = sum(frozen.values())
    return Coverage(sorted(adapted), sorted(frozen), left / max(left + sum(adapted.values()), 1))


def describe(covered: Coverage) -> str:
    """In a sentence for the log."""
    text = f"adapters on {', '.join(covered.adapted) or 'nothing'}"
    if not covered.frozen:
        return text
    return f"{text}; {covered.frozen_share:.0%} of the matrix weights stay frozen, in {', '.join(covered.frozen)}"


def replace(trunk: nn.Module, name: str, module: nn.Module) -> None:
    """Puts a module in the place of the one of this dotted name."""
    parent, _, own = name.rpartition(".")
    setattr(trunk.get_submodule(parent), own, module)


class Role(nn.Module):
    """The base as one role sees it."""

    def __init__(
        self, base: Base, name: str, shape: Shape | None, seed: int = 0, score: nn.Linear | None = None
    ) -> None:
        """Without a shape there is no adapter: the base itself. `score`: the head of a role that scores."""
        super().__init__()
        self.name, self.shape, self.score = name, shape, score
        self._base = [base]  # in a list, so that it is no part of this module
        self.adapters = nn.ModuleDict()
        self.config = base.model.config
        if shape is not None:
            generator = torch.Generator().manual_seed(random.Random(f"{seed}/{name}").getrandbits(63))
            for place, layer in base.layers.items():
                layer.adapters[name] = LowRank(*layer.widths(), shape, generator).to(base.model.device)
                self.adapters[place.replace(".", "/")] = layer.adapters[name]

    @property
    def base(self) -> Base:
        return self._base[0]

    @property
    def device(self) -> torch.device:
        return self.base.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.base.model.dtype

    @property
    def generation_config(self) -> Any:
        return self.base.model.generation_config

    def forward(self, **inputs: Any) -> Any:
        with self.base.wearing(self.name):
            return self.base.model(**inputs)

    def base_model(self, **inputs: Any) -> Any:
        """The trunk alone, called as a model's own."""
        with self.base.wearing(self.name):
            return self.base.model.base_model(**inputs)

    def save_pretrained(self, folder: Path) -> None:
        """A Hugging Face folder of the merged model, its head included, and the adapter beside it."""
        with self.base.merged(self.name) as model:
            save_weights(model, folder)  # a scoring role's head is the model's own where it is saved from
        self.save_adapter(Path(folder) / ADAPTER_FOLDER)

    def save_adapter(self, folder: Path) -> None:
        assert self.shape is not None, "a role without an adapter is the base itself"
        folder.mkdir()
        tensors = {name: part.detach().contiguous().cpu() for name, part in self.state_dict().items()}
        save_file(tensors, folder / "adapter.safetensors", metadata={"format": "pt"})
        about = {"base": digest_of(self.base.source), "rank": self.shape.rank, "alpha": self.shape.alpha}
        (folder / "adapter.json").write_text(json.dumps(about, indent=2))


def scoring_role(base: Base, name: str, shape: Shape, seed: int, bias: bool) -> Role:
    """A role with a head whose scores are all 0 at first."""
    head = nn.Linear(base.model.config.get_text_config().hidden_size, 1, bias=bias).to(base.model.device)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    return Role(base, name, shape, seed, head)


def own_head_role(base: Base, name: str, shape: Shape, seed: int) -> Role:
    """A role whose head is the base model's own, a sequence classifier's."""
    return Role(base, name, shape, seed, cast(nn.Linear, base.model.score.requires_grad_(True)))


def shape_of(settings: Training) -> Shape | None:
    """The adapters that the settings ask for."""
    return Shape(settings.lora_rank, settings.lora_alpha) if settings.lora_rank else None


def load_scoring_role(base: Base, name: str, folder: str) -> Role | None:
    """The role that this folder's model was, on a base held already; None when it was none, or not on this base."""
    place = Path(folder) / ADAPTER_FOLDER
    if not (place / "adapter.json").is_file():
        return None
    about = json.loads((place / "adapter.json").read_text())
    tensors = load_file(place / "adapter.safetensors")
    if about["base"] != digest_of(base.source) or "score.weight" not in tensors:
        return None
    role = scoring_role(base, name, Shape(about["rank"], about["alpha"]), 0, bias="score.bias" in tensors)
    role.load_state_dict(tensors)
    role.config = AutoConfig.from_pretrained(folder)  # with the scores' shift and scale
    return role


def critic_role(base: Base, source: str, shape: Shape, seed: int, is_asked_for: bool = False) -> Role:
    """A critic: from a reward model on this base it starts as that, in normalised scores; else with values of 0.

    A source that is asked for and is none raises BadInput.
    """
    start = load_scoring_role(base, "critic", source)
    if start is None and is_asked_for:
        raise BadInput("with lora_rank, critic_model must be a reward model that learned as an adapter on model")
    if start is None:  # a language model's folder, or another base's: what it knows cannot be put on this one
        return scoring_role(base, "critic", shape, seed, bias=True)
    assert start.score is not None
    start.score = value_head(start.score, start.config)
    return start


def digest_of(source: str) -> str:
    """What tells one base from another: its weights' files if it is a folder, else its name."""
    files = sorted(Path(source).glob("*.safetensors"))
    if not files:
        return source
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
