"""A prompt once with all of its completions: P + ΣC tokens through the model in place of Σ(P + C).

The tokens of a prompt group lie end to end, prompt first, each completion's positions starting again where the prompt
ends. Every layer but attention sees a token once; in attention each completion's tokens see the prompt and their own
earlier tokens, as if they were alone. So the hidden states, and the scores read from them, are those of the separate
sequences. Several groups are laid end to end in the same way, without padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from training.learner.models.packed_attention import Family, FlatLayout, Sizes, family_layout


@dataclass(frozen=True)
class PromptGroup:
    """Token ids of a prompt (may be empty) and of each of its completions (at least one token each)."""

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """What layers other than attention compute in a packed pass: P + ΣC."""
        return len(self.prompt) + sum(map(len, self.completions))

    @property
    def sizes(self) -> Sizes:
        """Tokens of the prompt, and of each completion."""
        return len(self.prompt), list(map(len, self.completions))


class PackedBatch(NamedTuple):
    """Prompt groups laid end to end, T tokens with N completions in all."""

    tokens: Tensor  # [1, T]
    positions: Tensor  # [1, T], from 0 in each prompt, going on from the prompt's end in each completion
    layout: FlatLayout
    last: Tensor  # [N], where each completion's last token lies, in the order of groups and their completions


def pack(groups: Sequence[PromptGroup], device: torch.device | str = "cpu") -> PackedBatch:
    """Lays prompt groups end to end. Raises ValueError on an empty completion: it has no token to read a score at."""
    tokens: list[int] = []
    positions: list[int] = []
    families: list[Family] = []
    for group in groups:
        prompt = range(len(tokens), len(tokens) + len(group.prompt))
        tokens.extend(group.prompt)
        positions.extend(range(len(prompt)))
        places: list[range] = []
        for completion in group.completions:
            if not completion:
                raise ValueError("an empty completion cannot be scored: it needs at least its end token")
            places.append(range(len(tokens), len(tokens) + len(completion)))
            tokens.extend(completion)
            positions.extend(range(len(prompt), len(prompt) + len(completion)))
        families.append(Family(prompt, places))
    return PackedBatch(
        tokens=torch.tensor([tokens], device=device),
        positions=torch.tensor([positions], device=device),
        layout=family_layout(families, device),
        last=torch.tensor([own[-1] for family in families for own in family.completions], device=device),
    )
