"""Tokens out of a policy, fast: memory for keys and values set aside once, and no work for rows that have ended.

Prompts are read once each without padding, however many completions they get; then every step adds one token to each
row that has not ended. Which tokens a completion gets depends on its seed and number alone, not on what else is in the
batch: token t of completion n is the inverse of its cumulative distribution at the t-th number of a counter-based
generator (Philox, Salmon et al. 2011) keyed by the seed and n. (Logits of different batch sizes may differ in their
last bits, so a draw within about 1e-7 of a boundary can still fall to the other side.)
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from training.learner.flat import AttentionRules, FlatLayout, flatten, forward_flat, scaled_attention
from training.learner.jobdir import BadInput

COMPACT_BELOW = 0.75  # rows still writing, as a share of those in memory, at which the others' memory is dropped


class Completion(NamedTuple):
    """What a policy wrote."""

    tokens: list[int]  # the end token included if there is one
    log_probs: list[float]  # of each token under the distribution it was drawn from, nats
    ended: bool  # with an end token; false: cut off


class Drawing(NamedTuple):
    """How tokens are drawn."""

    max_new_tokens: int
    end_tokens: frozenset[int]
    temperature: float = 1.0  # divides the logits; 0: the likeliest token, of log-probability 0
    top_p: float = 1.0  # the smallest set of likeliest tokens that holds this probability (Holtzman et al. 2020)
    seed: int = 0


def sample(
    policy: PreTrainedModel, prompts: Sequence[Sequence[int]], numbers: Sequence[int], drawing: Drawing, batch: int
) -> list[Completion]:
    """One completion for each prompt, in their order; `numbers` tells completions of one seed apart.

    At most `batch` are written at once, those of like prompt lengths together. Equal prompts in a batch are read once.
    """
    check_room(policy, prompts, drawing.max_new_tokens)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), tuple(prompts[i])))
    completions: dict[int, Completion] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        written = sample_batch(policy, [prompts[i] for i in chosen], [numbers[i] for i in chosen], drawing)
        completions.update(zip(chosen, written, strict=True))
    return [completions[i] for i in range(len(prompts))]


def check_room(policy: PreTrainedModel, prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
    """Raises BadInput when a completion could outgrow the model's positions."""
    room = getattr(policy.config, "max_position_embeddings", None)
    needed = max(map(len, prompts), default=0) + new_tokens
    if room is not None and needed > room:
        raise BadInput(f"prompts and completions take up to {needed} tokens, the model has room for {room}")


@torch.inference_mode()
def sample_batch(
    policy: PreTrainedModel, prompts: Sequence[Sequence[int]], numbers: Sequence[int], drawing: Drawing
) -> list[Completion]:
    """The completions of one batch."""
    device = policy.device
    end_tokens = torch.tensor(sorted(drawing.end_tokens), device=device)
    chances = uniform_numbers(drawing.seed, numbers, drawing.max_new_tokens).to(device)
    tokens = torch.zeros(chances.shape, dtype=torch.long, device=device)
    log_probs = torch.zeros(chances.shape, device=device)
    sizes = torch.full([len(prompts)], drawing.max_new_tokens, device=device)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)

    rows = torch.arange(len(prompts), device=device)  # which completion each row in memory is
    memory, logits = read_prompts(policy, prompts, drawing.max_new_tokens)
    for step in range(drawing.max_new_tokens):
        drawn, tokens_log_probs = draw(logits, chances[rows, step], drawing)
        tokens[rows, step], log_probs[rows, step] = drawn, tokens_log_probs
        ending = torch.isin(drawn, end_tokens)
        newly = rows[ending & ~ended[rows]]
        sizes[newly], ended[newly] = step + 1, True
        writing = ~ended[rows]
        left = int(writing.sum())
        if left == 0 or step + 1 == drawing.max_new_tokens:
            break
        if left <= COMPACT_BELOW * len(rows):
            kept = writing.nonzero()[:, 0]
            rows, drawn = rows[kept], drawn[kept]
            memory.keep(kept)
        logits = next_logits(policy, memory, drawn)
    return list(completions_of(tokens, log_probs, sizes, ended))


def completions_of(tokens: Tensor, log_probs: Tensor, sizes: Tensor, ended: Tensor) -> Iterator[Completion]:
    columns = zip(tokens.tolist(), log_probs.tolist(), sizes.tolist(), ended.tolist(), strict=True)
    for row_tokens, row_log_probs, size, has_ended in columns:
        yield Completion(row_tokens[:size], row_log_probs[:size], has_ended)


def uniform_numbers(seed: int, numbers: Sequence[int], count: int) -> Tensor:
    """[N, count] float64 in [0, 1), multiples of 2^-32: row n depends on the seed and numbers[n] only."""
    rows = [np.random.Philox(key=seed, counter=[0, 0, number, 0]).random_raw(count) >> 32 for number in numbers]
    return torch.from_numpy(np.stack(rows).astype(np.float64) / 2**32)


