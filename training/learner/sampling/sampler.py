"""Sampling completions from a policy, with a preallocated KV cache and no work for rows that have finished.

Each distinct prompt is read once, without padding; then every step adds one token to each unfinished row. The tokens of
a completion depend on its seed and number alone, not on the rest of the batch: token t of completion n is the inverse
CDF at the t-th output of a counter-based generator (Philox, Salmon et al. 2011) keyed by the seed and n. Logits of
different batch sizes may differ in their last bits, so a uniform number within about 1e-7 of a boundary can still give
the neighbouring token.
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

from training.learner.models.context_length import max_positions
from training.learner.models.forward_decoder import Decoder, ForwardDecoder, gather_prompts
from training.learner.models.generic_forward import GenericDecoder, path_of
from training.learner.runtime.jobdir import BadInput
from training.learner.sampling.cuda_graphs import GraphDecoder
from training.learner.sampling.fused_decoder import FusedDecoder
from training.learner.sampling.fused_weights import Weights, gather_weights
from training.learner.text.control_tokens import control_tokens, non_text_tokens

# Multiplications of a step from which a further thread pays off: one with rows of its own (MIN_PER_PART), or one that
# shares every product and so waits for the others about fifty times a step (MIN_PER_THREAD).
MIN_PER_PART, MIN_PER_THREAD = 2**24, 2**27
MIN_ROWS_PER_PART = 8  # with fewer rows a step is bound by reading the weights, which every part reads
Result = TypeVar("Result")


class Completion(NamedTuple):
    """A sampled completion."""

    tokens: list[int]  # with the EOS token if there is one
    log_probs: list[float]  # of each token under the distribution it was drawn from, nats
    finished: bool  # by an end token; false: truncated, by the length limit or by a token that is no text


class SamplingParams(NamedTuple):
    """Sampling parameters."""

    max_new_tokens: int
    end_tokens: frozenset[int]  # a completion that samples one is finished
    temperature: float = 1.0  # divides the logits; 0: greedy, with log-probability 0
    top_p: float = 1.0  # the smallest set of most likely tokens that holds this probability (Holtzman et al. 2020)
    seed: int = 0
    cut_tokens: frozenset[int] = frozenset()  # a completion that samples one is truncated: the token is no text


def sampling_params_for(policy: PreTrainedModel, tokenizer: Any, max_new_tokens: int, temperature: float, top_p: float,
               seed: int) -> SamplingParams:  # fmt: skip
    """Return parameters for completions that are text: they stop at every token that is no text."""
    ends = control_tokens(tokenizer).ends
    others = non_text_tokens(tokenizer, policy.config.get_text_config().vocab_size) - ends
    return SamplingParams(max_new_tokens, ends, temperature, top_p, seed, others)


@torch.inference_mode()
def sample(
    policy: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    numbers: Sequence[int],
    params: SamplingParams,
    batch: int,
) -> list[Completion]:
    """Return one completion for each prompt, in order. `numbers` distinguishes completions with the same seed.

    At most `batch` rows are decoded together, sorted by prompt length. Equal prompts of a batch are read once. Raises
    BadInput if a completion could exceed the model's positions.
    """
    check_positions(policy, prompts, params.max_new_tokens)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), tuple(prompts[i])))
    completions: dict[int, Completion] = {}
    weights = gather_weights(policy)  # current ones: nothing trains while this runs

    def write_part(part: Sequence[int]) -> list[Completion]:
        with torch.inference_mode():  # of a thread, as the number of them is
            decoder = choose_decoder(policy, weights, [prompts[i] for i in part], params.max_new_tokens)
            logits = decoder.read_prompts()  # many tokens: all threads share it
            torch.set_num_threads(threads.per_part)
            return write(decoder, logits, [numbers[i] for i in part], params)

    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        threads = threads_for(weights, len(chosen), policy.device)
        parts = divided(chosen, threads.parts)
        for part, written in zip(parts, at_once(write_part, parts), strict=True):
            completions.update(zip(part, written, strict=True))
    return [completions[i] for i in range(len(prompts))]


class Threads(NamedTuple):
    """Division of a batch among CPU threads."""

    parts: int  # groups of rows that are decoded in parallel: rows do not depend on one another
    per_part: int  # threads that share the products of one part


def threads_for(weights: Weights | None, rows: int, device: torch.device) -> Threads:
    """Return the number of threads that the work is worth. Without fused weights, PyTorch divides the work itself."""
    available = torch.get_num_threads()
    if weights is None or device.type != "cpu":
        return Threads(1, available)
    work = rows * weights.multiplications
    parts = max(1, min(available, rows // MIN_ROWS_PER_PART, work // MIN_PER_PART))
    return Threads(parts, max(1, min(available // parts, work // parts // MIN_PER_THREAD)))


def divided(chosen: Sequence[int], count: int) -> list[Sequence[int]]:
    """Split into `count` parts of nearly equal size, in order."""
    ends = [len(chosen) * n // count for n in range(count + 1)]
    return [chosen[start:end] for start, end in itertools.pairwise(ends)]


def at_once(work: Callable[[Sequence[int]], Result], parts: Sequence[Sequence[int]]) -> list[Result]:
    """Run `work` on every part in parallel and return the results. Each part gets an equal share of the CPU threads."""
    available = torch.get_num_threads()
    torch.set_num_threads(available // len(parts))  # also applies to the threads started below
    try:
        if len(parts) == 1:
            return [work(parts[0])]
        with ThreadPoolExecutor(len(parts)) as pool:
            return list(pool.map(work, parts))
    finally:
        torch.set_num_threads(available)


def check_positions(
    model: Any,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    who: str = "the model",
    remedy: str = "set max_prompt_tokens or max_completion_tokens lower",
) -> None:
    """Raise BadInput if a prompt with its completion could exceed the model's positions."""
    room = max_positions(model.config)
    needed = max(map(len, prompts), default=0) + new_tokens
    if room is not None and needed > room:
        raise BadInput(f"prompts and completions take up to {needed} tokens, {who} has room for {room}: {remedy}")


