"""The report on held-out rankings, worked out by hand."""

import math

import pytest
import torch

from training.learner.models.packing import PromptGroup
from training.learner.preferences.ranking_data import Comparison, Ranking
from training.learner.preferences.report import longer_is_preferred, report, score_pairs


def comparison(number, completions, ranks, strength):
    ranking = Ranking(ranks, tuple(range(len(ranks))), "ann", 1.0, strength)
    return Comparison(number, PromptGroup((5, number), completions), (ranking,))


HELD_OUT = [
    comparison(1, ((10,), (11, 12), (13, 14, 15, 16)), (3, 2, 1), 2),
    comparison(2, ((20, 21, 22), (23,)), (2, 1), 1),
    comparison(3, ((30,), (31,)), (1, 1), None),
    comparison(4, ((40, 41), (42, 43)), (1, 2), 1),
]
RAW = torch.tensor([0.0, 1.0, 0.5, 0.0, 2.0, 0.0, 0.0, 1.0, 0.0])
# Strict pairs, by how much the preferred one leads and is longer: (1, 1), (0.5, 3), (−0.5, 2), (2, −2), (1, 0)
LEADS = [1.0, 0.5, -0.5, 2.0, 1.0]


def reported(raw=RAW, prefers_longer=True, tie_model="bradley_terry", tie_logit=-math.inf):
    return report(score_pairs(HELD_OUT, raw, tie_model, torch.tensor(tie_logit)), HELD_OUT, prefers_longer)


def test_accuracy_is_reported_by_strength_and_by_length():
    found = reported()
    assert found["held_out_accuracy"] == pytest.approx(4 / 5)
    assert (found["held_out_pairs"], found["held_out_rankings"], found["held_out_prompts"]) == (5, 4, 4)
    assert found["accuracy_strength_1"] == 1.0 and found["accuracy_strength_2"] == pytest.approx(2 / 3)
    assert found["accuracy_longer_preferred"] == pytest.approx(2 / 3) and found["accuracy_shorter_preferred"] == 1.0
    # lengths differ by 0 1 2 2 3, whose thirds end at 1⅓ and 2
    thirds = [found[f"accuracy_length_difference_{name}"] for name in ("small", "middle", "large")]
    assert thirds == [1.0, 0.5, 1.0]


def test_the_share_explained_by_length_is_the_above_chance_accuracy_of_length_alone():
    assert longer_is_preferred(HELD_OUT)
    found = reported()  # longer is preferred thrice, shorter once, once they are equal: 3.5 of 5
    assert found["accuracy_of_length_alone"] == pytest.approx(0.7)
    assert found["accuracy_explained_by_length"] == pytest.approx((0.7 - 0.5) / (0.8 - 0.5))
    contrary = reported(prefers_longer=False)
    assert contrary["accuracy_of_length_alone"] == pytest.approx(0.3) and contrary["accuracy_explained_by_length"] == 0
    assert reported(raw=-RAW)["accuracy_explained_by_length"] is None  # no better than chance: nothing to explain


def test_loss_and_brier_score_are_of_strict_pairs_and_ties_of_all():
    found = reported()
    assert found["held_out_loss"] == pytest.approx(sum(math.log1p(math.exp(-lead)) for lead in LEADS) / 5)
    assert found["brier_score"] == pytest.approx(sum((1 / (1 + math.exp(lead))) ** 2 for lead in LEADS) / 5)
    assert found["held_out_tie_share"] == pytest.approx(1 / 6)
    # Davidson at ν = 2: a tie has 2·√(π_i π_j) of π_i + π_j + that
    ties = [2 * math.exp(lead / 2) / (math.exp(lead) + 1 + 2 * math.exp(lead / 2)) for lead in [*LEADS, 0.0]]
    found = reported(tie_model="davidson", tie_logit=0.0)
    assert found["held_out_tie_share_predicted"] == pytest.approx(sum(ties) / 6)
    assert found["held_out_loss"] == pytest.approx(reported()["held_out_loss"])  # given that it is no tie


def test_without_a_strict_pair_there_is_no_accuracy():
    tied = HELD_OUT[2:3]
    found = report(score_pairs(tied, torch.zeros(2), "davidson", torch.tensor(0.0)), tied, True)
    assert found["held_out_accuracy"] is None and found["held_out_pairs"] == 0