def draw(logits: Tensor, chances: Tensor, drawing: Drawing) -> tuple[Tensor, Tensor]:
    """A token for each row of logits [B, V] by its chance [B] in [0, 1), and the token's log-probability [B]."""
    logits = logits.float()
    if drawing.temperature == 0:
        return logits.argmax(-1), torch.zeros(len(logits), device=logits.device)
    log_probs = F.log_softmax(logits / drawing.temperature, -1)
    if drawing.top_p < 1:
        log_probs = keep_likeliest(log_probs, drawing.top_p)
    cumulative = log_probs.exp().cumsum(-1, dtype=torch.float64)
    # `right`: the first token whose cumulative probability exceeds the chance, so none of probability 0 is ever drawn.
    tokens = torch.searchsorted(cumulative, (chances * cumulative[:, -1])[:, None], right=True)
    return tokens[:, 0], log_probs.gather(1, tokens)[:, 0]


def keep_likeliest(log_probs: Tensor, top_p: float) -> Tensor:
    """The nucleus of each row, normalised; -inf elsewhere. The likeliest token is always in it."""
    ordered, order = log_probs.sort(-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    kept = torch.zeros_like(log_probs, dtype=torch.bool).scatter(1, order, before < top_p)
    kept.scatter_(1, order[:, :1], True)
    return F.log_softmax(log_probs.masked_fill(~kept, float("-inf")), -1)


def read_prompts(
    policy: PreTrainedModel, prompts: Sequence[Sequence[int]], new_tokens: int
) -> tuple["KeyValueMemory", Tensor]:
    """Fills a memory with the prompts, each distinct one read once; gives the logits [B, V] after each."""
    distinct = list(dict.fromkeys(map(tuple, prompts)))
    flat = flatten(distinct, policy.device)
    memory = KeyValueMemory(flat.layout, flat.lengths, new_tokens)  # type: ignore[arg-type]
    ends = flat.starts + flat.lengths - 1
    logits = forward_flat(policy, flat._replace(layout=memory), logits_to_keep=ends).logits[0]
    places = {prompt: place for place, prompt in enumerate(distinct)}
    copies = torch.tensor([places[tuple(prompt)] for prompt in prompts], device=policy.device)
    if len(distinct) < len(prompts):
        memory.keep(copies)
    memory.begin_steps()
    return memory, logits[copies] if len(distinct) < len(prompts) else logits


def next_logits(policy: PreTrainedModel, memory: "KeyValueMemory", tokens: Tensor) -> Tensor:
    """[B, V]: reads one more token [B] of each row in memory."""
    memory.begin_step()
    output = policy(
        input_ids=tokens[None], position_ids=memory.positions[None], layout=memory, use_cache=False, logits_to_keep=0
    )
    return output.logits[0]


class KeyValueMemory:
    """The keys and values of every layer, and the layout by which a step's tokens attend to them.

    A layer's keys are [B, room, key heads, d]: row b holds positions 0 … lengths[b] − 1 from the left. While prompts
    are read it only keeps what passes through; then each step adds one token a row.
    """

    def __init__(self, prompts: FlatLayout, lengths: Tensor, new_tokens: int) -> None:
        self._prompts: FlatLayout | None = prompts
        self._lengths = lengths
        self._room = int(lengths.max()) + new_tokens
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self.positions = lengths - 1  # [B], of the token being read

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: AttentionRules) -> Tensor:
        if self._prompts is not None:
            self._keys[layer], self._values[layer] = self._set_aside(key), self._set_aside(value)
            return self._prompts.attend(layer, query, key, value, rules)
        keys, values = self._keys[layer], self._values[layer]
        keys.view(-1, *keys.shape[2:])[self._writes] = key[0].transpose(0, 1)
        values.view(-1, *values.shape[2:])[self._writes] = value[0].transpose(0, 1)
        return self._attend_rows(query, keys, values, rules)

    def _attend_rows(self, query: Tensor, keys: Tensor, values: Tensor, rules: AttentionRules) -> Tensor:
        """[1, B, heads, d]. The query heads that share a key head go in as so many queries of one head."""
        heads, key_heads = query.shape[1], keys.shape[2]
        q = query[0].transpose(0, 1).unflatten(1, (key_heads, heads // key_heads))
        mask = self._mask
        if rules.window is not None:
            mask = (
                mask
                & (torch.arange(self._width, device=mask.device) > (self.positions - rules.window)[:, None])[
                    :, None, None
                ]
            )
        k, v = (states[:, : self._width].transpose(1, 2) for states in (keys, values))
        return scaled_attention(q, k, v, mask, rules._replace(window=None)).flatten(1, 2)[None]

    def _set_aside(self, states: Tensor) -> Tensor:
        """Room for [1, key heads, T, d] of the prompts and the tokens to come, the prompts' in place."""
        rows = states.new_zeros(len(self._lengths), self._room, states.shape[1], states.shape[3])
        present = torch.arange(self._room, device=states.device) < self._lengths[:, None]
        rows[present] = states[0].transpose(0, 1)
        return rows

    def keep(self, rows: Tensor) -> None:
        """Drops, repeats or reorders rows."""
        self._lengths, self.positions = self._lengths[rows], self.positions[rows]
        for states in (self._keys, self._values):
            for layer in states:
                states[layer] = states[layer][rows]

    def begin_steps(self) -> None:
        """The prompts are read."""
        self._prompts = None

    def begin_step(self) -> None:
        """Makes place for one token a row."""
        self.positions = self.positions + 1
        self._width = int(self.positions.max()) + 1
        self._writes = torch.arange(len(self.positions), device=self.positions.device) * self._room + self.positions
        columns = torch.arange(self._width, device=self.positions.device)
        self._mask = (columns <= self.positions[:, None])[:, None, None]
