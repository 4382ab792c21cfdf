"""Tokens out of a policy, fast: memory for keys and values set aside once, and no work for rows that have ended.

Prompts are read once each without padding, however many completions they get; then every step adds one token to each
row that has not ended. Which tokens a completion gets depends on its seed and number alone, not on what else is in the
batch: token t of completion n is the inverse of its cumulative distribution at the t-th number of a counter-based
generator (Philox, Salmon et al. 2011) keyed by the seed and n. (Logits of different batch sizes may differ in their
last bits, so a draw within about 1e-7 of a boundary can still fall to the other side.)
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from training.learner.models.forward_decoder import Decoder, ForwardDecoder, gather_prompts
from training.learner.models.generic_forward import GenericDecoder, path_of
from training.learner.models.loading import room_of
from training.learner.runtime.jobdir import BadInput
from training.learner.sampling.cuda_graphs import GraphDecoder
from training.learner.sampling.fused_decoder import FusedDecoder, Weights, gather_weights
from training.learner.text.control_tokens import control_tokens, tokens_that_are_no_text

# Multiplications of a step that are worth a thread with rows of its own; and one that shares every product, which waits
# for the others some fifty times a step.
WORTH_A_PART, WORTH_A_THREAD = 2**24, 2**27
ROWS_OF_A_PART = 8  # at least: fewer wait for the weights to come from memory, which every part reads, not for products
Result = TypeVar("Result")


class Completion(NamedTuple):
    """What a policy wrote."""

    tokens: list[int]  # the end token included if there is one
    log_probs: list[float]  # of each token under the distribution it was drawn from, nats
    ended: bool  # with an end token; false: cut off, perhaps by a token that is no text


class Drawing(NamedTuple):
    """How tokens are drawn."""

    max_new_tokens: int
    end_tokens: frozenset[int]  # at which a completion is finished
    temperature: float = 1.0  # divides the logits; 0: the likeliest token, of log-probability 0
    top_p: float = 1.0  # the smallest set of likeliest tokens that holds this probability (Holtzman et al. 2020)
    seed: int = 0
    cut_tokens: frozenset[int] = frozenset()  # at which it stops, unfinished: they are no text, so nothing follows them


def drawing_of(policy: PreTrainedModel, tokenizer: Any, max_new_tokens: int, temperature: float, top_p: float,
               seed: int) -> Drawing:  # fmt: skip
    """Return how completions are drawn that are text: they stop at every token that is none."""
    ends = control_tokens(tokenizer).ends
    others = tokens_that_are_no_text(tokenizer, policy.config.get_text_config().vocab_size) - ends
    return Drawing(max_new_tokens, ends, temperature, top_p, seed, others)


@torch.inference_mode()
def sample(
    policy: PreTrainedModel, prompts: Sequence[Sequence[int]], numbers: Sequence[int], drawing: Drawing, batch: int
) -> list[Completion]:
    """One completion for each prompt, in their order; `numbers` tells completions of one seed apart.

    At most `batch` are written at once, those of like prompt lengths together. Equal prompts in a batch are read once.
    """
    check_room(policy, prompts, drawing.max_new_tokens)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), tuple(prompts[i])))
    completions: dict[int, Completion] = {}
    weights = (
        gather_weights(policy) if path_of(policy).decoding == "packed" else None
    )  # as they are now: nothing trains while this runs

    def write_part(part: Sequence[int]) -> list[Completion]:
        with torch.inference_mode():  # of a thread, as the number of them is
            decoder = decoder_of(policy, weights, [prompts[i] for i in part], drawing.max_new_tokens)
            logits = decoder.read_prompts()  # many tokens at once: by as many threads as there are
            torch.set_num_threads(threads.each)
            return write(decoder, logits, [numbers[i] for i in part], drawing)

    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        threads = threads_for(weights, len(chosen), policy.device)
        parts = divided(chosen, threads.parts)
        for part, written in zip(parts, at_once(write_part, parts), strict=True):
            completions.update(zip(part, written, strict=True))
    return [completions[i] for i in range(len(prompts))]


class Threads(NamedTuple):
    """Of the processor."""

    parts: int  # into which a batch's rows are divided, written at once: rows need nothing of each other
    each: int  # that share the products of a part's steps


def threads_for(weights: Weights | None, rows: int, device: torch.device) -> Threads:
    """As many as there is work for. The slow decoder, which None stands for, is left to PyTorch's own sharing."""
    given = torch.get_num_threads()
    if weights is None or device.type != "cpu":
        return Threads(1, given)
    work = rows * weights.multiplications
    parts = max(1, min(given, rows // ROWS_OF_A_PART, work // WORTH_A_PART))
    return Threads(parts, max(1, min(given // parts, work // parts // WORTH_A_THREAD)))


def divided(chosen: Sequence[int], count: int) -> list[Sequence[int]]:
    """In so many parts of nearly one size, in their order."""
    ends = [len(chosen) * n // count for n in range(count + 1)]
    return [chosen[start:end] for start, end in itertools.pairwise(ends)]


def at_once(work: Callable[[Sequence[int]], Result], parts: Sequence[Sequence[int]]) -> list[Result]:
    """What `work` gives of each part, by an equal share of the processor's threads; it may set their number."""
    given = torch.get_num_threads()
    torch.set_num_threads(given // len(parts))  # of those that begin now, too
    try:
        if len(parts) == 1:
            return [work(parts[0])]
        with ThreadPoolExecutor(len(parts)) as pool:
            return list(pool.map(work, parts))
    finally:
        torch.set_num_threads(given)


def check_room(
    model: Any,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    who: str = "the model",
    remedy: str = "set max_prompt_tokens or max_completion_tokens lower",
) -> None:
    """Raises BadInput when a completion could outgrow the model's positions."""
    room = room_of(model.config)
    needed = max(map(len, prompts), default=0) + new_tokens
    if room is not None and needed > room:
        raise BadInput(f"prompts and completions take up to {needed} tokens, {who} has room for {room}: {remedy}")


def decoder_of(
    policy: PreTrainedModel, weights: Weights | None, prompts: Sequence[Sequence[int]], new_tokens: int
) -> Decoder:
    """A fast one if the policy is of a kind that it knows."""
    path = path_of(policy)
    if path.decoding != "packed":
        return GenericDecoder(policy, prompts, path.decoding)
    gathered = gather_prompts(prompts, policy.device)
    if weights is None:
        return ForwardDecoder(policy, gathered, new_tokens)
    fast = GraphDecoder if policy.device.type == "cuda" else FusedDecoder
    return fast(weights, gathered, new_tokens)


def write(decoder: Decoder, logits: Tensor, numbers: Sequence[int], drawing: Drawing) -> list[Completion]:
    """The completions of a decoder's rows, whose prompts it has read with these logits [B, V]."""
    device = logits.device
    chances = uniform_numbers(drawing.seed, numbers, drawing.max_new_tokens).T.contiguous().to(device)
    tokens = torch.zeros(chances.shape, dtype=torch.long, device=device)
    log_probs = torch.zeros(chances.shape, device=device)

    rows = torch.arange(len(numbers), device=device)  # which completion each row in memory is
    writing = torch.ones_like(rows, dtype=torch.bool)  # whether each row in memory has yet to end
    goes_on = tokens_that_go_on(drawing.end_tokens | drawing.cut_tokens, logits.shape[1], device)
    for step in range(drawing.max_new_tokens):
        drawn, drawn_log_probs = draw(logits, chances[step], drawing)
        tokens[step].index_copy_(0, rows, drawn)
        log_probs[step].index_copy_(0, rows, drawn_log_probs)
        writing &= goes_on[drawn]
        left = int(writing.count_nonzero())
        if left == 0 or step + 1 == drawing.max_new_tokens:
            break
        if left <= decoder.compact_below * len(rows):
            kept = writing.nonzero()[:, 0]
            rows, drawn, writing, chances = rows[kept], drawn[kept], writing[kept], chances[:, kept]
            decoder.keep(kept)
        logits = decoder.read(drawn)
    return list(completions_of(tokens.T, log_probs.T, ~goes_on[tokens.T], drawing.end_tokens))


def tokens_that_go_on(stop_tokens: frozenset[int], vocabulary: int, device: torch.device) -> Tensor:
    """[V]: true but for the tokens that a completion stops at."""
    ends = torch.tensor(sorted(token for token in stop_tokens if token < vocabulary), dtype=torch.long, device=device)
    return torch.ones(vocabulary, dtype=torch.bool, device=device).index_fill_(0, ends, False)


def completions_of(
    tokens: Tensor, log_probs: Tensor, stops: Tensor, end_tokens: frozenset[int]
) -> Iterator[Completion]:
    """Of [B, new tokens] each; what follows a row's first stop is nothing."""
    sizes = torch.where(stops.any(1), stops.int().argmax(1) + 1, tokens.shape[1])
    for row_tokens, row_log_probs, size in zip(tokens.tolist(), log_probs.tolist(), sizes.tolist(), strict=True):
        yield Completion(row_tokens[:size], row_log_probs[:size], row_tokens[size - 1] in end_tokens)


def uniform_numbers(seed: int, numbers: Sequence[int], count: int) -> Tensor:
    """[N, count] float64 in [0, 1), multiples of 2^-32: row n depends on the seed and numbers[n] only."""
    rows = [np.random.Philox(key=seed, counter=[0, 0, number, 0]).random_raw(count) >> 32 for number in numbers]
    return torch.from_numpy(np.stack(rows).astype(np.float64) / 2**32)


def draw(logits: Tensor, chances: Tensor, drawing: Drawing) -> tuple[Tensor, Tensor]:
    """A token for each row of logits [B, V] by its chance [B] in [0, 1), and the token's log-probability [B].

    Logits that are no numbers give some token of log-probability NaN: who uses it can say where that happened.
    """
    logits = logits.float()
    if drawing.temperature == 0:
        highest = logits.max(-1)
        return highest.indices, highest.values - highest.values  # 0; NaN of logits that are not finite
    if drawing.temperature != 1:
        logits = logits / drawing.temperature
    if drawing.top_p < 1:
        probabilities = keep_likeliest(F.log_softmax(logits, -1), drawing.top_p).exp()
    else:
        probabilities = logits.softmax(-1)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    # `right`: the first token whose cumulative probability exceeds the chance, so none of probability 0 is ever drawn.
    tokens = torch.searchsorted(cumulative, (chances * cumulative[:, -1])[:, None], right=True)
    tokens = tokens.clamp(max=logits.shape[1] - 1)  # nothing exceeds NaN: then any token, whose log-probability is NaN
    return tokens[:, 0], probabilities.gather(1, tokens)[:, 0].log()


def keep_likeliest(log_probs: Tensor, top_p: float) -> Tensor:
    """The nucleus of each row, normalised; -inf elsewhere. The likeliest token is always in it."""
    ordered, order = log_probs.sort(-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    kept = torch.zeros_like(log_probs, dtype=torch.bool).scatter(1, order, before < top_p)
    kept.scatter_(1, order[:, :1], True)
    return F.log_softmax(log_probs.masked_fill(~kept, float("-inf")), -1)
