"""Log-probs of tokens from last hidden states, without a second copy of the logits.

Some rows of logits at a time become log-probs and then probabilities while they are in the CPU cache. Only the
probabilities are kept for the gradient, which is computed in their memory.
"""

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# On a CPU, chosen for its caches:
CHUNK_LOGITS = 1 << 21  # logits of one matrix product, 8 MiB
MIN_CHUNK_ROWS = 64  # at least these rows, since every product reads the whole vocabulary matrix
VOCABULARY_SLICE = 512  # vocabulary entries of one matrix product
SOFTMAX_LOGITS = 1 << 17  # logits of one softmax
# On a GPU, where few large operations are faster:
GPU_CHUNK_LOGITS = 1 << 27  # 512 MiB


class TokenScores(NamedTuple):
    """Log-probs and entropy of completion tokens, all completions end to end."""

    log_probs: Tensor  # [C] float32, nats
    entropy: Tensor  # [C] float32, nats, of the distribution that the token was sampled from


def token_scores(
    states: Tensor, head: Tensor, tokens: Tensor, temperature: float, with_entropy: bool, keeps: bool = True
) -> TokenScores:
    """Return scores of tokens [C] under softmax(states · headᵀ / temperature), with states [C, E] and head [V, E].

    The entropy is zeros without `with_entropy`. keeps: keep the probabilities [C, V] for the gradient; otherwise it
    computes them again, some rows at a time.
    """
    if torch.is_autocast_enabled(states.device.type):
        dtype = torch.get_autocast_dtype(states.device.type)
        states, head = states.to(dtype), head.to(dtype)
    if temperature != 1.0:
        states = states / temperature
    return TokenScores(*cast(tuple[Tensor, Tensor], _TokenScores.apply(states, head, tokens, with_entropy, keeps)))


class _TokenScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, head: Tensor, tokens: Tensor, with_entropy: bool, keeps: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        learns = keeps and any(ctx.needs_input_grad)
        log_probs = torch.empty(len(tokens), device=states.device)
        entropy = torch.zeros_like(log_probs)
        rows = chunk_rows(head)
        kept = len(tokens) if learns else min(rows, len(tokens))
        probabilities = states.new_empty(kept, len(head), dtype=torch.float32)
        for start in range(0, len(tokens), rows):
            part = slice(start, start + rows)
            logits = probabilities[part] if learns else probabilities[: len(tokens) - start]
            write_logits(states[part], head, logits)
            read_logits(logits, tokens[part], log_probs[part], entropy[part] if with_entropy else None, learns)
        ctx.save_for_backward(states, head, tokens, entropy.neg_(), probabilities if learns else None)
        return log_probs, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor | None, entropy_gradient: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Compute the gradient in the memory of the probabilities, all at once or some rows at a time.

        For logits z: ∂ log p(token) / ∂z = onehot − p and ∂H / ∂z = −p·(log p + H).
        """
        states, head, tokens, entropy, probabilities = ctx.saved_tensors
        gradient = torch.zeros_like(entropy) if gradient is None else gradient
        needs_states, needs_head = ctx.needs_input_grad[:2]
        of_states = torch.empty_like(states) if needs_states else None
        of_head: Tensor | None = None
        rows = max(len(tokens), 1) if probabilities is not None else chunk_rows(head)
        for start in range(0, len(tokens), rows):
            part = slice(start, start + rows)
            softmax = probabilities if probabilities is not None else probabilities_of(states[part], head)
            along = None if entropy_gradient is None else entropy_gradient[part]
            logits = logits_gradient(softmax, tokens[part], gradient[part], along, entropy[part]).to(head.dtype)
            if of_states is not None:
                torch.mm(logits, head, out=of_states[part])
            if needs_head:
                of_head = logits.T @ states[part] if of_head is None else of_head.addmm_(logits.T, states[part])
        if needs_head and of_head is None:  # no tokens
            of_head = torch.zeros_like(head)
        return of_states, of_head, None, None, None


def chunk_rows(head: Tensor) -> int:
    """Return the number of rows whose logits are computed at a time."""
    if head.device.type == "cpu":
        return max(CHUNK_LOGITS // len(head), MIN_CHUNK_ROWS)
    return max(GPU_CHUNK_LOGITS // len(head), 1)


def probabilities_of(states: Tensor, head: Tensor) -> Tensor:
    """Return softmax(states · headᵀ), [N, V] float32."""
    logits = states.new_empty(len(states), len(head), dtype=torch.float32)
    write_logits(states, head, logits)
    unused = logits.new_empty(len(states))
    read_logits(logits, torch.zeros(len(states), dtype=torch.int64, device=states.device), unused, None, learns=True)
    return logits


def logits_gradient(
    probabilities: Tensor, tokens: Tensor, gradient: Tensor, entropy_gradient: Tensor | None, negative_entropy: Tensor
) -> Tensor:
    """Return the gradient of the logits [N, V], in the memory of the probabilities.

    gradient, entropy_gradient [N]: those of the log-probs of the tokens, and of the entropy.
    """
    surprise, factor = None, gradient
    if entropy_gradient is not None:
        surprise = torch.special.entr(probabilities).mul_(entropy_gradient[:, None])
        factor = gradient + entropy_gradient * negative_entropy
    logits = probabilities.mul_(-factor[:, None])
    logits[torch.arange(len(tokens), device=tokens.device), tokens] += gradient
    return logits if surprise is None else logits.add_(surprise)


def write_logits(states: Tensor, head: Tensor, logits: Tensor) -> None:
    """Write states · headᵀ [N, V] into logits; on a CPU in slices, because its matrix library copies its operands."""
    width = VOCABULARY_SLICE if head.device.type == "cpu" else len(head)
    for start in range(0, len(head), width):
        part = slice(start, start + width)
        if logits.dtype == states.dtype:
            torch.mm(states, head[part].mT, out=logits[:, part])
        else:
            logits[:, part] = states @ head[part].mT


def read_logits(logits: Tensor, tokens: Tensor, log_probs: Tensor, entropy: Tensor | None, learns: bool) -> None:
    """Write log-probs and entropy of the tokens into their tensors; for learning, logits become probabilities.

    On a CPU a few rows at a time, which stay in the cache.
    """
    rows = max(SOFTMAX_LOGITS // logits.shape[1], 1) if logits.device.type == "cpu" else len(logits)
    for start in range(0, len(logits), rows):
        part = slice(start, start + rows)
        of_all = F.log_softmax(logits[part], -1)
        log_probs[part] = of_all.gather(1, tokens[part, None])[:, 0]
        if learns or entropy is not None:
            torch.exp(of_all, out=logits[part])
        if entropy is not None:
            entropy[part] = torch.bmm(logits[part, None], of_all[:, :, None])[:, 0, 0]
