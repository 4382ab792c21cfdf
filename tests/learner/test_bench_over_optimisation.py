"""The benchmarks of over-optimisation and of continued reward models compute the figures that they name."""

import pytest
import torch

from tests.benchmarks.learner import gold_record
from tests.benchmarks.learner.continued_reward import WAYS, cost
from tests.benchmarks.learner.over_optimisation import Window, at, errors_of, lost, until
from training.learner.reward_terms import Answer

RUN = [
    Window(1.0, 2.0, 0.0),
    Window(3.0, 4.0, 1.0),
    Window(7.0, 5.0, 2.0),
    Window(11.0, 3.0, 3.0),
    Window(12, 9.0, 4.0),
]


def test_a_run_is_read_up_to_the_first_window_with_enough_kl():
    assert until(RUN, 10.0) == RUN[:4]
    assert until(RUN[:2], 10.0) == RUN[:2]
    assert lost([window.gold for window in until(RUN, 10.0)]) == pytest.approx(0.4)  # of 5 points 3 are left


def test_the_utility_at_a_kl_lies_between_those_of_the_windows_around_it():
    assert [at(RUN, nats) for nats in (0.5, 2.0, 5.0, 20.0)] == pytest.approx([2.0, 3.0, 4.5, 9.0])


def test_the_record_has_the_hidden_utility_of_every_scored_completion():
    gold_record.RECORD.clear()
    message = "Hello, my parcel has not arrived."
    answers = [
        Answer({"messages": [{"role": "user", "content": message}]}, (), (), text, True) for text in ("a a a", "")
    ]
    utilities = gold_record.record(answers)
    assert [one.text for one in gold_record.RECORD] == ["a a a", ""]
    assert utilities == [gold_record.utility(message, text) for text in ("a a a", "")]


def test_errors_are_alike_as_far_as_members_share_them():
    generator = torch.Generator().manual_seed(0)
    gold = torch.randn(4000, generator=generator, dtype=torch.float64)
    shared, alone = (torch.randn(4000, size, generator=generator, dtype=torch.float64) for size in (1, 4))
    scored = [gold_record.Scored("", "", float(value)) for value in gold]
    independent = errors_of(gold[:, None] * 2 + alone, scored)
    assert abs(independent["correlation of two members' errors"]) < 0.03
    # Half of the variance is shared, so two members correlate by one half.
    half = errors_of(gold[:, None] * 2 + 1 + shared + alone, scored)
    assert half["correlation of two members' errors"] == pytest.approx(0.5, abs=0.03)
    assert half["deviation of the mean's error"] == pytest.approx((1 + 1 / 4) ** 0.5, abs=0.03)


def test_the_cost_of_a_way_counts_computed_rankings():
    assert cost(WAYS["full"]) == 1
    assert cost(WAYS["all"]) == cost(WAYS["full, 2 passes"]) == 0.5
    assert cost(WAYS["all, full every 3"], rounds=3) == 0.5
    assert cost(WAYS["replay 3"]) == (2 + 3 + 4 + 4 + 4) / 20
    assert cost(WAYS["all, full every 3"]) == 0.6  # rounds 2, 3, 5, 6 by half, round 4 whole: (16 / 2 + 4) / 20
