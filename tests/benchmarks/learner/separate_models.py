"""Reward term for programs of a benchmark: the lower bound of separate reward models, each with a trunk of its own.

The script that runs the program in this process sets `MODELS` and `PESSIMISM` first.
"""

from collections.abc import Sequence

import torch

from training.learner.models.packing import PromptGroup
from training.learner.models.reward_model import score_groups
from training.learner.reward_terms import Answer
from training.learner.rewards.reading import Scoring, token_reader

TERM = {"name": "python", "function": f"{__name__}:lower_bound"}
MODELS: list[Scoring] = []
PESSIMISM = 0.0


def lower_bound(answers: Sequence[Answer]) -> list[float]:
    """Return mean − PESSIMISM · deviation over the normalised scores of MODELS, for each answer."""
    scores = member_scores(MODELS, answers)
    bound: list[float] = (scores.mean(1) - PESSIMISM * scores.std(1)).tolist()
    return bound


def member_scores(models: Sequence[Scoring], answers: Sequence[Answer]) -> torch.Tensor:
    """Return the normalised scores [N, M] of N answers by M models."""
    columns = []
    for model, tokenizer in models:
        assert model.max_lengths is not None, "the program reward records them"
        tokens = token_reader(model, tokenizer, model.max_lengths)
        groups = [PromptGroup((), (tuple(tokens(answer)),)) for answer in answers]
        columns.append(score_groups(model, groups, 4096).mean)
    return torch.stack(columns, 1)
