"""Value network: a trunk with the state value V(s) and two dueling action values Q(s, a) of every token a.

The trunk is a copy of the policy, not the policy's own: the losses of the values would change the policy, which is
learned by likelihood alone and must be an ordinary model afterwards. With LoRA the copy is an adapter on the same base.

Dueling (Wang et al. 2016, equation 9): Q(s, a) = L(s) + A(s, a) − mean over tokens b of A(s, b). The advantage is
A(s, a) = w_a · D h(s), with a matrix D [E, E] for each head and the language model's output embedding w_a of the token.
So a head needs no matrix of the vocabulary's size, and what the head learns about a token also applies to tokens with a
similar embedding. L and V start at 0, D near 0 with another seed for each head.

Two heads (van Hasselt 2010; Fujimoto et al. 2018, "TD3", equation 10): the lower one of both is used as target, because
the higher one is more often an overestimate.
"""

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.learner.models.log_probs import CHUNK_LOGITS, token_scores
from training.learner.models.lora import AdapterView
from training.learner.models.packing import PackedEpisodes
from training.learner.models.partial_forward import states_at

HEADS = 2
FIRST_DEVIATION = 0.01  # of the entries of D, times 1 / √E


class StateOutputs(NamedTuple):
    """Outputs at the C states before completion tokens, float32. Q(s, a) follows from them by `action_values`."""

    values: Tensor  # V [C]
    levels: Tensor  # L of each Q head, [H, C]
    directions: Tensor  # D h(s) of each Q head, [H, C, E]
    tokens: Tensor  # the completion tokens [C]


class ValueNetwork(nn.Module):
    """State value and two Q heads on a trunk: a causal language model, or a LoRA view of one."""

    def __init__(self, trunk: Any, seed: int) -> None:
        super().__init__()
        self.trunk = trunk
        width = trunk.config.get_text_config().hidden_size
        self.scalars = nn.Linear(width, 1 + HEADS)  # V, and L of each Q head
        self.directions = nn.Linear(width, HEADS * width, bias=False)  # D of each Q head, stacked
        with torch.no_grad():
            for parameter in self.scalars.parameters():
                parameter.zero_()
            noise = torch.randn(self.directions.weight.shape, generator=torch.Generator().manual_seed(seed))
            self.directions.weight.copy_(noise * (FIRST_DEVIATION / width**0.5))
        self.to(trunk.device)

    @property
    def embedding(self) -> Tensor:
        """The output embedding w [vocabulary, E]."""
        model = self.trunk.base.model if isinstance(self.trunk, AdapterView) else self.trunk
        return cast(Tensor, model.get_output_embeddings().weight)

    def read(self, batch: PackedEpisodes) -> StateOutputs:
        """Return the outputs at the states of all completion tokens, by one pass over the trunk."""
        states = states_at(self.trunk, batch, batch.decisions)
        with torch.autocast(states.device.type, enabled=False):
            scalars, directions = self.scalars(states.float()), self.directions(states.float())
        levels = scalars[:, 1:].T
        return StateOutputs(scalars[:, 0], levels, directions.unflatten(1, (HEADS, -1)).transpose(0, 1), batch.decided)

    def action_values(self, outputs: StateOutputs, tokens: Tensor) -> Tensor:
        """Return Q(s, a) [H, C] of both heads for a token [C] of every state."""
        with torch.autocast(tokens.device.type, enabled=False):
            embedding = self.embedding.float()
            relative = embedding[tokens] - embedding.mean(0)
            return outputs.levels + (outputs.directions * relative).sum(-1)

    def conservative_losses(self, outputs: StateOutputs) -> Tensor:
        """Return log Σ_a exp Q(s, a) − Q(s, a of the data), [H, C].

        Kumar et al. 2020, "CQL", equation 4 (CQL(H)); for tokens Snell et al. 2023, "ILQL", §4.1. It is the negative
        log-likelihood of the data's tokens under softmax Q, in which L and the mean of A cancel.
        """
        with torch.autocast(outputs.tokens.device.type, enabled=False):
            embedding = self.embedding.float()
            scores = [token_scores(rows, embedding, outputs.tokens, 1.0, False) for rows in outputs.directions]
        return -torch.stack([head.log_probs for head in scores])

    @torch.no_grad()
    def best_tokens(self, outputs: StateOutputs) -> Tensor:
        """Return argmax_a of the mean of both heads, [C]. L and the mean of A are the same for every token."""
        directions, embedding = outputs.directions.mean(0), self.embedding.float()
        rows = max(CHUNK_LOGITS // len(embedding), 1)  # the products of all states at once could fill the memory
        return torch.cat([F.linear(part, embedding).argmax(1) for part in directions.split(rows)])


@torch.no_grad()
def follow(target: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the target's parameters towards the network's: θ̄ ← decay·θ̄ + (1 − decay)·θ (Lillicrap et al. 2016)."""
    for slow, fast in zip(target.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)
