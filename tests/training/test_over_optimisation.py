"""Over-optimisation: the rule on simulated worlds, the line of best of n, and the figures of rounds."""

import math

import numpy as np
import pytest
from scipy import stats

from feedback.quality.ratings import Coefficient, rate_rankings
from tests.feedback.rating_worlds import ranking
from tests.lengths import length
from training.models import Checkpoint, Round
from training.over_optimisation import (
    LEVEL,
    MIN_RISE,
    Finding,
    RoundPoint,
    best_of_n,
    best_of_n_win_rate,
    points_of,
    win_share,
    with_findings,
)

GAIN = Coefficient("reward_gain", 0.5, 0.3, 0.7)


def world(seed, rises, prompts, annotators=12, taste=0.3):
    """Findings of rounds whose checkpoints are better than the one before by `rises`, from rankings of neighbours."""
    generator = np.random.default_rng(seed)
    strengths = np.cumsum([0.0, *rises])
    tastes = generator.normal(0, taste, (annotators, len(strengths)))
    first, annotator = generator.integers(len(rises), size=prompts), generator.integers(annotators, size=prompts)
    utilities = strengths + tastes[annotator]
    every = np.arange(prompts)
    chance = stats.logistic.cdf(utilities[every, first + 1] - utilities[every, first])
    signs = np.where(generator.random(prompts) < chance, -1, 1)
    columns = zip(first.tolist(), (first + 1).tolist(), signs.tolist(), range(prompts), annotator.tolist(), strict=True)
    rows = [ranking(*column) for column in columns]
    ratings = rate_rankings(rows)
    points = [
        RoundPoint(n + 1, n + 1, f"round-{n + 1}", None, GAIN, None, None, ratings.difference(n + 1, n))
        for n in range(len(rises))
        if {n, n + 1} <= set(ratings.rated)
    ]
    return [point.finding for point in with_findings(points, ratings.quantile, ratings.degrees)]


REPORTED = {Finding.FALLS, Finding.FLAT}


class TestRule:
    @pytest.mark.slow
    def test_at_most_one_project_in_twenty_is_reported_where_every_round_is_noticeably_better(self):
        worlds = length(1000, 60)
        # Averaged over tastes, log-odds shrink by about 3 %: the rises are MIN_RISE for the population.
        alarms = sum(bool(REPORTED & set(world(seed, [1.04 * MIN_RISE] * 4, 600))) for seed in range(worlds))
        assert alarms <= stats.binom.ppf(0.999, worlds, LEVEL)

    def test_a_rating_that_falls_while_the_reward_rises_is_reported(self):
        found = [world(seed, [1.0, 0.6, -0.9], 1500) for seed in range(4)]
        assert [findings[-1] for findings in found] == [Finding.FALLS] * 4
        assert {findings[0] for findings in found} == {Finding.RISES}

    @pytest.mark.slow
    def test_a_flat_rating_is_reported_with_enough_rankings_and_undecided_with_few(self):
        assert world(1, [0.0], 6000, annotators=60) == [Finding.FLAT]
        assert world(1, [0.0], 100) == [Finding.UNDECIDED]

    def test_the_bound_has_bonferronis_correction(self):
        # Of one round the one-sided 2.5 % bound is 0.19, below MIN_RISE; of five rounds the 0.5 % bound is above.
        quantile = stats.t.ppf(0.975, 40)
        error = 0.19 / quantile
        rise = Coefficient("difference", 0.0, -quantile * error, quantile * error)
        point = RoundPoint(1, 1, "one", None, GAIN, None, None, rise)
        assert [one.finding for one in with_findings([point], quantile, 40)] == [Finding.FLAT]
        five = with_findings(
            [point, *(RoundPoint(n, n, "", None, GAIN, None, None, rise) for n in range(4))], quantile, 40
        )
        assert {one.finding for one in five} == {Finding.UNDECIDED}

    @pytest.mark.parametrize("gain", [None, Coefficient("g", 0.5), Coefficient("g", 0.5, -0.1, 1.1)])
    def test_a_round_without_a_proven_gain_is_not_reported(self, gain):
        falling = Coefficient("difference", -1.0, -1.5, -0.5)
        (point,) = with_findings([RoundPoint(1, 1, "one", None, gain, None, None, falling)], 2.0, 40)
        assert point.finding == Finding.NO_GAIN


