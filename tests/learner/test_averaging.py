"""The mean of several trainings' weights."""

import pytest
import torch
from torch import nn

from training.learner.preferences.averaging import WeightAverage


def trained_to(model: nn.Linear, value: float) -> None:
    with torch.no_grad():
        model.weight.fill_(value)


@pytest.fixture
def model() -> nn.Linear:
    layer = nn.Linear(2, 1)
    trained_to(layer, 1.0)
    layer.bias.requires_grad_(False)
    return layer


def test_all_runs_start_from_the_same_weights_and_the_last_one_leaves_the_mean(model):
    average, optimizer = WeightAverage(model, runs=3), torch.optim.AdamW(model.parameters())
    for value, left in ((4.0, 1.0), (5.0, 1.0), (9.0, 6.0)):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        trained_to(model, value)
        average.end_run(optimizer)
        assert model.weight.tolist() == [[left, left]]
        assert not optimizer.state


def test_averaging_a_single_run_changes_nothing_and_keeps_no_copy(model):
    average, optimizer = WeightAverage(model, runs=1), torch.optim.AdamW(model.parameters())
    trained_to(model, 4.0)
    average.end_run(optimizer)
    assert model.weight.tolist() == [[4.0, 4.0]]
    assert average.start == average.mean == {}


def test_the_mean_goes_on_from_a_saved_state(model):
    optimizer = torch.optim.AdamW(model.parameters())
    before, after = WeightAverage(model, runs=2), WeightAverage(model, runs=2)
    trained_to(model, 4.0)
    before.end_run(optimizer)
    after.load_state_dict(before.state_dict())
    trained_to(model, 6.0)
    after.end_run(optimizer)
    assert model.weight.tolist() == [[5.0, 5.0]]


def test_frozen_parameters_are_not_averaged(model):
    average = WeightAverage(model, runs=2)
    average.end_run(torch.optim.AdamW(model.parameters()))
    assert list(average.mean) == ["weight"]
