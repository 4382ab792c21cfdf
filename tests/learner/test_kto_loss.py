"""kto's loss, weights and pairs: against numbers computed by hand."""

import math

import pytest
import torch

from training.learner.preferences.kto_loss import LabelWeights, balanced_weights, kto_losses, mismatched, separation

ONE = LabelWeights(1.0, 1.0)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_the_loss_of_a_label_is_its_weight_minus_its_value():
    """Check equation 8, λ − λ·sigmoid(±β·(r − z0)), for four completions, the last with labels of both kinds."""
    ratios = torch.tensor([2.0, -1.0, 0.5, 3.0], dtype=torch.float64)
    desirable = torch.tensor([1.0, 0.0, 0.0, 2.0], dtype=torch.float64)
    undesirable = torch.tensor([0.0, 1.0, 0.5, 1.0], dtype=torch.float64)
    losses = kto_losses(ratios, 0.5, desirable, undesirable, LabelWeights(1.5, 0.75), beta=0.2)
    expected = [
        1.5 - 1.5 * sigmoid(0.2 * (2.0 - 0.5)),
        0.75 - 0.75 * sigmoid(0.2 * (0.5 + 1.0)),
        0.5 * (0.75 - 0.75 * 0.5),
        2 * (1.5 - 1.5 * sigmoid(0.2 * 2.5)) + (0.75 - 0.75 * sigmoid(-0.2 * 2.5)),
    ]
    assert losses.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_gradient_raises_desirable_and_lowers_undesirable_completions_and_fades_far_from_the_point():
    ratios = torch.tensor([0.0, 0.0, 40.0, -40.0], requires_grad=True)
    desirable, undesirable = torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    kto_losses(ratios, 0.0, desirable, undesirable, ONE, beta=0.5).sum().backward()
    up, down, *far = ratios.grad.tolist()
    # The derivative of sigmoid at 0 is 1/4.
    assert (up, down) == (pytest.approx(-0.5 / 4), pytest.approx(0.5 / 4)) and max(map(abs, far)) < 1e-8


@pytest.mark.parametrize(
    ("weights", "counts", "expected"),
    [
        (ONE, (30.0, 10.0), (1.0, 3.0)),
        (ONE, (10.0, 30.0), (3.0, 1.0)),
        (ONE, (7.0, 7.0), (1.0, 1.0)),
        (LabelWeights(1.5, 1.0), (10.0, 40.0), (6.0, 1.0)),
    ],
)
def test_both_kinds_of_labels_weigh_the_same_in_total(weights, counts, expected):
    balanced = balanced_weights(weights, *counts, balances=True)
    assert balanced == pytest.approx(expected)
    assert balanced.desirable * counts[0] / (balanced.undesirable * counts[1]) == pytest.approx(
        weights.desirable / weights.undesirable
    )
    assert balanced_weights(weights, *counts, balances=False) == weights


def test_a_mismatched_pair_takes_the_next_completion_of_another_prompt():
    assert mismatched(["x", "x", "y", "z", "x"]) == [2, 2, 3, 4, 2]
    assert mismatched(["x", "x"]) == [0, 1] and mismatched([]) == []


def test_separation_is_the_share_of_pairs_in_the_right_order():
    generator = torch.Generator().manual_seed(0)
    ratios = torch.randint(0, 6, (40,), generator=generator).float()  # with ties
    good, bad = torch.rand(2, 40, generator=generator)
    bad[:10] = 0.0
    right = total = 0.0
    for i in range(40):
        for j in range(40):
            weight = float(good[i].double() * bad[j].double())
            total += weight
            right += weight * (0.5 if ratios[i] == ratios[j] else float(ratios[i] > ratios[j]))
    assert separation(ratios, good, bad) == pytest.approx(right / total, rel=1e-9)
    assert separation(torch.zeros(3), torch.ones(3), torch.ones(3)) == 0.5
    assert separation(ratios, good, torch.zeros(40)) is None
