"""Figures of the report on a reward model: pure functions of its held-out rankings, as JSON.

A share is `{"value", "low", "high", "pairs", "prompts"}` with its 95 % interval: Wilson's for the effective number of
pairs, because the pairs of one prompt depend on each other (`feedback.quality.agreement.counting.shares`). A pair of
equal scores is half right. Pairs that the annotator tied have no right order and are counted alone.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, islice
from statistics import fmean, pstdev
from typing import Any

import numpy as np

from feedback.models import Lease
from feedback.models.rankings import WITHOUT_LEASE
from feedback.quality.agreement.counting import share
from feedback.quality.agreement.estimates import PAIRWISE, count_equal_preferences
from feedback.quality.ratings.slices import MIN_PROMPTS, PromptFields, slices_of
from training.reward_reports.held_out import HeldOut, HeldOutPair, ScoredCompletion

BINS = 10  # of the model's confidence, ½ to 1: those of `expected_calibration_error` in the learner
HISTOGRAM_BINS = 20
MAX_SOURCES = 12  # in the histogram
MAX_MISTAKES = 50

Figures = dict[str, Any]


def figures_of(held_out: HeldOut, prompts: Sequence[PromptFields]) -> Figures:
    """Return the report. prompts: those of the held-out rankings."""
    pairs = held_out.pairs
    return {
        "accuracy": share_of(pairs, hit),
        "agreement": agreement(held_out),
        "calibration": calibration(pairs),
        "expected_calibration_error": expected_calibration_error(pairs),
        "slices": slices(pairs, prompts),
        "ties": ties(held_out),
        "histogram": histogram(held_out.completions),
        "mistakes": mistakes(pairs),
    }


def hit(pair: HeldOutPair) -> float:
    """Return 1 if the model prefers what the annotator preferred, ½ if it prefers neither."""
    return (np.sign(pair.log_odds) + 1) / 2


def share_of(pairs: Iterable[HeldOutPair], value: Callable[[HeldOutPair], float]) -> Figures | None:
    """Return the mean of a value in [0, 1] with its interval; None without pairs."""
    by_prompt: dict[int, list[float]] = defaultdict(list)
    for pair in pairs:
        by_prompt[pair.prompt_id].append(float(value(pair)))
    return _share([(sum(values), len(values)) for values in by_prompt.values()])


def _share(counts: Sequence[tuple[float, int]]) -> Figures | None:
    """Return the share Σ first / Σ second with its interval; a count for each prompt."""
    one = share(counts, PAIRWISE)
    if one.value is None:
        return None
    return {"value": one.value, "low": one.low, "high": one.high, "pairs": one.pairs, "prompts": one.comparisons}


def agreement(held_out: HeldOut) -> Figures | None:
    """Return the share of equal preferences of two annotators on the same comparisons; None if nobody shared one.

    Extra rankings are left out, as in the agreement of the project: they were requested where others disagreed.
    """
    left_out = (Lease.Reason.DISAGREEMENT, *WITHOUT_LEASE)
    by_comparison: dict[int, list[Any]] = defaultdict(list)
    for row in held_out.rankings:
        if row["reason"] not in left_out:
            by_comparison[row["comparison_id"]].append(row)
    by_prompt: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for rows in by_comparison.values():
        for one, other in combinations(rows, 2):
            equal, total = count_equal_preferences(one["ranks"], other["ranks"])
            by_prompt[one["prompt_id"]][0] += equal
            by_prompt[one["prompt_id"]][1] += total
    return _share([(equal, total) for equal, total in by_prompt.values()])


def calibration(pairs: Sequence[HeldOutPair]) -> list[Figures]:
    """Return the bins of confidence that have pairs: the mean confidence, and how often the model was right."""
    binned: dict[int, list[HeldOutPair]] = defaultdict(list)
    for pair in pairs:
        binned[bin_of(pair)].append(pair)
    return [
        {
            "from": 0.5 + number / 2 / BINS,
            "to": 0.5 + (number + 1) / 2 / BINS,
            "confidence": fmean(confidence(pair) for pair in binned[number]),
            "share": share_of(binned[number], hit),
        }
        for number in sorted(binned)
    ]


def confidence(pair: HeldOutPair) -> float:
    """Return the model's probability of the completion that it prefers, given no tie; ½ to 1."""
    return 1 / (1 + math.exp(-min(abs(pair.log_odds), 700.0)))


def bin_of(pair: HeldOutPair) -> int:
    return min(int((confidence(pair) - 0.5) * 2 * BINS), BINS - 1)


def expected_calibration_error(pairs: Sequence[HeldOutPair]) -> float | None:
    """Return the mean distance of confidence and accuracy over the bins (Guo et al. 2017, eq. 3); None without pairs.

    The learner's `expected_calibration_error` is the same figure; `tests/training/test_reward_figures.py` compares the
    two.
    """
    gaps: dict[int, float] = defaultdict(float)
    for pair in pairs:
        gaps[bin_of(pair)] += confidence(pair) - hit(pair)
    return sum(map(abs, gaps.values())) / len(pairs) if pairs else None


