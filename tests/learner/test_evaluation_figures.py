"""Figures of an evaluation with their intervals: against numpy, scipy, deletion by hand, and simulated worlds."""

import numpy as np
import pytest
import scipy

from training.learner.policy.figures import distinct_figure, mean_figure, share_figure

# Four prompts; the words of their completions as numbers.
TEXTS = [[[1, 2, 1]], [[2, 3], []], [[4]], [[1, 2]]]


def test_a_mean_has_the_normal_interval_of_the_prompts_means():
    values = np.random.default_rng(0).gamma(2.0, size=(40, 3))
    figure = mean_figure([i // 3 for i in range(120)], values.flatten().tolist())
    means = values.mean(1)
    low, high = scipy.stats.norm.interval(0.95, means.mean(), scipy.stats.sem(means))
    assert figure == pytest.approx({"value": values.mean(), "low": low, "high": high, "count": 40})


def test_fewer_than_30_prompts_have_a_mean_without_an_interval():
    assert mean_figure([0, 0, 1], [1.0, 2.0, 6.0]) == {"value": 3.75, "low": None, "high": None, "count": 2}
    assert share_figure([0, 1], [0.5, 1.0]) == {"value": 0.75, "low": None, "high": None, "count": 2}


@pytest.mark.parametrize("hits", [0, 1, 13, 50])
def test_a_share_has_wilsons_interval(hits):
    figure = share_figure(list(range(50)), [1.0] * hits + [0.0] * (50 - hits))
    interval = scipy.stats.binomtest(hits, 50).proportion_ci(method="wilson")
    assert (figure["value"], figure["count"]) == (hits / 50, 50)
    # Between 0 and 1 the variance is estimated with n − 1, as everywhere in an evaluation.
    assert (figure["low"], figure["high"]) == pytest.approx(tuple(interval), abs=0.002 if 0 < hits < 50 else 1e-12)


def test_a_share_of_prompts_whose_completions_agree_counts_prompts_not_completions():
    prompts, values = [i // 4 for i in range(160)], [float(i // 4 < 10) for i in range(160)]
    figure, single = share_figure(prompts, values), share_figure(list(range(40)), [1.0] * 10 + [0.0] * 30)
    assert figure == pytest.approx(single) and figure["count"] == 40


def test_a_mean_between_0_and_1_has_an_interval_between_0_and_1():
    figure = share_figure(list(range(40)), [0.0] * 38 + [0.5, 1.0])
    assert figure["low"] == 0.0 < figure["value"] < figure["high"] < 0.12


def test_distinct_n_is_that_of_a_count_by_hand():
    for n, distinct in ((1, 4), (2, 3)):  # 1 2 3 4; and 1 2, 2 1, 2 3
        assert distinct_figure(TEXTS, n) == {"value": distinct / 8, "low": None, "high": None, "count": 4}
    assert distinct_figure([[[]], [[], []]], 1) is None
    assert distinct_figure([[[7]], *[[[]]] * 40], 1) == {"value": 1.0, "low": None, "high": None, "count": 41}


def distinct(texts, n):
    """Compute distinct-n of token lists as the paper defines it."""
    grams = {tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)}
    return len(grams) / sum(map(len, texts))


def zipf_texts(generator, prompts):
    """Return one text per prompt: 4 to 12 tokens of a long-tailed vocabulary."""
    return [np.minimum(generator.zipf(1.5, size), 5000).tolist() for size in generator.integers(4, 13, prompts)]


@pytest.mark.parametrize("n", [1, 2])
def test_the_interval_of_distinct_n_is_the_jackknifes(n):
    texts = zipf_texts(np.random.default_rng(1), 35)
    without = [distinct(texts[:i] + texts[i + 1 :], n) for i in range(35)]
    error = np.sqrt(34 / 35 * np.sum((without - np.mean(without)) ** 2))
    low, high = scipy.stats.norm.interval(0.95, distinct(texts, n), error)
    figure = distinct_figure([[text] for text in texts], n)
    assert figure == pytest.approx({"value": distinct(texts, n), "low": low, "high": min(high, 1), "count": 35})


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_the_interval_of_distinct_n_holds_the_expected_value_nineteen_times_in_twenty(n):
    """The truth is the mean over many other worlds of equally many prompts."""
    generator = np.random.default_rng(2)
    truth = np.mean([distinct(zipf_texts(generator, 40), n) for _ in range(1500)])
    figures = [distinct_figure([[text] for text in zipf_texts(generator, 40)], n) for _ in range(400)]
    assert 0.92 <= np.mean([figure["low"] <= truth <= figure["high"] for figure in figures]) <= 0.99
