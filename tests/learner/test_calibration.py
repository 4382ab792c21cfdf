"""Accuracy, calibration and agreement against numbers worked out by hand, by scipy or by simulation."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from feedback.quality import agreement
from training.learner.preferences.calibration import (
    accuracy_interval,
    annotator_agreement,
    best_accuracy,
    brier_score,
    expected_calibration_error,
    fitted_temperature,
    hits,
    log_loss,
    wilson_interval,
)

CALIBRATED = torch.randn(4000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2


def sampled_judgements(differences: torch.Tensor, temperature: float, seed: int = 1) -> torch.Tensor:
    """Return each difference, negated with probability 1 − sigmoid(difference / temperature)."""
    uniform = torch.rand(len(differences), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.where(uniform < (differences / temperature).sigmoid(), differences, -differences)


def test_equal_scores_are_half_right():
    assert hits(torch.tensor([2.0, 0.0, -1.0])).tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(("right", "count"), [(0, 10), (7, 10), (130, 200), (10, 10)])
def test_wilson_interval_is_scipys(right, count):
    expected = binomtest(right, count).proportion_ci(method="wilson")
    found = wilson_interval(right / count, count)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("share", "count"), [(0.0, 3.0), (0.31, 17.5), (0.5, 1.0), (1.0, 400.0)])
def test_wilson_interval_is_that_of_the_web_application(share, count):
    """The import rules forbid one function for both."""
    assert wilson_interval(share, count)[1:] == pytest.approx(agreement.wilson_interval(share, count), abs=1e-15)


def test_independent_pairs_have_wilsons_interval():
    right = torch.tensor([1.0, 0.0, 1.0, 1.0] * 50, dtype=torch.float64)
    found = accuracy_interval(right, torch.arange(200))
    expected = binomtest(150, 200).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-3)


def test_pairs_of_a_prompt_that_are_all_right_or_wrong_count_as_one():
    # 100 prompts of 6 identical pairs tell as much as 100 pairs.
    fate = torch.tensor([1.0, 0.0, 1.0, 1.0] * 25, dtype=torch.float64)
    repeated = accuracy_interval(fate.repeat_interleave(6), torch.arange(100).repeat_interleave(6))
    single = accuracy_interval(fate, torch.arange(100))
    assert repeated == pytest.approx(single, abs=1e-9)


def test_the_interval_covers_the_truth_at_its_nominal_rate():
    random, covered, runs = np.random.default_rng(0), 0, 400
    for _ in range(runs):
        chance = random.beta(7, 3, size=60)  # of each prompt; the mean is 0.7
        right = random.random((60, 6)) < chance[:, None]
        found = accuracy_interval(torch.tensor(right.ravel()).double(), torch.arange(60).repeat_interleave(6))
        covered += found.low <= 0.7 <= found.high
    assert 0.92 <= covered / runs <= 0.98


def test_the_interval_of_one_prompt_with_all_pairs_right_is_wide():
    found = accuracy_interval(torch.ones(6, dtype=torch.float64), torch.zeros(6, dtype=torch.int64))
    expected = binomtest(1, 1).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_brier_score_by_hand():
    # P of the judgements: 3/4 and 1/5: (1/16 + 16/25) / 2.
    assert brier_score(torch.tensor([math.log(3), -math.log(4)])) == pytest.approx((1 / 16 + 16 / 25) / 2)
    assert brier_score(torch.zeros(3)) == pytest.approx(0.25)


def test_expected_calibration_error_by_hand():
    # Confidence 0.93 thrice, right twice: |0.93 − 2/3|. Confidence 0.52 once, right: |0.52 − 1|. Weighted 3 : 1.
    sure, unsure = math.log(0.93 / 0.07), math.log(0.52 / 0.48)
    found = expected_calibration_error(torch.tensor([sure, sure, -sure, unsure], dtype=torch.float64))
    assert found == pytest.approx((3 * abs(0.93 - 2 / 3) + abs(0.52 - 1)) / 4)


def test_a_calibrated_model_has_little_calibration_error_and_temperature_one():
    differences = sampled_judgements(CALIBRATED, temperature=1.0)
    assert expected_calibration_error(differences) < 0.03
    assert fitted_temperature(differences) == pytest.approx(1.0, abs=0.1)


def test_an_overconfident_model_has_a_fitted_temperature_above_one():
    differences = sampled_judgements(CALIBRATED, temperature=2.5)
    scipys = minimize_scalar(lambda t: log_loss(differences / t), bounds=(0.1, 10), method="bounded").x
    assert fitted_temperature(differences) == pytest.approx(scipys, abs=1e-3)
    assert scipys == pytest.approx(2.5, abs=0.3)


def test_temperature_stays_within_its_bounds_where_there_is_no_best_one():
    assert fitted_temperature(torch.tensor([1.0, 2.0])) == pytest.approx(0.01)
    assert fitted_temperature(torch.tensor([-1.0, -2.0])) == pytest.approx(100.0)


def test_agreement_counts_pairs_of_different_annotators_who_both_decided():
    votes = [[("a", True), ("b", True), ("c", False)], [("a", True), ("a", False)], [("b", False)], []]
    assert annotator_agreement(votes) == (1 / 3, 3)
    assert annotator_agreement([]) == (None, 0)


def test_the_best_accuracy_is_that_of_a_model_that_knows_the_majority():
    # People who say what most say 85 % of the time agree 0.85² + 0.15² of the time.
    assert best_accuracy(0.85**2 + 0.15**2) == pytest.approx(0.85)
    assert best_accuracy(0.4) == 0.5
    assert best_accuracy(None) is None
