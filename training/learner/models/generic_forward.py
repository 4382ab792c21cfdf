"""Generic path: forward passes and decoding by the model's own code, for models whose packed pass would not be exact.

Hybrids, recurrent models and models with their own attention code read sequences as padded rows (or one at a time) and
decode with their own cache; rows of equal length are decoded together, so nothing is padded there. This is slower than
the packed pass, since a prompt is computed once per completion. `probe.choose_path` decides at load which path a model
takes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.learner.models.packed_attention import PackedBatch, PackedLayout
from training.learner.models.packed_layouts import separate_sequences

CACHES = ("past_key_values", "cache_params")  # names of caches in the outputs and arguments of models


class ComputePath(NamedTuple):
    """The ways in which a model is computed, see `probe.choose_path`."""

    scoring: str = "packed"  # or "padded": right-padded rows; or "alone": one sequence at a time
    decoding: str = "packed"  # or "cached": the model's own cache; or "recomputed": every step reads all tokens again
    why: str = ""  # reason for not using the packed pass or its decoder

    @property
    def is_fast(self) -> bool:
        return self.scoring == self.decoding == "packed"


def path_of(model: Any) -> ComputePath:
    """Return the path of a transformers model, or of the model under a LoRA view."""
    base = getattr(model, "base", None)  # of a view
    trunk = (model if base is None else base.model).base_model
    return cast(ComputePath, getattr(trunk, "accord_path", ComputePath()))


def set_path(model: Any, path: ComputePath) -> None:
    model.base_model.accord_path = path


def shares_prompts(model: Any) -> bool:
    """Return whether a pass over several completions of one prompt computes the prompt once."""
    return path_of(model).scoring == "packed"


def path_summary(model: Any) -> dict[str, Any]:
    """Return the entries of result.json about the path and, with LoRA, about which matrices have adapters."""
    path = path_of(model)
    base = getattr(model, "base", None)  # of a view
    coverage = {} if base is None else {f"lora_{name}": value for name, value in base.coverage._asdict().items()}
    if path.is_fast:
        return {"path": "packed"} | coverage
    reason = {"path": f"generic: {path.scoring} rows, {path.decoding} decoding", "path_reason": path.why}
    return reason | coverage


def generic_states(trunk: Any, batch: PackedBatch, indices: Tensor, scoring: str) -> Tensor:
    """Return the trunk's last hidden states [C, E] at these indices of the batch's row."""

    def call(**inputs: Tensor) -> tuple[Tensor, ...]:
        return (trunk(**inputs, use_cache=False).last_hidden_state,)

    return outputs_at(call, batch, indices, scoring)[0]


def generic_logits_and_states(model: Any, batch: PackedBatch, indices: Tensor, scoring: str) -> tuple[Tensor, Tensor]:
    """Return logits [C, V] and last hidden states [C, E] of a language model or a LoRA view, from one pass."""
    base = getattr(model, "base", None)
    trunk = (model if base is None else base.model).base_model

    def call(**inputs: Tensor) -> tuple[Tensor, ...]:
        return logits_and_states(model, trunk, **inputs)

    logits, states = outputs_at(call, batch, indices, scoring)
    return logits, states


def logits_and_states(model: Any, trunk: nn.Module, **inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits [N, Q, V] and last hidden states [N, Q, E] of the model's own forward pass."""
    kept: list[Tensor] = []
    # Not output_hidden_states: some models leave out the final norm there, and some do not support it.
    hook = trunk.register_forward_hook(lambda module, args, output: kept.append(output.last_hidden_state))
    try:
        logits = model(**inputs, use_cache=False).logits
    finally:
        hook.remove()
    if not kept:  # OPT's language model calls the trunk's decoder and not the trunk
        kept.append(trunk(**inputs, use_cache=False).last_hidden_state)
    return logits, kept[-1]


