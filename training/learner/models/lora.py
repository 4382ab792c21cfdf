"""LoRA: one copy of a base model's weights serves policy, critic, reward model and reference.

Hu et al. 2021, "LoRA: low-rank adaptation of large language models", §4.1: a linear layer computes W x + (α/r)·B A x,
with W frozen, A [r, in] random and B [out, r] zero at first, so a new adapter changes nothing. All linear layers of the
trunk have adapters (Dettmers et al. 2023, "QLoRA", §4: needed to match full fine-tuning). Fused expert tensors of
mixture-of-experts models are not linear layers: they have no adapter and stay frozen. The log and result.json name the
matrices with adapters, and the share of matrix weights without.

An `AdapterView` is the base with one adapter active, and with a scalar head if it scores; the view without an adapter
is the reference. A view is called like a model. Its parameters are its adapter and head only, so optimizers, gradient
sums and saved states contain nothing else. It is saved as an ordinary Hugging Face folder with the adapter merged into
the weights, and the adapter next to it, which a later program can put on a base that it already holds.
"""

import contextlib
import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AutoConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from training.learner.models.frozen import hold_frozen
from training.learner.models.heads import value_head
from training.learner.models.peft_format import (
    Adapter,
    digest_of,
    is_adapter_folder,
    read_adapter,
    trunk_path,
    write_adapter,
)
from training.learner.models.saving import save_weights
from training.learner.runtime.config import Training
from training.learner.runtime.jobdir import BadInput

ADAPTER_FOLDER = "adapter"  # in a model's folder; in PEFT's format, see peft_format


class LoraConfig(NamedTuple):
    """Size of an adapter."""

    rank: int
    alpha: float  # the low-rank product is multiplied by alpha / rank


class LowRank(nn.Module):
    """Adapter of one layer."""

    def __init__(self, width_in: int, width_out: int, lora: LoraConfig, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width_in)  # as in a new nn.Linear
        self.a = nn.Parameter(torch.empty(lora.rank, width_in).uniform_(-bound, bound, generator=generator))
        self.b = nn.Parameter(torch.zeros(width_out, lora.rank))
        self.scale = lora.alpha / lora.rank

    def change(self) -> Tensor:
        """Return the matrix [out, in] that is added to the layer's weight."""
        return self.b * self.scale @ self.a


class AddedProduct(torch.autograd.Function):
    """y + s·x Bᵀ [..., out] for y [..., out] and x [..., rank], in the memory of y: no second tensor of that width."""

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
        x_gradient = (wide @ b.to(wide.dtype)).mul_(ctx.scale).view_as(x)
        b_gradient = (wide.T @ narrow).mul_(ctx.scale).to(b.dtype) if ctx.needs_input_grad[2] else None
        return gradient, x_gradient, b_gradient, None


class AdaptedLayer(nn.Module):
    """Frozen linear layer with at most one active adapter."""

    def __init__(self, layer: nn.Linear | Conv1D) -> None:
        super().__init__()
        self.layer = layer
        self.adapters: dict[str, LowRank] = {}  # a plain dict: the views own these parameters
        self.active = ""

    def forward(self, x: Tensor) -> Tensor:
        adapter = self.adapters.get(self.active)
        if adapter is None:
            return cast(Tensor, self.layer(x))
        inner = nn.functional.linear(x, adapter.a)
        return cast(Tensor, AddedProduct.apply(self.layer(x), inner, adapter.b, adapter.scale))

    def widths(self) -> tuple[int, int]:
        """Return the number of inputs and outputs."""
        weight = self.layer.weight
        return tuple(weight.shape) if isinstance(self.layer, Conv1D) else tuple(weight.shape[::-1])  # type: ignore[return-value]

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """Return a new weight that includes the active adapter, transposed as the layer stores it."""
        weight, change = self.layer.weight, self.adapters[self.active].change()
        # Added in float32 and rounded once, also where the frozen weight is held in bfloat16 (`frozen`).
        return (weight.float() + (change.T if isinstance(self.layer, Conv1D) else change)).to(weight.dtype)


