"""Rank correlations of predicted and held-out ratings, beside those of two people."""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.learner.preferences.rank_correlation import RankCorrelation, pairs_of_raters, rank_correlation
from training.learner.preferences.ranking_data import Comparison
from training.learner.preferences.ratings import Key, Rated, RatingData, keys_of

AttributeReport = dict[str, str | float | int | None]


def attribute_report(
    names: Sequence[str], predictions: Tensor, comparisons: Sequence[Comparison], data: RatingData
) -> list[AttributeReport]:
    """Return the figures of each attribute on the held-out comparisons.

    predictions: [N, A] of the comparisons' completions, end to end. The figures of an attribute, each with its interval
    (`_low`, `_high`, None for few prompts):

    correlation             of the prediction and the mean rating
    correlation_people      of two people's ratings, on the completions that two or more people rated
    correlation_one_person  of the prediction and one person's rating, on the same completions: what compares with
                            correlation_people, since a mean has less noise than one person
    """
    places: dict[Key, tuple[int, int]] = {}  # completion to its row of the predictions and its prompt
    keys = ((comparison.prompt_id, key) for comparison in comparisons for key in keys_of(comparison))
    for row, (prompt, key) in enumerate(keys):
        places.setdefault(key, (row, prompt))
    reports = []
    for column, name in enumerate(names):
        rated = [(*places[key], one[name]) for key, one in data.held_out.items() if key in places and name in one]
        reports.append(_report_of(name, predictions[:, column].double(), rated, data))
    return reports


def _report_of(
    name: str, predictions: Tensor, rated: Sequence[tuple[int, int, Rated]], data: RatingData
) -> AttributeReport:
    """Return the figures of one attribute. rated: row, prompt and ratings of every held-out completion with some."""
    rows, prompts = (torch.tensor([one[part] for one in rated], dtype=torch.int64) for part in (0, 1))
    means = torch.tensor([ratings.mean for _, _, ratings in rated], dtype=torch.float64)
    with_mean = rank_correlation(predictions[rows], means, prompts)
    x, y, which = pairs_of_raters([list(ratings.values) for _, _, ratings in rated])
    return {
        "name": name,
        "train_completions": sum(name in ratings for ratings in data.train.values()),
        "held_out_completions": with_mean.size,
        "held_out_prompts": with_mean.prompts,
        "held_out_completions_of_two_people": len(which.unique()),
        **_figures("correlation", with_mean),
        **_figures("correlation_people", rank_correlation(x, y, prompts[which])),
        **_figures("correlation_one_person", rank_correlation(predictions[rows][which], x, prompts[which])),
    }


def _figures(name: str, correlation: RankCorrelation) -> AttributeReport:
    return {name: correlation.value, f"{name}_low": correlation.low, f"{name}_high": correlation.high}