def outputs_at(
    call: Callable[..., tuple[Tensor, ...]], batch: PackedBatch, indices: Tensor, scoring: str
) -> tuple[Tensor, ...]:
    """Return the outputs [C, *] of `call` at these indices of the batch's row; `call` gets rows and returns [N, Q, *].

    scoring: "padded" for right-padded rows, "alone" for one sequence at a time.
    """
    layout = separate_sequences(cast(PackedLayout, batch.layout))
    parts = []
    for group in layout.groups:
        tokens = batch.tokens[0][group.key_rows]
        # Slots after the end of a row repeat its last index.
        lengths = 1 + (group.key_rows[:, 1:] != group.key_rows[:, :-1]).sum(1)
        read = read_alone if scoring == "alone" else read_padded
        parts.append([output.flatten(0, 1) for output in read(call, tokens, lengths)])
    slots = layout.slots[indices]
    return tuple(torch.cat(column)[slots] for column in zip(*parts, strict=True))


def read_padded(call: Callable[..., tuple[Tensor, ...]], tokens: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
    mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    return call(input_ids=tokens, attention_mask=mask.long())


def read_alone(call: Callable[..., tuple[Tensor, ...]], tokens: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
    width = tokens.shape[1]
    rows = [call(input_ids=row[None, :length]) for row, length in zip(tokens, lengths.tolist(), strict=True)]
    padded = [[F.pad(output, (0, 0, 0, width - output.shape[1])) for output in row] for row in rows]
    return tuple(torch.cat(column) for column in zip(*padded, strict=True))


@dataclass
class EqualRows:
    """Rows of equal length, decoded together without padding."""

    rows: Tensor  # [B], indices of the decoder's rows
    tokens: Tensor  # [B, t], all tokens read so far
    cache: dict[str, Any] | None = None  # the model's own cache, as its arguments; None: all tokens must be read again


class GenericDecoder:
    """Decoder that uses the policy's own forward pass and cache."""

    compact_below = 0.5  # after rows are dropped, the others' tokens have to be read again

    def __init__(self, policy: Any, prompts: Sequence[Sequence[int]], decoding: str) -> None:
        self._policy, self._recomputes = policy, decoding == "recomputed"
        self._count = len(prompts)
        by_length: dict[int, list[int]] = {}
        for row, prompt in enumerate(prompts):
            by_length.setdefault(len(prompt), []).append(row)
        self._groups = [
            EqualRows(
                torch.tensor(rows, device=policy.device),
                torch.tensor([list(prompts[row]) for row in rows], device=policy.device),
            )
            for rows in by_length.values()
        ]

    def read_prompts(self) -> Tensor:
        return self._in_row_order([self._read_group(group) for group in self._groups])

    def read(self, tokens: Tensor) -> Tensor:
        for group in self._groups:
            group.tokens = torch.cat([group.tokens, tokens[group.rows, None]], 1)
        return self._in_row_order([self._read_group(group) for group in self._groups])

    def _read_group(self, group: EqualRows) -> Tensor:
        """Return the logits [B, V] after the last token of each row."""
        if self._recomputes:
            return cast(Tensor, self._policy(input_ids=group.tokens, use_cache=False).logits[:, -1])
        tokens = group.tokens if group.cache is None else group.tokens[:, -1:]
        output = self._policy(input_ids=tokens, use_cache=True, **(group.cache or {}))
        group.cache = {name: output[name] for name in CACHES if output.get(name) is not None}
        if not group.cache:
            raise ValueError("the model's output has no cache")
        return cast(Tensor, output.logits[:, -1])

    def _in_row_order(self, logits: list[Tensor]) -> Tensor:
        together = torch.cat(logits)
        order = torch.cat([group.rows for group in self._groups])
        return torch.empty_like(together).index_copy_(0, order, together)

    def keep(self, rows: Tensor) -> None:
        new = torch.full((self._count,), -1, device=rows.device)
        new[rows] = torch.arange(len(rows), device=rows.device)
        for group in self._groups:
            kept = new[group.rows] >= 0
            if not bool(kept.all()):
                group.cache = None
            group.rows, group.tokens = new[group.rows][kept], group.tokens[kept]
        self._groups = [group for group in self._groups if len(group.rows)]
        self._count = len(rows)
