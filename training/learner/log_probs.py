"""Log-probabilities of given tokens from last hidden states, without a second copy of the vocabulary's width.

Logits of a few rows at a time are turned into log-probabilities and those into probabilities while they are in the
cache; what the gradient needs of them, the probabilities, is all that is kept, and the gradient is made in its place.
"""

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 1 << 19  # logits at once: 2 MiB


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
        probabilities = states.new_empty(len(tokens) if learns else 0, len(head), dtype=torch.float32)
        rows = max(CHUNK // len(head), 1)
        for start in range(0, len(tokens), rows):
            part = slice(start, start + rows)
            of_all = F.log_softmax(F.linear(states[part], head).float(), -1)
            log_probs[part] = of_all.gather(1, tokens[part, None])[:, 0]
            if learns or with_entropy:
                chances = torch.exp(of_all, out=probabilities[part]) if learns else of_all.exp()
                if with_entropy:
                    torch.linalg.vecdot(chances, of_all, out=entropy[part])
        ctx.save_for_backward(states, head, tokens, entropy.neg_(), probabilities)
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
