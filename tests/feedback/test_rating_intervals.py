"""Intervals of the ratings of sources by hand, and on simulated worlds."""

import math

import numpy as np
import pytest
from scipy import stats

from feedback.quality.ratings import (
    bradley_terry,
    covariance,
    rate_rankings,
)
from feedback.quality.ratings.covariance import Clusters
from feedback.quality.ratings.pairs import pairs_of
from feedback.quality.ratings.report import cell_pairs, rate_pairs
from tests.feedback.rating_worlds import (
    WINS,
    WORLDS,
    big_world,
    ranking,
    rankings_of,
    ratings_of_the_population,
    values_of,
    world,
)
from tests.lengths import length


def clusters_by_hand(prompt, annotator):
    both = np.arange(len(prompt))
    return Clusters([(1, np.array(prompt)), (1, np.array(annotator)), (-1, both)], 2, True)


class TestIntervals:
    def test_the_sandwich_is_that_computed_by_hand_on_five_rows(self):
        # A beats B three times of five: d = log 1.5, p = 0.6. The scores of d are 0.4 for a win and −0.6 for a loss,
        # the information is 5 · 0.24 = 1.2. Sums by prompt: 0.8, 0.4, −0.6, −0.6; by annotator: −0.2, 0.8, −0.6.
        rows = [ranking(0, 1, sign, prompt=n) for n, sign in enumerate([1, 1, 1, -1, -1])]
        pairs = pairs_of(rows)
        data = cell_pairs(pairs, pairs.style)
        fit = bradley_terry.fit(data.cells)
        prompt, annotator = [0, 0, 1, 2, 3], [0, 1, 1, 0, 2]
        by_prompt, by_annotator, by_both = 0.64 + 0.16 + 0.36 + 0.36, 0.04 + 0.64 + 0.36, 3 * 0.16 + 2 * 0.36
        variance = (4 / 3 * by_prompt + 3 / 2 * by_annotator - 5 / 4 * by_both) / 1.2**2
        result = covariance.sandwich(data, fit, clusters_by_hand(prompt, annotator))
        assert fit.parameters == pytest.approx([math.log(1.5) / 2, -math.log(1.5) / 2])
        assert result == pytest.approx(variance / 4 * np.array([[1, -1], [-1, 1]]))

    def test_every_way_to_sum_clusters_gives_the_same_sums(self, monkeypatch):
        pairs, _ = big_world(3000, seed=1)
        data = cell_pairs(pairs, pairs.style)
        fit, clusters = bradley_terry.fit(data.cells), covariance.clusters_of(pairs)
        results = []
        for limit in (10**9, 20_000, 200):  # one dense matrix; many; clusters of one or two rows
            monkeypatch.setattr(covariance, "MAX_DENSE", limit)
            monkeypatch.setattr(covariance, "CHUNK", limit)
            results.append(covariance.sandwich(data, fit, clusters))
        assert results[1] == pytest.approx(results[0])
        assert results[2] == pytest.approx(results[0])
        last = len(fit.parameters) - 1
        assert covariance.sandwich_of_one(data, fit, clusters, last) == pytest.approx(results[0][last, last])

    def test_few_annotators_are_not_taken_for_a_sample_of_others(self):
        few = rate_rankings([row._replace(annotator_id=n % 5) for n, row in enumerate(rankings_of(WINS))])
        many = rate_rankings([row._replace(annotator_id=n % 6) for n, row in enumerate(rankings_of(WINS))])
        assert (few.annotators, few.covers_annotators) == (5, False)
        assert few.quantile == pytest.approx(stats.t.ppf(0.975, WINS.sum() - 1))
        assert (many.annotators, many.covers_annotators) == (6, True)
        assert many.quantile == pytest.approx(stats.t.ppf(0.975, 5))

    def test_too_few_rankings_have_no_interval(self):
        result = rate_rankings([ranking(0, 1, sign, prompt=n) for n, sign in enumerate([1, 1, -1])])
        assert values_of(result)[0] == pytest.approx(math.log(2) / 2)
        assert {(rating.low, rating.high) for rating in result.ratings} == {(None, None)}
        assert (result.difference(0, 1).value, result.difference(0, 1).low) == (pytest.approx(math.log(2)), None)

    def test_a_difference_has_the_interval_of_the_reparametrised_model(self):
        # Two sources: the difference is twice the first one's rating, so its interval is twice as wide.
        result = rate_rankings([ranking(0, 1, 1 if n % 3 else -1, prompt=n) for n in range(30)])
        best = result.ratings[0]
        difference = result.difference(0, 1)
        assert (difference.low, difference.high) == pytest.approx((2 * best.low, 2 * best.high))
        with pytest.raises(ValueError):
            result.difference(0, 2)

    @pytest.mark.slow
    def test_the_bootstrap_agrees_with_the_sandwich(self):
        rows = world(np.random.default_rng(3), **WORLDS["tastes"])
        sandwich, bootstrap = rate_rankings(rows), rate_rankings(rows, replicates=length(150, 60))
        assert values_of(bootstrap) == values_of(sandwich)
        width = [[rating.high - rating.low for rating in result.ratings] for result in (sandwich, bootstrap)]
        assert width[1] == pytest.approx(width[0], rel=0.3)
        assert rate_rankings(rows, replicates=5) == rate_rankings(rows, replicates=5)  # the same seed


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_the_intervals_hold_the_truth_in_95_percent_of_simulated_worlds(name):
    true, worlds = ratings_of_the_population(**WORLDS[name]), length(200, 8)
    covered = []
    for seed in range(worlds):
        result = rate_rankings(world(np.random.default_rng(seed), **WORLDS[name]))
        covered += [rating.low <= true[rating.source_id] <= rating.high for rating in result.ratings]
    low, high = length((0.93, 0.97), (0.85, 1.0))  # five dependent intervals a world: 8 worlds say little
    assert low <= np.mean(covered) <= high


@pytest.mark.slow
def test_intervals_for_independent_preferences_would_miss_the_truth_where_annotators_have_tastes():
    strong = WORLDS["tastes"] | {"people": 12, "taste": 1.2}
    true, covered, naive = ratings_of_the_population(**strong), [], []
    for seed in range(8):
        pairs = pairs_of(world(np.random.default_rng(seed), **strong))
        covered += [rating.low < true[rating.source_id] < rating.high for rating in rate_pairs(pairs).ratings]
        fit = bradley_terry.fit(cell_pairs(pairs, pairs.style).cells)
        errors = np.sqrt(np.diag(fit.inverse)[:5] - 1 / 5)
        naive += (np.abs(fit.parameters[:5] - true) < 1.96 * errors).tolist()
    assert np.mean(naive) < 0.82
    assert np.mean(covered) > 0.88
