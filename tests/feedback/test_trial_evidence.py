"""The evidence of a trial is valid after every vote, and finds real differences with few votes.

Rates and delays are computed over all sequences of votes, by the distribution of the number of wins after each vote.
"""

import math
import random

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta, binom

from feedback.quality.trial_evidence import (
    CONCENTRATION,
    Decision,
    confidence_sequence,
    evidence,
    independent_votes,
    log_mixture_ratio,
)
from tests.lengths import length

LAST = 2000  # votes up to which a trial is looked at


def mixture_by_quadrature(wins: int, losses: int, share: float) -> float:
    def integrand(p: float) -> float:
        likelihood_ratio = (p / share) ** wins * ((1 - p) / (1 - share)) ** losses
        return likelihood_ratio * beta.pdf(p, CONCENTRATION, CONCENTRATION)

    return quad(integrand, 0, 1, epsabs=0, epsrel=1e-10, limit=500)[0]


def declared_by(share: float, last: int) -> np.ndarray:
    """Return the probability that a trial of this true win share is decided within 1 … last decisive votes."""
    threshold = math.log(20)
    open_with = np.array([1.0])  # by the number of wins
    declared = np.zeros(last)
    total = 0.0
    for votes in range(1, last + 1):
        grown = np.zeros(votes + 1)
        grown[1:] += open_with * share
        grown[:-1] += open_with * (1 - share)
        for wins in np.flatnonzero(grown):
            if log_mixture_ratio(int(wins), int(votes - wins), 0.5) >= threshold:
                total += grown[wins]
                grown[wins] = 0.0
        declared[votes - 1] = total
        open_with = grown
    return declared


@pytest.mark.parametrize(
    ("wins", "losses", "share"), [(0, 0, 0.5), (7, 2, 0.5), (31, 44, 0.5), (12, 40, 0.3), (3, 0, 0.9)]
)
def test_the_mixture_ratio_is_the_integral_over_the_mixture(wins, losses, share):
    assert math.exp(log_mixture_ratio(wins, losses, share)) == pytest.approx(
        mixture_by_quadrature(wins, losses, share), rel=1e-8
    )


def test_equal_sources_are_seldom_declared_different_in_2000_looks():
    ever = declared_by(0.5, length(LAST, 600))[-1]
    assert 0.02 < ever <= 0.05  # not valid by being blind to everything


@pytest.mark.parametrize(("share", "most"), [(0.55, 1100), (0.6, 220), (0.65, 110)])
def test_half_of_all_trials_of_a_better_candidate_are_decided_soon(share, most):
    assert declared_by(share, most)[-1] >= 0.5


@pytest.mark.slow
def test_a_thousand_trials_of_a_checkpoint_against_itself_name_at_most_a_twentieth():
    draw = random.Random(5)
    trials = length(1000, 100)
    false = 0
    for _trial in range(trials):
        votes = [draw.choice((1, -1)) for _vote in range(length(LAST, 500))]
        false += evidence(votes).decision is not Decision.OPEN
    assert false <= binom.ppf(0.999, trials, 0.05)
    assert length(false / trials, 0.0) <= 0.05


@pytest.mark.parametrize("share", [0.3, 0.5, 0.62, 0.9])
def test_the_interval_holds_the_true_share_at_all_times_at_once(share):
    draw = np.random.default_rng(7)
    threshold = math.log(20)
    worlds, last = length(1000, 200), 400
    missed = 0
    for _world in range(worlds):
        wins = np.cumsum(draw.random(last) < share)
        missed += any(
            log_mixture_ratio(int(won), seen - int(won), share) >= threshold for seen, won in enumerate(wins, start=1)
        )
    assert missed <= binom.ppf(0.999, worlds, 0.05)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (0, 9), (9, 0), (5, 5), (130, 70), (1, 400)])
def test_the_interval_ends_where_the_ratio_reaches_one_in_alpha(wins, losses):
    low, high = confidence_sequence(wins, losses)
    assert 0 <= low <= (wins / (wins + losses) if wins + losses else 0.5) <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert math.exp(log_mixture_ratio(wins, losses, end)) == pytest.approx(20, rel=1e-6)
    assert (low == 0) == (wins == 0)
    assert (high == 1) == (losses == 0)


def test_a_decision_stays_when_later_votes_turn():
    decided = evidence([1] * 30)
    assert (decided.decision, decided.low > 0.5) == (Decision.BETTER, True)
    turned = evidence([1] * 30 + [-1] * 60)
    assert turned.decision is Decision.BETTER
    assert turned.decided_after == decided.decided_after < 30
    assert turned.low < 0.5  # the interval is that of all votes