def fewest_positions(*models: Any) -> int | None:
    """Return the positions of the model with the fewest; None if all are unlimited. None as a model is left out."""
    rooms = [max_positions(model.config) for model in models if model is not None]
    return min((room for room in rooms if room is not None), default=None)


def choose_decoder(
    policy: PreTrainedModel, weights: Weights | None, prompts: Sequence[Sequence[int]], new_tokens: int
) -> Decoder:
    """Return the fastest decoder that is exact for this policy. weights: None if the fused step may not be used."""
    if weights is not None:
        fused = GraphDecoder if policy.device.type == "cuda" else FusedDecoder
        return fused(weights, gather_prompts(prompts, policy.device), new_tokens)
    path = path_of(policy)
    if path.decoding != "packed":
        return GenericDecoder(policy, prompts, path.decoding)
    return ForwardDecoder(policy, gather_prompts(prompts, policy.device), new_tokens)


def write(decoder: Decoder, logits: Tensor, numbers: Sequence[int], params: SamplingParams) -> list[Completion]:
    """Decode the rows of a decoder that has read its prompts and gave these logits [B, V]."""
    device = logits.device
    uniforms = uniform_numbers(params.seed, numbers, params.max_new_tokens).T.contiguous().to(device)
    tokens = torch.zeros(uniforms.shape, dtype=torch.long, device=device)
    log_probs = torch.zeros(uniforms.shape, device=device)

    rows = torch.arange(len(numbers), device=device)  # the completion of each row in the KV cache
    writing = torch.ones_like(rows, dtype=torch.bool)  # whether each row in the KV cache is unfinished
    goes_on = tokens_that_go_on(params.end_tokens | params.cut_tokens, logits.shape[1], device)
    for step in range(params.max_new_tokens):
        drawn, drawn_log_probs = sample_tokens(logits, uniforms[step], params)
        tokens[step].index_copy_(0, rows, drawn)
        log_probs[step].index_copy_(0, rows, drawn_log_probs)
        writing &= goes_on[drawn]
        left = int(writing.count_nonzero())
        if left == 0 or step + 1 == params.max_new_tokens:
            break
        if left <= decoder.compact_below * len(rows):
            kept = writing.nonzero()[:, 0]
            rows, drawn, writing, uniforms = rows[kept], drawn[kept], writing[kept], uniforms[:, kept]
            decoder.keep(kept)
        logits = decoder.read(drawn)
    return list(completions_of(tokens.T, log_probs.T, ~goes_on[tokens.T], params.end_tokens))


