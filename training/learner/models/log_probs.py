"""Log-probabilities of given tokens from last hidden states, without a second copy of the vocabulary's width.

Logits of a few rows at a time are turned into log-probabilities and those into probabilities while they are in the
cache; what the gradient needs of them, the probabilities, is all that is kept, and the gradient is made in its place.
"""

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# On a processor, for its caches:
CHUNK = 1 << 21  # logits from one product, 8 MiB; or
LEAST = 64  # rows, where they are more: for fewer a large vocabulary's matrix would be read again and again
SLICE = 512  # of the vocabulary
BLOCK = 1 << 17  # logits turned into probabilities at once
# On a GPU, which wants few and large operations:
GPU_CHUNK = 1 << 27  # logits, 512 MiB


class TokenScores(NamedTuple):
    """Of every completion token, all completions end to end."""

    log_probs: Tensor  # [C] float32, nats
    entropy: Tensor  # [C] float32, nats, of the distribution the token was drawn from


def token_scores(states: Tensor, head: Tensor, tokens: Tensor, temperature: float, with_entropy: bool) -> TokenScores:
    """Of tokens [C] under softmax(states · headᵀ / temperature), states [C, E] and head [V, E].

    Entropy is zeros if not asked for.
    """
    if torch.is_autocast_enabled(states.device.type):
        dtype = torch.get_autocast_dtype(states.device.type)
        states, head = states.to(dtype), head.to(dtype)
    if temperature != 1.0:
        states = states / temperature
    return TokenScores(*cast(tuple[Tensor, Tensor], _TokenScores.apply(states, head, tokens, with_entropy)))


class _TokenScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, tokens: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        learns = any(ctx.needs_input_grad)
        log_probs = torch.empty(len(tokens), device=states.device)
        entropy = torch.zeros_like(log_probs)
        rows = max(CHUNK // len(head), LEAST) if head.device.type == "cpu" else max(GPU_CHUNK // len(head), 1)
        kept = len(tokens) if learns else min(rows, len(tokens))
        probabilities = states.new_empty(kept, len(head), dtype=torch.float32)
        for start in range(0, len(tokens), rows):
            part = slice(start, start + rows)
            places = probabilities[part] if learns else probabilities[: len(tokens) - start]
            write_logits(states[part], head, places)
            read_logits(places, tokens[part], log_probs[part], entropy[part] if with_entropy else None, learns)
        ctx.save_for_backward(states, head, tokens, entropy.neg_(), probabilities if learns else None)
        return log_probs, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor | None, entropy_gradient: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Of logits z: ∂ log p(token) / ∂z = onehot − p; ∂H / ∂z = −p·(log p + H). In the probabilities' place."""
        states, head, tokens, entropy, probabilities = ctx.saved_tensors
        gradient = torch.zeros_like(entropy) if gradient is None else gradient
        surprise, factor = None, gradient
        if entropy_gradient is not None:
            surprise = torch.special.entr(probabilities).mul_(entropy_gradient[:, None])
            factor = gradient + entropy_gradient * entropy
        logits = probabilities.mul_(-factor[:, None])
        logits[torch.arange(len(tokens), device=tokens.device), tokens] += gradient
        logits = (logits if surprise is None else logits.add_(surprise)).to(head.dtype)
        return (
            logits @ head if ctx.needs_input_grad[0] else None,
            logits.T @ states if ctx.needs_input_grad[1] else None,
            None,
            None,
        )


def write_logits(states: Tensor, head: Tensor, logits: Tensor) -> None:
    """states · headᵀ [N, V] in place; on a processor in slices, as its matrix library packs a copy of what it reads."""
    width = SLICE if head.device.type == "cpu" else len(head)
    for start in range(0, len(head), width):
        part = slice(start, start + width)
        if logits.dtype == states.dtype:
            torch.mm(states, head[part].mT, out=logits[:, part])
        else:
            logits[:, part] = states @ head[part].mT


def read_logits(logits: Tensor, tokens: Tensor, log_probs: Tensor, entropy: Tensor | None, learns: bool) -> None:
    """The tokens' log-probabilities and the entropy go where told; for learning, logits become probabilities in place.

    On a processor some rows at a time, which stay in the cache.
    """
    rows = max(BLOCK // logits.shape[1], 1) if logits.device.type == "cpu" else len(logits)
    for start in range(0, len(logits), rows):
        part = slice(start, start + rows)
        of_all = F.log_softmax(logits[part], -1)
        log_probs[part] = of_all.gather(1, tokens[part, None])[:, 0]
        if learns or entropy is not None:
            torch.exp(of_all, out=logits[part])
        if entropy is not None:
            entropy[part] = torch.bmm(logits[part, None], of_all[:, :, None])[:, 0, 0]