class SharedBase:
    """Frozen model whose trunk's linear layers take adapters.

    source: the folder or hub id of its weights. dtype: the computing dtype, see `hold_frozen`.
    """

    def __init__(self, model: PreTrainedModel, source: str, dtype: str = "float32") -> None:
        self.model = hold_frozen(model.requires_grad_(False), dtype)
        self.source = source
        self.layers: dict[str, AdaptedLayer] = {}
        self.coverage = coverage(model.base_model)
        print(f"{source}: {describe(self.coverage)}", file=sys.stderr, flush=True)
        for name, layer in list(model.base_model.named_modules()):
            if isinstance(layer, nn.Linear | Conv1D):
                self.layers[name] = AdaptedLayer(layer)
                replace(model.base_model, name, self.layers[name])

    @contextlib.contextmanager
    def active_adapter(self, view: str) -> Iterator[None]:
        """Activate the adapters of this view in forward passes. Backward passes do not depend on it."""
        before = [layer.active for layer in self.layers.values()]
        for layer in self.layers.values():
            layer.active = view
        try:
            yield
        finally:
            for layer, active in zip(self.layers.values(), before, strict=True):
                layer.active = active

    @contextlib.contextmanager
    def merged(self, view: str) -> Iterator[PreTrainedModel]:
        """Give the plain model with this view's adapters merged into its weights; restore exactly the same bits after.

        The original weights are kept beside the merged ones, because subtracting the change would round.
        """
        kept = {name: layer.layer.weight.data for name, layer in self.layers.items()}
        with self.active_adapter(view):
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
    """Matrices of a trunk with and without adapters, by the last part of their names; embeddings do not count."""

    adapted: list[str]
    frozen: list[str]
    frozen_share: float  # of all weights in these matrices


def coverage(trunk: nn.Module) -> Coverage:
    """Return the coverage of a trunk before it gets adapters."""
    adapted: dict[str, int] = {}
    frozen: dict[str, int] = {}
    for path, module in trunk.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim < 2 or isinstance(module, nn.Embedding):
                continue
            last = path.rpartition(".")[2] + ("" if name == "weight" else f".{name}")
            counts = adapted if isinstance(module, nn.Linear | Conv1D) else frozen
            counts[last] = counts.get(last, 0) + parameter.numel()
    left = sum(frozen.values())
    return Coverage(sorted(adapted), sorted(frozen), left / max(left + sum(adapted.values()), 1))


def describe(covered: Coverage) -> str:
    """Return a sentence for the log."""
    text = f"adapters on {', '.join(covered.adapted) or 'nothing'}"
    if not covered.frozen:
        return text
    return f"{text}; {covered.frozen_share:.0%} of the matrix weights stay frozen, in {', '.join(covered.frozen)}"


