"""Forward passes and decoding through a model's own code, for kinds whose packed pass would not be exact.

Hybrids, recurrent kinds and models with attention code of their own read sequences as padded rows (or one at a time)
and decode with their own cache, rows of one length together so that nothing is padded. That is slower than the packed
pass, since a prompt is computed once per completion. `check.choose_path` decides at load which path a model takes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.learner.models.packed_attention import FlatLayout, Row

CACHES = ("past_key_values", "cache_params")  # the names that models give their caches, in outputs and arguments


class Path(NamedTuple):
    """How a model is computed, see `check.choose_path`."""

    scoring: str = "packed"  # or "padded": right-padded rows; or "alone": one sequence at a time
    decoding: str = "packed"  # or "cached": the model's own cache; or "recomputed": every step reads all tokens again
    why: str = ""  # why the packed pass or its decoder is not used

    @property
    def is_fast(self) -> bool:
        return self.scoring == self.decoding == "packed"


def path_of(model: Any) -> Path:
    """The path chosen for this transformers model, or for the model that a LoRA role is on."""
    base = getattr(model, "base", None)  # of a role
    trunk = (model if base is None else base.model).base_model
    return cast(Path, getattr(trunk, "accord_path", Path()))


def shares_prompts(model: Any) -> bool:
    """Whether passes over several completions of a prompt compute it once."""
    return path_of(model).scoring == "packed"


def in_results(model: Any) -> dict[str, Any]:
    """What result.json says of how a model was computed and, with LoRA, of what learned and what stayed frozen."""
    path = path_of(model)
    base = getattr(model, "base", None)  # of a role
    learned = {} if base is None else {f"lora_{name}": value for name, value in base.coverage._asdict().items()}
    if path.is_fast:
        return {"path": "packed"} | learned
    reason = {"path": f"generic: {path.scoring} rows, {path.decoding} decoding", "path_reason": path.why}
    return reason | learned


def set_path(model: Any, path: Path) -> None:
    model.base_model.accord_path = path


def states_of_rows(trunk: Any, batch: Row, places: Tensor, scoring: str) -> Tensor:
    """[C, E]: the trunk's last hidden states at these places of the batch's row."""

    def call(**inputs: Tensor) -> tuple[Tensor, ...]:
        return (trunk(**inputs, use_cache=False).last_hidden_state,)

    return at_places(call, batch, places, scoring)[0]


def logits_and_states_of_rows(model: Any, batch: Row, places: Tensor, scoring: str) -> tuple[Tensor, Tensor]:
    """[C, V] logits and [C, E] last hidden states of a language model (or a role), from one pass."""
    base = getattr(model, "base", None)
    trunk = (model if base is None else base.model).base_model

    def call(**inputs: Tensor) -> tuple[Tensor, ...]:
        return logits_and_states(model, trunk, **inputs)

    logits, states = at_places(call, batch, places, scoring)
    return logits, states


def logits_and_states(model: Any, trunk: nn.Module, **inputs: Tensor) -> tuple[Tensor, Tensor]:
    """[N, Q, V] and [N, Q, E] by the model's own forward pass."""
    kept: list[Tensor] = []
    # Not output_hidden_states: some kinds leave the final norm out there, and some do not support it.
    hook = trunk.register_forward_hook(lambda module, args, output: kept.append(output.last_hidden_state))
    try:
        logits = model(**inputs, use_cache=False).logits
    finally:
        hook.remove()
    if not kept:  # OPT's head reads the trunk's decoder itself
        kept.append(trunk(**inputs, use_cache=False).last_hidden_state)
    return logits, kept[-1]


def at_places(call: Callable[..., tuple[Tensor, ...]], batch: Row, places: Tensor, scoring: str) -> tuple[Tensor, ...]:
    """What `call` gives of padded rows, [N, Q, *] each, at places [C] of the batch's row: [C, *] each."""
    layout = cast(FlatLayout, batch.layout).separate()
    parts = []
    for group in layout.groups:
        tokens = batch.tokens[0][group.key_rows]
        # Slots past a row's end repeat its last place.
        lengths = 1 + (group.key_rows[:, 1:] != group.key_rows[:, :-1]).sum(1)
        read = read_alone if scoring == "alone" else read_padded
        parts.append([output.flatten(0, 1) for output in read(call, tokens, lengths)])
    slots = layout.slots[places]
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
    """Rows of one length, read together without padding."""

    rows: Tensor  # [B], which of the decoder's rows they are
    tokens: Tensor  # [B, t], all tokens read so far
    cache: dict[str, Any] | None = None  # the model's own, as its argument; None: all tokens have to be read again


class GenericDecoder:
    """Reads tokens by the policy's own forward pass and cache."""

    compact_below = 0.5  # dropping rows costs reading the others' tokens again

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
        return self._together([self._read_group(group) for group in self._groups])

    def read(self, tokens: Tensor) -> Tensor:
        for group in self._groups:
            group.tokens = torch.cat([group.tokens, tokens[group.rows, None]], 1)
        return self._together([self._read_group(group) for group in self._groups])

    def _read_group(self, group: EqualRows) -> Tensor:
        """[B, V]: the logits after the last token of each row."""
        if self._recomputes:
            return cast(Tensor, self._policy(input_ids=group.tokens, use_cache=False).logits[:, -1])
        tokens = group.tokens if group.cache is None else group.tokens[:, -1:]
        output = self._policy(input_ids=tokens, use_cache=True, **(group.cache or {}))
        group.cache = {name: output[name] for name in CACHES if output.get(name) is not None}
        if not group.cache:
            raise ValueError("the model's output has no cache")
        return cast(Tensor, output.logits[:, -1])

    def _together(self, logits: list[Tensor]) -> Tensor:
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