class TestBestOfN:
    def test_the_kl_and_the_win_rate_are_those_of_a_simulation_with_distinct_completions(self):
        """The k-th of 1,000 equally likely texts is the best of n with probability (k/1000)ⁿ − ((k − 1)/1000)ⁿ."""
        grid = np.arange(1001) / 1000
        for n in (2, 4, 16):
            best = np.diff(grid**n)
            kl = (best * np.log(best * 1000)).sum()
            wins = (best * (np.arange(1000) + 0.5) / 1000).sum()
            assert best_of_n(n) == (pytest.approx(kl, abs=2e-3), pytest.approx(wins, abs=2e-3))

    @pytest.mark.parametrize("n", [1, 1.5, 4, 64, 10**6])
    def test_the_win_rate_at_a_kl_inverts_it(self, n):
        kl, wins = best_of_n(n)
        assert best_of_n_win_rate(kl) == pytest.approx(wins)

    def test_a_share_of_wins_is_the_logistic_of_the_rating(self):
        share = win_share(Coefficient("d", math.log(3), 0.0, math.log(9)))
        assert (share.value, share.low, share.high) == pytest.approx((0.75, 0.5, 0.9))
        assert win_share(None) is None


@pytest.fixture
def lineage(project, base):
    """Two finished rounds in a row, from the imported model."""
    parent = base
    for number in (1, 2):
        source = project.sources.create(name=f"round-{number}", kind="checkpoint")
        made = Checkpoint.objects.create(project=project, source=source, kind="round", path="/made", parent=parent)
        gain = {"reward_gain": 0.5, "reward_gain_low": 0.2, "reward_gain_high": 0.8}
        samples = {"kl_from_root": 1.5 * number, "kl_from_root_low": number, "kl_from_root_high": 2.0 * number}
        Round.objects.create(
            project=project,
            number=number,
            status="finished",
            base=parent,
            checkpoint=made,
            cutoff=0,
            ranking_count=0,
            results={
                "policy": gain,
                "samples" if number == 1 else "guards": samples,
            },  # before guards existed, and since
        )
        parent = made
    return base, *project.checkpoints.filter(kind="round").order_by("pk")


@pytest.mark.django_db
class TestRounds:
    def ratings(self, lineage, signs=(-1, -1, 1)):
        ids = [checkpoint.source_id for checkpoint in lineage]
        rows = [ranking(ids[n % 2], ids[n % 2 + 1], signs[n // 2 % 3], prompt=n) for n in range(90)]
        return rate_rankings(rows)

    def test_gains_add_up_over_the_lineage(self, project, lineage):
        first, second = points_of(project, self.ratings(lineage))
        assert (first.reward.value, first.reward.low) == pytest.approx((0.5, 0.2))
        assert second.reward.value == pytest.approx(1.0)
        assert second.reward.high - 1.0 == pytest.approx(0.3 * math.sqrt(2))
        assert (second.kl.value, second.kl.low, second.kl.high) == (3.0, 2, 4.0)

    def test_a_gain_over_the_root_is_the_whole_gain(self, project, lineage):
        Round.objects.filter(number=2).update(settings={"round": {"reference": "root"}})
        ratings = self.ratings(lineage)
        first, second = points_of(project, ratings)
        assert second.reward.value == pytest.approx(0.5)
        assert second.rise == second.rating != first.rise
        assert second.rating.value == pytest.approx(2 * math.log(2))

    def test_ratings_are_differences_to_the_root_and_to_the_base(self, project, lineage):
        first, second = points_of(project, self.ratings(lineage))
        assert first.rating.value == pytest.approx(math.log(2))
        assert second.rating.value == pytest.approx(2 * math.log(2))
        assert second.rise.value == pytest.approx(math.log(2))
        assert first.win_rate.value == pytest.approx(2 / 3)
        assert [point.finding for point in (first, second)] == [Finding.RISES, Finding.RISES]

    def test_other_rewards_are_not_the_reward_models_score(self, project, lineage):
        rewards = [{"name": "reward_model"}, {"name": "similarity"}]
        Round.objects.filter(number=1).update(settings={"ppo": {"rewards": rewards}})
        first, second = points_of(project, self.ratings(lineage))
        assert (first.gain, first.reward, second.reward) == (None, None, None)
        assert second.gain.value == 0.5

    def test_unrated_checkpoints_and_missing_figures_are_none(self, project, lineage):
        Round.objects.update(results={})
        first, second = points_of(project, rate_rankings([]))
        assert (first.kl, first.gain, first.rating, first.win_rate, first.best_of_n) == (None,) * 5
        assert second.finding == Finding.NO_GAIN