def replace(trunk: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the submodule with this dotted name."""
    parent, _, last = name.rpartition(".")
    setattr(trunk.get_submodule(parent), last, module)


class AdapterView(nn.Module):
    """The shared base with one adapter: a policy, critic, reward model or reference."""

    def __init__(
        self, base: SharedBase, name: str, lora: LoraConfig | None, seed: int = 0, score: nn.Linear | None = None
    ) -> None:
        """Create the view. lora: None for the base without an adapter. score: the head of a view that scores."""
        super().__init__()
        self.name, self.lora, self.score = name, lora, score
        self._base = [base]  # in a list, so that its parameters are not part of this module
        self.adapters = nn.ModuleDict()
        self.config = base.model.config
        if lora is not None:
            generator = torch.Generator().manual_seed(random.Random(f"{seed}/{name}").getrandbits(63))
            for path, layer in base.layers.items():
                layer.adapters[name] = LowRank(*layer.widths(), lora, generator).to(base.model.device)
                self.adapters[path.replace(".", "/")] = layer.adapters[name]  # names of modules cannot have dots

    @property
    def base(self) -> SharedBase:
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
        with self.base.active_adapter(self.name):
            return self.base.model(**inputs)

    def base_model(self, **inputs: Any) -> Any:
        """Call the trunk alone, as with the attribute of the same name of a transformers model."""
        with self.base.active_adapter(self.name):
            return self.base.model.base_model(**inputs)

    def save_pretrained(self, folder: Path) -> None:
        """Write a Hugging Face folder of the merged model, head included, and the adapter in a folder in it."""
        adapter_folder = Path(folder) / ADAPTER_FOLDER
        with self.base.merged(self.name) as model:
            save_weights(model, folder)  # the head of a view that is saved is the model's own
            adapter_folder.mkdir()
            write_adapter(adapter_folder, self.adapter(), model)

    def adapter(self) -> Adapter:
        """Return the matrices of this view, not copied."""
        assert self.lora is not None, "a view without an adapter is the base itself"
        trunk = trunk_path(self.base.model)
        layers = {trunk + path: (layer.adapters[self.name].a, layer.adapters[self.name].b)
                  for path, layer in self.base.layers.items()}  # fmt: skip
        head = {} if self.score is None else dict(self.score.named_parameters())
        source = self.base.source
        return Adapter(self.lora.rank, self.lora.alpha, layers, head, source, digest_of(source))

    @torch.no_grad()
    def load_adapter(self, adapter: Adapter) -> None:
        """Copy an adapter of the same rank and alpha. Layers that it lacks stay unchanged by this view.

        Raises BadInput if it adapts a layer that the base does not have.
        """
        trunk = trunk_path(self.base.model)
        for layer in self.base.layers.values():
            layer.adapters[self.name].b.zero_()
        for path, (a, b) in adapter.layers.items():
            adapted = self.base.layers.get(path.removeprefix(trunk)) if path.startswith(trunk) else None
            if adapted is None or adapted.widths() != (a.shape[1], b.shape[0]):
                raise BadInput(f'the adapter does not fit {self.base.source}: it adapts "{path}"')
            adapted.adapters[self.name].a.copy_(a)
            adapted.adapters[self.name].b.copy_(b)
        if self.score is not None and adapter.head:
            self.score.load_state_dict(adapter.head)


def scoring_view(base: SharedBase, name: str, lora: LoraConfig, seed: int, bias: bool) -> AdapterView:
    """Return a view with a new head whose scores are all 0."""
    head = nn.Linear(base.model.config.get_text_config().hidden_size, 1, bias=bias).to(base.model.device)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    return AdapterView(base, name, lora, seed, head)


def classifier_view(base: SharedBase, name: str, lora: LoraConfig, seed: int) -> AdapterView:
    """Return a view with the head of the base model, which is a sequence classifier."""
    return AdapterView(base, name, lora, seed, cast(nn.Linear, base.model.score.requires_grad_(True)))


def lora_config(settings: Training) -> LoraConfig | None:
    """Return the size of the adapters that the settings ask for, or None without LoRA."""
    return LoraConfig(settings.lora_rank, settings.lora_alpha) if settings.lora_rank else None


def load_scoring_view(base: SharedBase, name: str, folder: str) -> AdapterView | None:
    """Load the adapter and head of a reward model, or return None if the folder has none for this base.

    folder: a model's folder with an adapter in it, or a folder that another tool saved with PEFT.
    """
    is_adapter = is_adapter_folder(folder)
    adapter = read_adapter(Path(folder) if is_adapter else Path(folder) / ADAPTER_FOLDER, base.model)
    if adapter is None or "weight" not in adapter.head or not adapter.fits(base.source):
        return None
    view = scoring_view(base, name, LoraConfig(adapter.rank, adapter.alpha), 0, bias="bias" in adapter.head)
    view.load_adapter(adapter)
    if not is_adapter:
        view.config = AutoConfig.from_pretrained(folder)  # has the scores' shift and scale
    return view


def critic_view(base: SharedBase, source: str, lora: LoraConfig, seed: int, is_asked_for: bool = False) -> AdapterView:
    """Return a critic that starts as the reward model in `source`, in normalised scores, or else with values of 0.

    Raises BadInput if `is_asked_for` and `source` is not a reward model with an adapter for this base.
    """
    critic = load_scoring_view(base, "critic", source)
    if critic is None and is_asked_for:
        raise BadInput("with lora_rank, critic_model must be a reward model that was trained as an adapter on model")
    if critic is None:  # a language model's folder, or an adapter for another base
        return scoring_view(base, "critic", lora, seed, bias=True)
    assert critic.score is not None
    critic.score = value_head(critic.score, critic.config)
    return critic
