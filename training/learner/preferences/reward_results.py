"""Evaluation of a reward model on held-out prompts, and the figures of the program reward for result.json."""

from typing import Any

import torch
from torch import Tensor

from training.learner.models.loading import computing_in
from training.learner.models.reward_model import (
    RewardModel,
    attribute_predictions,
    outputs_of_groups,
    raw_scores_of_groups,
)
from training.learner.preferences.anchor import anchor_report
from training.learner.preferences.cross_fitting import chosen, surprises
from training.learner.preferences.passes import rankings_in
from training.learner.preferences.ranking_data import RankingData
from training.learner.preferences.ranking_loss import TieParameter
from training.learner.preferences.rating_report import attribute_report
from training.learner.preferences.ratings import RatingData, RatingTargets
from training.learner.preferences.report import Report, longer_is_preferred, report, score_pairs
from training.learner.runtime.config import RewardConfig
from training.learner.runtime.jobdir import JobDirectory


def held_out_scores(
    model: RewardModel, data: RankingData, settings: RewardConfig, token_budget: int
) -> tuple[Tensor, Tensor]:
    """Return raw scores [N] and those of the ensemble's members [N, H] of the held-out completions.

    All processes compute all of them; they are few.
    """
    groups = [comparison.group for comparison in data.held_out]
    with computing_in(settings.dtype):
        return raw_scores_of_groups(model, groups, token_budget)


def evaluate(
    model: RewardModel, tie: TieParameter, data: RankingData, settings: RewardConfig, raw: Tensor, members: Tensor
) -> Report:
    """Return the report on held-out comparisons. raw, members: see `held_out_scores`."""
    scored = score_pairs(data.held_out, raw, settings.tie_model, tie.logit.detach().cpu())
    evaluation = report(scored, data.held_out, longer_is_preferred(data.train))
    if model.raw_anchor is not None:
        evaluation |= anchor_report(raw, model.raw_anchor, data.held_out)
    if model.ensemble is not None and len(raw):
        evaluation["ensemble_deviation"] = float(members.std(1).mean()) / model.scale
    return evaluation


def cross_fitted(model: RewardModel, data: RankingData, settings: RewardConfig, token_budget: int) -> dict[int, float]:
    """Return the surprise of the rankings by `Ranking.row`, from the features of a model that has not been trained yet.

    Without folds there is none, nor for a model that continues a reward model: its trunk has learned from the rankings.
    All processes compute all of it.
    """
    if not settings.surprise_folds or bool(model.head.weight.any()):
        return {}
    most, seed = settings.surprise_comparisons, settings.seed
    train, held_out = chosen(data.train, most, seed), chosen(data.held_out, most, seed)
    groups = [comparison.group for comparison in (*train, *held_out)]
    with torch.no_grad(), computing_in(settings.dtype):
        (features,) = outputs_of_groups(model, groups, token_budget, lambda one: (one,), model.text_features)
    return surprises(train, held_out, features, settings.surprise_folds, seed)


def evaluation_metrics(evaluation: Report) -> dict[str, float]:
    """Return the figures of the report that are drawn as curves."""
    names = ("held_out_accuracy", "held_out_loss", "brier_score", "expected_calibration_error", "ensemble_deviation")
    return {name: value for name in names if (value := evaluation.get(name)) is not None}


def rating_summary(
    model: RewardModel,
    rated: RatingData,
    ratings: RatingTargets,
    data: RankingData,
    settings: RewardConfig,
    token_budget: int,
) -> dict[str, Any]:
    """Return the figures of the attributes for result.json; nothing without any."""
    if model.attributes is None:
        return {}
    groups = [comparison.group for comparison in data.held_out]
    with computing_in(settings.dtype):
        predictions = attribute_predictions(model, groups, token_budget)
    figures = attribute_report(model.attributes.names, predictions, data.held_out, rated)
    return {"attributes": figures, "unranked_rated_completions": ratings.unranked}


def summary(job: JobDirectory, model: RewardModel, tie: TieParameter, data: RankingData) -> dict[str, Any]:
    """Return the training's figures for result.json: last metrics, normalisation, and sizes of the data."""
    last = job.metrics()[-1]
    anchor = model.raw_anchor
    anchored = sum(bool(ranking.anchor) for comparison in data.train for ranking in comparison.rankings)
    of_anchor = (
        {} if anchor is None else {"anchor": (anchor - model.shift) / model.scale, "anchored_rankings": anchored}
    )
    return {
        **of_anchor,
        "train_loss": last["loss"],
        "train_accuracy": last["accuracy"],
        "tie_share": tie.share,
        "reward_shift": model.shift,
        "reward_scale": model.scale,
        "train_rankings": rankings_in(data.train),
        "train_prompts": len({comparison.prompt_id for comparison in data.train}),
        "truncated_prompts": data.truncated_prompts,
        "truncated_completions": data.truncated_completions,
        "dropped_held_out_rankings": data.dropped_held_out,
    }
