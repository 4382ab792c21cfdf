"""Ratings of sources against other libraries, brute force and numbers computed by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import optimize, stats

from feedback.quality.ratings import (
    RankedSources,
    Status,
    bradley_terry,
    connectivity,
    rate_rankings,
)
from feedback.quality.ratings.bradley_terry import Cells
from feedback.quality.ratings.pairs import pairs_of, sorting_order
from feedback.quality.ratings.report import cell_pairs
from tests.feedback.rating_worlds import (
    WINS,
    brute_force,
    ranking,
    rankings_of,
    statuses_of,
    values_of,
)
from tests.lengths import length


class TestModel:
    def test_the_ratings_are_those_of_choix_and_statsmodels(self):
        """choix 0.4 `ilsr_pairwise` with alpha=0, statsmodels 0.15 `GLM` with a binomial family."""
        values = values_of(rate_rankings(rankings_of(WINS)))
        expected = [0.60598684, -0.05154746, 0.0810071, -0.63544647]
        assert [values[source] for source in range(4)] == pytest.approx(expected, abs=1e-6)

    def test_the_inverse_information_is_the_covariance_of_statsmodels(self):
        pairs = pairs_of(rankings_of(WINS))
        fit = bradley_terry.fit(cell_pairs(pairs, pairs.style).cells)
        errors = np.sqrt(np.diag(fit.inverse - 1 / 4))
        assert errors == pytest.approx([0.30441701, 0.31789569, 0.29409465, 0.32055844], abs=1e-6)

    @pytest.mark.parametrize("covariates", [0, 2])
    def test_ties_and_style_are_those_of_brute_force(self, covariates):
        generator = np.random.default_rng(covariates)
        count = 150
        first = generator.integers(0, 4, count)
        second = (first + generator.integers(1, 4, count)) % 4
        sign, style = generator.integers(-1, 2, count), generator.normal(size=(count, covariates))
        rows = [
            ranking(int(i), int(j), int(s), prompt=n, style=[[x, 0.0] for x in xs])
            for n, (i, j, s, xs) in enumerate(zip(first, second, sign, style, strict=True))
        ]
        names = [f"style {index}" for index in range(covariates)]
        result = rate_rankings(rows, names)
        theta, beta, log_nu = brute_force(first, second, np.array([sign == -1, sign == 0, sign == 1]) * 1.0, style)
        values = values_of(result)
        assert [values[source] for source in range(4)] == pytest.approx(theta, abs=1e-4)
        assert [one.value for one in result.style] == pytest.approx(beta, abs=1e-4)
        assert result.log_nu.value == pytest.approx(log_nu, abs=1e-4)

    def test_the_derivatives_are_those_by_finite_differences(self):
        generator = np.random.default_rng(5)
        first, second = np.array([0, 0, 1, 0, 1]), np.array([1, 2, 2, 1, 2])
        cells = Cells(first, second, generator.normal(size=(5, 2)), generator.uniform(1, 5, (5, 3)), 3)
        at = generator.normal(size=6)

        def gradient(parameters):
            return bradley_terry.derivatives(cells, parameters, True).gradient

        exact = bradley_terry.derivatives(cells, at, True)
        steps = 1e-5 * np.eye(6)
        slopes = [
            bradley_terry.derivatives(cells, at + step, True).log_likelihood
            - bradley_terry.derivatives(cells, at - step, True).log_likelihood
            for step in steps
        ]
        second_slopes = np.array([gradient(at + step) - gradient(at - step) for step in steps]) / 2e-5
        information = exact.information.copy()
        information[:3, :3] -= 1 / 3
        assert exact.gradient == pytest.approx(np.array(slopes) / 2e-5, abs=1e-6)
        assert information == pytest.approx(-second_slopes, abs=1e-6)

    def test_a_ranking_of_four_is_its_six_pairs(self):
        generator = np.random.default_rng(1)
        whole, expanded = [], []
        for prompt in range(60):
            sources, ranks = generator.permutation(5)[:4].tolist(), generator.integers(1, 4, 4).tolist()
            order = generator.permutation(4).tolist()
            whole.append(RankedSources(prompt, prompt % 7, ranks, order, sources))
            for i, j in itertools.combinations(range(4), 2):
                sign = int(np.sign(ranks[j] - ranks[i]))
                expanded.append(ranking(sources[i], sources[j], sign, prompt, prompt % 7))
        one, other = rate_rankings(whole), rate_rankings(expanded)
        assert one.preferences == 360
        assert (one.wins, one.ties) == (other.wins, other.ties)
        for name in ("value", "low", "high"):
            assert [getattr(rating, name) for rating in one.ratings] == pytest.approx(
                [getattr(rating, name) for rating in other.ratings]
            )

    def test_pairs_of_one_source_are_left_out(self):
        rows = rankings_of(WINS)
        with_own = [*rows, RankedSources(1000, 0, [1, 1], [0, 1], [2, 2])]
        assert rate_rankings(with_own) == rate_rankings(rows)

    def test_the_order_of_positions_has_no_effect(self):
        rows = rankings_of(WINS)
        turned = [
            row._replace(ranks=row.ranks[::-1], sources=row.sources[::-1], display_order=row.display_order[::-1])
            for row in rows
        ]
        one, other = rate_rankings(rows), rate_rankings(turned)
        assert values_of(one) == pytest.approx(values_of(other))
        assert one.wins == other.wins == WINS.tolist()
        assert one.first_shown.value == pytest.approx(other.first_shown.value)

    @pytest.mark.parametrize("prompts", [1, 50, 2**16, 2**16 + 1, 2**40])
    def test_the_sorting_order_is_that_of_numpy(self, prompts):
        generator = np.random.default_rng(prompts)
        prompt, annotator = generator.integers(prompts, size=3000), generator.integers(7, size=3000)
        assert sorting_order(prompt, annotator).tolist() == np.lexsort((annotator, prompt)).tolist()
        assert sorting_order(prompt[:0], annotator[:0]).tolist() == []

    def test_no_rankings_give_no_ratings(self):
        result = rate_rankings([])
        assert (result.ratings, result.sources, result.wins, result.preferences) == ([], [], [], 0)
        assert result.first_shown is None


class TestConnectivity:
    def test_sources_without_a_path_of_wins_both_ways_are_not_rated(self):
        # 0 and 1 beat each other, and so do 2, 3 and 4, which lost to 0 only. 5 and 6 met nobody else.
        wins = np.zeros((7, 7), int)
        for winner, loser in [(0, 1), (1, 0), (2, 3), (3, 4), (4, 2), (0, 2), (5, 6), (6, 5)]:
            wins[winner, loser] = 2
        result = rate_rankings(rankings_of(wins))
        assert statuses_of(result) == {
            **dict.fromkeys((2, 3, 4), Status.RATED),
            **dict.fromkeys((0, 1, 5, 6), Status.DISCONNECTED),
        }
        assert result.rated == [2, 3, 4]
        assert values_of(result) == {0: None, 1: None, 5: None, 6: None, **dict.fromkeys((2, 3, 4), pytest.approx(0))}

    def test_a_source_that_won_or_lost_everything_is_reported_and_does_not_move_the_others(self):
        wins = np.zeros((6, 6), int)
        wins[:4, :4] = WINS
        wins[4, :4], wins[:4, 5] = 3, 2
        result = rate_rankings(rankings_of(wins))
        alone = values_of(rate_rankings(rankings_of(WINS)))
        assert values_of(result) == {**{k: pytest.approx(v) for k, v in alone.items()}, 4: None, 5: None}
        assert statuses_of(result)[4] == Status.ONLY_WINS
        assert statuses_of(result)[5] == Status.ONLY_LOSSES
        assert next(rating for rating in result.ratings if rating.source_id == 4).wins == 12

    def test_a_source_that_met_only_itself_is_disconnected(self):
        rows = [*rankings_of(WINS), RankedSources(1000, 0, [1, 2], [0, 1], [9, 9])]
        assert statuses_of(rate_rankings(rows))[9] is Status.DISCONNECTED

    def test_a_tie_connects_in_both_directions(self):
        wins, ties = np.zeros((4, 4), int), np.zeros((4, 4), int)
        wins[0, 1] = wins[1, 2] = wins[2, 0] = wins[3, 0] = 4
        without = rate_rankings(rankings_of(wins))
        ties[1, 3] = 1
        connected = rate_rankings(rankings_of(wins, ties))
        assert statuses_of(without)[3] == Status.ONLY_WINS
        assert set(statuses_of(connected).values()) == {Status.RATED}

    def test_a_source_that_only_won_and_tied_against_one_other_has_no_finite_rating(self):
        wins, ties = np.array([[0, 3], [0, 0]]), np.array([[0, 2], [2, 0]])
        assert set(statuses_of(rate_rankings(rankings_of(wins, ties))).values()) == {Status.UNDETERMINED}

    def test_all_are_rated_exactly_where_a_linear_program_finds_no_direction_without_a_maximum(self):
        generator = np.random.default_rng(0)
        outcomes = []
        for _ in range(length(200, 60)):
            size = int(generator.integers(2, 5))
            wins = np.triu(generator.random((size, size)) < 0.5, 1) | np.tril(generator.random((size, size)) < 0.3, -1)
            ties = np.triu(generator.random((size, size)) < 0.3, 1)
            ties = ties | ties.T
            is_rated = all(status == Status.RATED for status in connectivity.statuses(wins * 1, ties * 1))
            assert is_rated == (not can_grow_without_limit(wins, ties))
            outcomes.append(is_rated)
        assert 0.1 < np.mean(outcomes) < 0.9


def can_grow_without_limit(wins, ties):
    """Return whether a direction of (θ, log ν), other than moving all θ together, lowers no observed log probability.

    Outcomes have the exponents d/2, −d/2 and log ν: along the direction none may outgrow the observed one.
    """
    size, has_ties = len(wins), bool(ties.any())

    def exponents(i, j):
        d = np.zeros(size + 1)
        d[[i, j]] = 0.5, -0.5
        return {"first": d, "second": -d, **({"tie": np.eye(size + 1)[size]} if has_ties else {})}

    rows = []
    for i, j in itertools.permutations(range(size), 2):
        by_outcome = exponents(i, j)
        for outcome, is_seen in (("first", wins[i, j]), ("tie", ties[i, j])):
            if is_seen:
                rows += [by_outcome[outcome] - other for name, other in by_outcome.items() if name != outcome]
    connected = np.array(rows).reshape(-1, size + 1)
    if np.linalg.matrix_rank(connected) < size - 1 + has_ties:
        return True  # a direction without any effect
    result = optimize.linprog(-connected.sum(axis=0), A_ub=-connected, b_ub=np.zeros(len(rows)), bounds=(-1, 1))
    return -result.fun > 1e-9


class TestCovariates:
    def test_the_first_shown_completion_gains_the_log_odds_of_its_wins(self):
        # Shown first, 0 wins 9 of 12; shown second, 6 of 12: logits log 3 and 0, half of whose difference is the bias.
        rows = [ranking(0, 1, 1 if n < 9 else -1, prompt=n) for n in range(12)]
        rows += [ranking(0, 1, 1 if n < 6 else -1, 12 + n, 0, first_is_shown_first=False) for n in range(12)]
        result = rate_rankings(rows)
        assert result.first_shown.value == pytest.approx(math.log(3) / 2)
        # Both logits have the variance 1/n₁ + 1/n₂ of a binomial, which the sandwich of saturated cells equals.
        error = math.sqrt((1 / 9 + 1 / 3 + 1 / 6 + 1 / 6) * 24 / 23) / 2
        assert result.first_shown.high - result.first_shown.value == pytest.approx(result.quantile * error)

    def test_a_first_completion_that_always_wins_has_no_finite_bias(self):
        rows = [ranking(0, 1, 1, prompt=n) for n in range(8)]
        rows += [ranking(0, 1, -1, 8 + n, first_is_shown_first=False) for n in range(8)]
        result = rate_rankings(rows)
        assert result.first_shown.value is None
        assert values_of(result)[0] == pytest.approx(0)

    def test_length_control_removes_what_length_explains(self):
        generator = np.random.default_rng(4)
        rows = []
        for n in range(1000):  # two sources of the same quality; 0 writes longer answers, and people like length
            longer = [generator.normal(1.0, 1), generator.normal(0, 1)]
            chance = stats.logistic.cdf(0.8 * (longer[0] - longer[1]))
            sign = 1 if generator.random() < chance else -1
            rows.append(ranking(0, 1, sign, prompt=n, annotator=n % 9, style=[longer]))
        plain = rate_rankings([row._replace(style=()) for row in rows])
        controlled = rate_rankings(rows, ["log_length"])
        length_effect = controlled.style[0]
        assert plain.ratings[0].low > 0.1
        assert length_effect.low < 0.8 < length_effect.high
        assert length_effect.low > 0.5
        assert all(rating.low < 0 < rating.high for rating in controlled.ratings)

    @pytest.mark.parametrize("style", ["the source's", "the winner's", "none"])
    def test_a_style_that_is_equivalent_to_sources_or_wins_leaves_nothing_rated(self, style):
        rows = []
        for n, row in enumerate(rankings_of(WINS)):
            values = {"the source's": [float(x) for x in row.sources], "none": [2.0, 2.0]}
            values["the winner's"] = [1.0 + n % 3, 0.0] if row.ranks[0] == 1 else [0.0, 1.0 + n % 3]
            rows.append(row._replace(style=[values[style]]))
        result = rate_rankings(rows, ["length"])
        assert set(statuses_of(result).values()) == {Status.UNDETERMINED}
        assert [(one.name, one.value) for one in result.style] == [("length", None)]
