"""Rank correlations beside scipy, and intervals that cover the truth."""

import pytest
import torch
from scipy.stats import spearmanr

from training.learner.preferences.rank_correlation import pairs_of_raters, rank_correlation, spearman


def drawn(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, generator=generator, dtype=torch.float64)
    return x, x + torch.randn(count, generator=generator, dtype=torch.float64)


def test_it_is_the_correlation_of_scipy_also_with_ties():
    x, y = drawn(50, 0)
    for one, other in ((x, y), (x.round(), y), (x.round(), (y / 2).round())):
        assert float(spearman(one, other)) == pytest.approx(spearmanr(one.numpy(), other.numpy()).statistic, abs=1e-12)


def test_a_resample_counts_a_value_as_often_as_it_was_drawn():
    x, y = drawn(12, 1)
    times = torch.tensor([[0, 2, 1, 1, 3, 0, 0, 1, 2, 1, 0, 1], [1] * 12])
    expected = [
        spearmanr(x.repeat_interleave(row).numpy(), y.repeat_interleave(row).numpy()).statistic for row in times
    ]
    assert spearman(x, y, times).tolist() == pytest.approx(expected, abs=1e-12)


def test_a_constant_or_a_single_value_has_no_correlation():
    prompts = torch.arange(3)
    assert rank_correlation(torch.ones(3), torch.arange(3.0), prompts).value is None
    assert rank_correlation(torch.ones(1), torch.ones(1), prompts[:1]) == (None, None, None, 1, 1)


def test_few_prompts_give_no_interval():
    x, y = drawn(40, 2)
    few = rank_correlation(x, y, torch.arange(40) % 29)
    assert few.value is not None and few.low is None and few.prompts == 29
    many = rank_correlation(x, y, torch.arange(40) % 30)
    assert many.low < many.value < many.high


@pytest.mark.slow
def test_the_interval_covers_the_correlation_of_the_population():
    truth = 6 / torch.pi * torch.asin(torch.tensor(0.5**0.5 / 2))  # of a normal pair with correlation √½
    covered = 0
    for seed in range(60):
        x, y = drawn(60, seed)
        interval = rank_correlation(x, y, torch.arange(60))
        covered += interval.low <= float(truth) <= interval.high
    assert covered >= 52  # 95 % of 60 are 57; fewer than 52 have a probability below 1 % even at 93 %


def test_completions_of_one_prompt_that_repeat_each_other_widen_the_interval():
    x, y = drawn(40, 3)
    alone = rank_correlation(x, y, torch.arange(40))
    copied = rank_correlation(x.repeat(4), y.repeat(4), torch.arange(40).repeat(4))
    assert copied.value == pytest.approx(alone.value)
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))


def test_two_raters_are_compared_in_both_orders():
    x, y, number = pairs_of_raters([[1, 2], [3], [4, 5, 3]])
    assert sorted(zip(x.tolist(), y.tolist(), number.tolist(), strict=True)) == [
        (1, 2, 0), (2, 1, 0), (3, 4, 2), (3, 5, 2), (4, 3, 2), (4, 5, 2), (5, 3, 2), (5, 4, 2),
    ]  # fmt: skip