def slices(pairs: Sequence[HeldOutPair], prompts: Sequence[PromptFields]) -> list[Figures]:
    """Return the accuracy on parts of the pairs: by ties, strength, flags, length difference, and metadata.

    A ranking with several flags is in the slice of each; "" is the slice of those without a flag, where others have
    one. A slice of the prompts' metadata has at least MIN_PROMPTS prompts, and not all.
    """
    parts: dict[tuple[str, str, str], list[HeldOutPair]] = defaultdict(list)
    for pair in pairs:
        parts["ties", "", "some" if pair.ranking_has_ties else "none"].append(pair)
    for pair in sorted((pair for pair in pairs if pair.strength is not None), key=lambda pair: pair.strength or 0):
        parts["strength", "", str(pair.strength)].append(pair)
    for flag in sorted({flag for pair in pairs for flag in pair.flags}):
        parts["flag", "", flag] = [pair for pair in pairs if flag in pair.flags]
    unflagged = [pair for pair in pairs if not pair.flags]
    if 0 < len(unflagged) < len(pairs):
        parts["flag", "", ""] = unflagged
    for name, chosen in _by_length(pairs):
        parts[name].extend(chosen)
    for name, ids in slices_of(prompts).items():
        chosen = [pair for pair in pairs if pair.prompt_id in ids] if name[0] in ("metadata", "length") else []
        if MIN_PROMPTS <= len({pair.prompt_id for pair in chosen}) < len({pair.prompt_id for pair in pairs}):
            parts[name] = chosen
    return [
        {"kind": kind, "key": key, "value": value, "share": share_of(chosen, hit)}
        for (kind, key, value), chosen in parts.items()
    ]


def _by_length(pairs: Sequence[HeldOutPair]) -> list[tuple[tuple[str, str, str], list[HeldOutPair]]]:
    """Return the pairs by which completion is longer, and by thirds of the difference in characters."""
    if not pairs:
        return []
    distance = np.array([abs(pair.longer_by) for pair in pairs])
    low, bounds = int(distance.min()), np.unique(np.quantile(distance, [1 / 3, 2 / 3, 1], method="inverted_cdf"))
    parts = [
        (("preferred", "", "longer"), [pair for pair in pairs if pair.longer_by > 0]),
        (("preferred", "", "shorter"), [pair for pair in pairs if pair.longer_by < 0]),
    ]
    for high in bounds.astype(int).tolist():
        chosen = [pair for pair, by in zip(pairs, distance.tolist(), strict=True) if low <= by <= high]
        parts.append((("length_difference", "", f"{low}–{high}"), chosen))
        low = high + 1
    return [(name, chosen) for name, chosen in parts if chosen]


def ties(held_out: HeldOut) -> Figures:
    """Return the share of tied pairs, the share that the model predicts, and its mean probability where there is one.

    A share is None without pairs.
    """
    count = len(held_out.pairs) + len(held_out.tied)
    return {
        "pairs": count,
        "tied": len(held_out.tied),
        "share": len(held_out.tied) / count if count else None,
        "predicted": held_out.tie_probabilities / count if count else None,
        "predicted_where_tied": fmean(held_out.tied) if held_out.tied else None,
    }


def histogram(completions: Sequence[ScoredCompletion]) -> Figures | None:
    """Return the counts of scores in bins of equal width for each source, those with most completions first.

    A source beyond the first MAX_SOURCES is left out, and the number of these is given.
    """
    if not completions:
        return None
    by_source: dict[str, list[float]] = defaultdict(list)
    for completion in completions:
        by_source[completion.source].append(completion.score)
    everything = [completion.score for completion in completions]
    edges = np.histogram_bin_edges(everything, HISTOGRAM_BINS)
    names = sorted(by_source, key=lambda name: (-len(by_source[name]), name))
    return {
        "edges": edges.tolist(),
        "sources": [
            {
                "source": name,
                "completions": len(by_source[name]),
                "mean": fmean(by_source[name]),
                "deviation": pstdev(by_source[name]),
                "counts": np.histogram(by_source[name], edges)[0].tolist(),
            }
            for name in names[:MAX_SOURCES]
        ],
        "left_out": max(len(names) - MAX_SOURCES, 0),
    }


def mistakes(pairs: Sequence[HeldOutPair]) -> list[Figures]:
    """Return the pairs whose order the model is surest of and annotators reversed; at most one of a comparison."""
    worst: dict[int, HeldOutPair] = {}
    wrong = (pair for pair in pairs if pair.log_odds < 0)
    for pair in sorted(wrong, key=lambda pair: (pair.log_odds, pair.ranking_id)):
        worst.setdefault(pair.comparison_id, pair)
    return [
        {
            "comparison": pair.comparison_id,
            "ranking": pair.ranking_id,
            "prompt": pair.prompt_id,
            "preferred": pair.preferred,
            "other": pair.other,
            "probability": 1 - confidence(pair),  # of the annotator's choice
        }
        for pair in islice(worst.values(), MAX_MISTAKES)
    ]