def tokens_that_go_on(stop_tokens: frozenset[int], vocabulary: int, device: torch.device) -> Tensor:
    """Return a mask [V] that is false at the tokens at which a completion stops."""
    ends = torch.tensor(sorted(token for token in stop_tokens if token < vocabulary), dtype=torch.long, device=device)
    return torch.ones(vocabulary, dtype=torch.bool, device=device).index_fill_(0, ends, False)


def completions_of(
    tokens: Tensor, log_probs: Tensor, stops: Tensor, end_tokens: frozenset[int]
) -> Iterator[Completion]:
    """Yield the completions of [B, new tokens] arrays, each cut after its first stop token."""
    sizes = torch.where(stops.any(1), stops.int().argmax(1) + 1, tokens.shape[1])
    for row_tokens, row_log_probs, size in zip(tokens.tolist(), log_probs.tolist(), sizes.tolist(), strict=True):
        yield Completion(row_tokens[:size], row_log_probs[:size], row_tokens[size - 1] in end_tokens)


def uniform_numbers(seed: int, numbers: Sequence[int], count: int) -> Tensor:
    """Return [N, count] float64 in [0, 1), multiples of 2^-32. Row n depends only on the seed and numbers[n]."""
    rows = [np.random.Philox(key=seed, counter=[0, 0, number, 0]).random_raw(count) >> 32 for number in numbers]
    return torch.from_numpy(np.stack(rows).astype(np.float64) / 2**32)


def sample_tokens(logits: Tensor, uniforms: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Sample a token for each row of logits [B, V] with uniform numbers [B], and return its log-probability [B].

    NaN logits give an arbitrary token with log-probability NaN, so that the caller can report where it happened.
    """
    logits = logits.float()
    if params.temperature == 0:
        highest = logits.max(-1)
        return highest.indices, highest.values - highest.values  # 0; NaN of logits that are not finite
    if params.temperature != 1:
        logits = logits / params.temperature
    probabilities = nucleus(F.log_softmax(logits, -1), params.top_p).exp() if params.top_p < 1 else logits.softmax(-1)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    # `right`: the first token whose cumulative probability exceeds the uniform number, never one of probability 0.
    tokens = torch.searchsorted(cumulative, (uniforms * cumulative[:, -1])[:, None], right=True)
    tokens = tokens.clamp(max=logits.shape[1] - 1)  # with NaN nothing exceeds: any token, log-probability NaN
    return tokens[:, 0], probabilities.gather(1, tokens)[:, 0].log()


def nucleus(log_probs: Tensor, top_p: float) -> Tensor:
    """Return normalised log-probs of the nucleus of each row (Holtzman et al. 2020), −inf elsewhere.

    The most likely token is always in it.
    """
    ordered, order = log_probs.sort(-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    kept = torch.zeros_like(log_probs, dtype=torch.bool).scatter(1, order, before < top_p)
    kept.scatter_(1, order[:, :1], True)
    return F.log_softmax(log_probs.masked_fill(~kept, float("-inf")), -1)
