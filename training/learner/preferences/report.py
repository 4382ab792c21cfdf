"""Evaluation of a reward model on held-out rankings: the figures of the reward program's result.json."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from training.learner.preferences.calibration import (
    accuracy_interval,
    annotator_agreement,
    best_accuracy,
    brier_score,
    expected_calibration_error,
    fitted_temperature,
    hits,
    log_loss,
)
from training.learner.preferences.losses import TIE_MODELS, Pairs
from training.learner.preferences.ranking_data import Comparison, pairs_of_comparisons

Report = dict[str, float | int | None]


class ScoredPairs(NamedTuple):
    """All P pairs of the rankings with the model's outcome probabilities; S of them are strict."""

    pairs: Pairs  # P
    odds: Tensor  # [S] float64: log-odds of the annotator's choice, given that it is no tie
    tie: Tensor  # [P] float64: probability of a tie
    prompt: Tensor  # [P]
    longer_by: Tensor  # [P]: tokens by which the preferred completion is longer
    strength: list[int | None]  # of each pair's ranking, P


def score_pairs(comparisons: Sequence[Comparison], raw: Tensor, tie_model: str, tie_logit: Tensor) -> ScoredPairs:
    """Return the pairs of the comparisons. raw [N]: raw scores of their completions, end to end."""
    pairs = pairs_of_comparisons(comparisons)
    lengths = torch.tensor([len(c) for comparison in comparisons for c in comparison.group.completions])
    prompts = torch.tensor([comparison.prompt_id for comparison in comparisons for _ in comparison.rankings])
    strengths = [ranking.strength for comparison in comparisons for ranking in comparison.rankings]
    difference = raw.double()[pairs.better] - raw.double()[pairs.worse]
    outcome = TIE_MODELS.get(tie_model, TIE_MODELS["bradley_terry"])(difference, tie_logit.double())
    return ScoredPairs(
        pairs=pairs,
        odds=(outcome.win - outcome.loss)[~pairs.tied],
        tie=outcome.tie.exp(),
        prompt=prompts[pairs.ranking],
        longer_by=lengths[pairs.better] - lengths[pairs.worse],
        strength=[strengths[number] for number in pairs.ranking.tolist()],
    )


def report(scored: ScoredPairs, comparisons: Sequence[Comparison], prefers_longer: bool) -> Report:
    """Return accuracy with its 95 % interval and ceiling, calibration, and accuracy by strength and by length.

    A figure without pairs is None. prefers_longer: see `longer_is_preferred`.
    """
    strict = ~scored.pairs.tied
    if not bool(strict.any()):
        return {"held_out_accuracy": None, "held_out_pairs": 0} | _ceiling(comparisons)
    right = hits(scored.odds)
    accuracy = accuracy_interval(right, scored.prompt[strict])
    return {
        "held_out_accuracy": accuracy.value,
        "held_out_accuracy_low": accuracy.low,
        "held_out_accuracy_high": accuracy.high,
        "held_out_pairs": int(strict.sum()),
        "held_out_rankings": sum(len(comparison.rankings) for comparison in comparisons),
        "held_out_prompts": len({comparison.prompt_id for comparison in comparisons}),
        "held_out_loss": log_loss(scored.odds),
        **_ceiling(comparisons),
        "brier_score": brier_score(scored.odds),
        "expected_calibration_error": expected_calibration_error(scored.odds),
        "fitted_temperature": fitted_temperature(scored.odds),
        "held_out_tie_share": float(scored.pairs.tied.double().mean()),
        "held_out_tie_share_predicted": float(scored.tie.mean()),
        **_by_strength(right, [s for s, is_strict in zip(scored.strength, strict.tolist(), strict=True) if is_strict]),
        **_by_length(right, scored.longer_by[strict], prefers_longer),
    }


def _ceiling(comparisons: Sequence[Comparison]) -> Report:
    agreement = annotator_agreement(votes_by_pair(comparisons))
    return {
        "annotator_agreement": agreement.share,
        "annotator_agreement_pairs": agreement.judgements,
        "best_possible_accuracy": best_accuracy(agreement.share),
    }


def votes_by_pair(comparisons: Sequence[Comparison]) -> list[list[tuple[str, bool]]]:
    """Return the annotators who preferred one of two completions of a prompt, and whether it was the first, by pair."""
    votes: dict[tuple[object, ...], list[tuple[str, bool]]] = defaultdict(list)
    for comparison in comparisons:
        completions = comparison.group.completions
        for ranking in comparison.rankings:
            placed = sorted(zip(ranking.places, ranking.ranks, strict=True))
            for number, (place, rank) in enumerate(placed):
                for other, other_rank in placed[number + 1 :]:
                    if rank != other_rank and place != other:
                        key = (comparison.prompt_id, completions[place], completions[other])
                        votes[key].append((ranking.annotator, rank < other_rank))
    return list(votes.values())


def _by_strength(right: Tensor, strengths: Sequence[int | None]) -> Report:
    accuracies: Report = {}
    for level in sorted({strength for strength in strengths if strength is not None}):
        selected = torch.tensor([strength == level for strength in strengths])
        accuracies[f"accuracy_strength_{level}"] = float(right[selected].mean())
    return accuracies


def _by_length(right: Tensor, longer_by: Tensor, prefers_longer: bool) -> Report:
    """Return accuracy by which completion is longer, by thirds of the length difference, and of length alone."""
    accuracies = _mean_where(
        right, {"accuracy_longer_preferred": longer_by > 0, "accuracy_shorter_preferred": longer_by < 0}
    )
    distance = longer_by.abs().double()
    low, high = distance.quantile(1 / 3), distance.quantile(2 / 3)
    accuracies |= _mean_where(right, {
        "accuracy_length_difference_small": distance <= low,
        "accuracy_length_difference_middle": (distance > low) & (distance <= high),
        "accuracy_length_difference_large": distance > high,
    })  # fmt: skip
    alone = float(hits(longer_by if prefers_longer else -longer_by).mean())
    above_chance = float(right.mean()) - 0.5
    explained = min(max((alone - 0.5) / above_chance, 0.0), 1.0) if above_chance > 0 else None
    return accuracies | {"accuracy_of_length_alone": alone, "accuracy_explained_by_length": explained}


def _mean_where(values: Tensor, masks: dict[str, Tensor]) -> Report:
    return {name: float(values[mask].mean()) if bool(mask.any()) else None for name, mask in masks.items()}


def longer_is_preferred(comparisons: Sequence[Comparison]) -> bool:
    """Return whether the preferred of two completions is the longer one at least as often as the shorter one."""
    lengths = [len(c) for comparison in comparisons for c in comparison.group.completions]
    pairs = pairs_of_comparisons(comparisons)
    longer_by = torch.tensor(lengths)[pairs.better] - torch.tensor(lengths)[pairs.worse]
    return int(longer_by.sign()[~pairs.tied].sum()) >= 0