def test_the_same_votes_against_the_candidate_say_that_it_is_worse():
    better, worse = evidence([1] * 20 + [-1] * 4), evidence([-1] * 20 + [1] * 4)
    assert (better.decision, worse.decision) == (Decision.BETTER, Decision.WORSE)
    assert (worse.low, worse.high) == pytest.approx((1 - better.high, 1 - better.low))


def test_a_trial_is_futile_once_the_interval_lies_below_the_worthwhile_share():
    votes = [1, -1] * 400
    assert evidence(votes).decision is Decision.OPEN
    found = evidence(votes, worthwhile_share=0.6)
    assert found.decision is Decision.FUTILE
    _low, high = confidence_sequence(found.decided_after // 2, found.decided_after - found.decided_after // 2)
    assert high < 0.6


def test_ties_are_counted_and_decide_nothing():
    without, with_ties = evidence([1, 1, -1] * 5), evidence([1, 0, 1, 0, -1] * 5)
    assert (with_ties.low, with_ties.high, with_ties.decision) == (without.low, without.high, without.decision)
    assert with_ties.ties == 10
    assert with_ties.win_share == pytest.approx(2 / 3)
    assert with_ties.win_rate == pytest.approx((10 + 5) / 25)


def test_nothing_is_known_before_the_first_vote():
    found = evidence([])
    assert (found.low, found.high, found.win_share, found.win_rate) == (0.0, 1.0, None, None)


def test_the_first_decisive_vote_of_a_comparison_is_tested_and_no_other():
    votes = [("a", 0), ("b", 1), ("a", -1), ("b", -1), ("c", 0), ("a", 1), ("c", 0)]
    assert independent_votes(votes) == [1, -1, 0]


def test_votes_that_copy_each_other_do_not_raise_the_false_alarm_rate():
    """Three annotators who see the same two texts agree far more often than by chance."""
    draw = random.Random(3)
    trials = length(1000, 150)
    false = 0
    for _trial in range(trials):
        votes = []
        for comparison in range(150):
            liked = draw.choice((1, -1))
            votes += [(comparison, liked if draw.random() < 0.9 else -liked) for _annotator in range(3)]
        false += evidence(independent_votes(votes)).decision is not Decision.OPEN
    assert false <= binom.ppf(0.999, trials, 0.05)


def people_voting(draw, share, decisive):
    """Return votes of people: a fifth are ties, and on a third of the comparisons a second person votes much alike.

    The candidate has that share of the `decisive` first votes that are no ties.
    """
    votes, comparison = [], 0
    while decisive:
        vote = 0 if draw.random() < 0.2 else 1 if draw.random() < share else -1
        decisive -= abs(vote)
        votes.append((comparison, vote))
        if vote and draw.random() < 1 / 3:
            votes.append((comparison, vote if draw.random() < 0.9 else -vote))
        comparison += 1
    return votes


@pytest.mark.slow
def test_ties_and_second_votes_declare_no_more_equal_checkpoints_different():
    draw = random.Random(11)
    trials = length(1000, 100)
    false = 0
    for _trial in range(trials):
        votes = independent_votes(people_voting(draw, 0.5, length(LAST, 400)))
        false += evidence(votes).decision is not Decision.OPEN
    assert false <= binom.ppf(0.999, trials, 0.05)
    assert length(false / trials, 0.0) <= 0.05


@pytest.mark.parametrize(
    ("share", "most"),
    [
        pytest.param(0.55, 1100, marks=pytest.mark.full),
        (0.6, 220),
        pytest.param(0.65, 110, marks=pytest.mark.full),
    ],
)
def test_ties_and_second_votes_do_not_delay_the_decision(share, most):
    """Half of all simulated trials are decided within the decisive votes that the exact computation allows."""
    draw = random.Random(13)
    found = [evidence(independent_votes(people_voting(draw, share, most))) for _trial in range(length(400, 60))]
    assert sum(one.decision is Decision.BETTER for one in found) >= len(found) / 2
    assert all(one.decisive == most and one.ties > 0 for one in found)


@pytest.mark.parametrize(
    ("votes", "options"),
    [([2], {}), ([1], {"alpha": 0.0}), ([1], {"worthwhile_share": 0.4}), ([1], {"worthwhile_share": 1.0})],
)
def test_votes_and_settings_out_of_range_are_refused(votes, options):
    with pytest.raises(ValueError, match=r"vote|alpha|worthwhile_share"):
        evidence(votes, **options)
