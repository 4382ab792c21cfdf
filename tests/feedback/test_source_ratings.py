"""Ratings of sources against other libraries, brute force and numbers computed by hand, and on simulated worlds."""

import itertools
import math

import numpy as np
import pytest
from scipy import optimize, stats

from feedback import imports
from feedback.models import Completion, Ranking
from feedback.quality import ratings
from feedback.quality.ratings import (
    RankedSources,
    Status,
    bradley_terry,
    connectivity,
    covariance,
    ranked_sources,
    rate_rankings,
)
from feedback.quality.ratings.bradley_terry import Cells
from feedback.quality.ratings.covariance import Clusters
from feedback.quality.ratings.pairs import pairs_of
from feedback.quality.ratings.report import cell_pairs, rate_pairs
from tests.factories import adjudicate, membership, person, rank_by_position, rank_next
from tests.lengths import length

WINS = np.array([[0, 7, 4, 9], [3, 0, 6, 2], [5, 2, 0, 8], [1, 4, 3, 0]])  # of the row's source over the column's
STRENGTHS = np.array([-1.0, -0.4, 0.0, 0.5, 0.9])


def ranking(first, second, sign, prompt=0, annotator=0, first_is_shown_first=True, **fields):
    """A ranking of two completions; sign 1: the first is better, 0: they tie, −1: the second is better."""
    ranks = {1: [1, 2], 0: [1, 1], -1: [2, 1]}[sign]
    return RankedSources(
        prompt, annotator, ranks, [0, 1] if first_is_shown_first else [1, 0], [first, second], **fields
    )


def rankings_of(wins, ties=None):
    """Rankings with these counts, each of its own prompt."""
    rows = []
    for i, j in itertools.permutations(range(len(wins)), 2):
        rows += [(i, j, 1)] * int(wins[i][j]) + [(i, j, 0)] * int(ties[i][j] if ties is not None and i < j else 0)
    return [ranking(*row, prompt=index) for index, row in enumerate(rows)]


def values_of(result):
    return {rating.source_id: rating.value for rating in result.ratings}


def statuses_of(result):
    return {rating.source_id: rating.status for rating in result.ratings}


def log_probabilities(d, nu):
    """The logarithms of Davidson's probabilities that the first loses, ties and wins, written out from his paper."""
    strengths = np.exp(d), np.ones_like(d)  # π of the two
    tie = nu * np.sqrt(strengths[0] * strengths[1])
    total = strengths[0] + strengths[1] + tie
    with np.errstate(divide="ignore"):
        return np.log(np.array([strengths[1], tie, strengths[0]]) / total)


def brute_force(first, second, weights, style=None, with_ties=True):
    """Return (ratings, coefficients, log ν) that minimise the likelihood, by a search without our derivatives.

    weights: [3, N] of loss, tie and win of the first source.
    """
    count = max(*first, *second) + 1
    style = np.zeros((len(first), 0)) if style is None else style

    def loss(parameters):
        theta, beta, log_nu = np.split(parameters, [count, count + style.shape[1]])
        d = theta[first] - theta[second] + style @ beta
        logs = log_probabilities(d, np.exp(log_nu[0]) if with_ties else 0.0)
        return -(weights[weights > 0] * logs[weights > 0]).sum() + theta.mean() ** 2

    start = np.zeros(count + style.shape[1] + 1)
    best = optimize.minimize(loss, start, method="BFGS", options={"gtol": 1e-7}).x
    return best[:count], best[count:-1], best[-1]


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

    def test_the_bootstrap_agrees_with_the_sandwich(self):
        rows = world(np.random.default_rng(3), **WORLDS["tastes"])
        sandwich, bootstrap = rate_rankings(rows), rate_rankings(rows, replicates=length(150, 60))
        assert values_of(bootstrap) == values_of(sandwich)
        width = [[rating.high - rating.low for rating in result.ratings] for result in (sandwich, bootstrap)]
        assert width[1] == pytest.approx(width[0], rel=0.3)
        assert rate_rankings(rows, replicates=5) == rate_rankings(rows, replicates=5)  # the same seed


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


def big_world(count, sources=8, annotators=30, seed=0):
    """Pairs of random sources with ties; each prompt has one or two."""
    generator = np.random.default_rng(seed)
    strengths = generator.normal(size=sources)
    rows = []
    for n in range(count):
        first, second = generator.permutation(sources)[:2]
        chances = np.exp(log_probabilities(strengths[first] - strengths[second], 0.4))
        sign = int(generator.choice([-1, 0, 1], p=chances))
        rows.append(ranking(int(first), int(second), sign, n * 2 // 3, int(generator.integers(annotators))))
    return pairs_of(rows), strengths


# Worlds: of two completions with ties where rankings are independent; where annotators have tastes; and of four
# completions without ties, where annotators have tastes and completions of one source differ from prompt to prompt.
WORLDS = {
    "independent": {"prompts": 300, "people": 10, "votes": 1, "size": 2, "nu": 0.5, "taste": 0.0, "quality": 0.0},
    "tastes": {"prompts": 250, "people": 20, "votes": 2, "size": 2, "nu": 0.5, "taste": 0.6, "quality": 0.0},
    "prompts": {"prompts": 100, "people": 20, "votes": 3, "size": 4, "nu": 0.0, "taste": 0.5, "quality": 0.8},
}


def world(generator, prompts, people, votes, size, nu, taste, quality):
    """Rankings by annotators who each have a taste for sources, of completions that each have a quality."""
    tastes, rows = generator.normal(0, taste, (people, len(STRENGTHS))), []
    for prompt in range(prompts):
        sources = generator.permutation(len(STRENGTHS))[:size]
        qualities = STRENGTHS[sources] + generator.normal(0, quality, size)
        for annotator in generator.permutation(people)[:votes]:
            utilities = qualities + tastes[annotator, sources]
            if nu:
                sign = generator.choice([-1, 0, 1], p=np.exp(log_probabilities(utilities[0] - utilities[1], nu)))
                ranks = {1: [1, 2], 0: [1, 1], -1: [2, 1]}[int(sign)]
            else:
                ranks = (1 + np.argsort(np.argsort(-utilities - generator.gumbel(size=size)))).tolist()
            order = generator.permutation(size).tolist()
            rows.append(RankedSources(prompt, int(annotator), ranks, order, sources.tolist()))
    return rows


def ratings_of_the_population(nu, taste, quality, **_):
    """The ratings that infinitely many annotators and prompts would give, by quadrature and brute force."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(41)
    first, second = np.triu_indices(len(STRENGTHS), 1)
    d = (STRENGTHS[first] - STRENGTHS[second])[:, None] + math.sqrt(2 * (taste**2 + quality**2)) * nodes
    chances = np.exp(log_probabilities(d, nu)) @ (mass / mass.sum())
    return brute_force(first, second, chances, with_ties=nu > 0)[0]


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


@pytest.mark.django_db
class TestProject:
    def test_one_query_reads_the_sources_of_all_live_rankings(self, ann, project, work, django_assert_num_queries):
        work(6, size=3)
        for _ in range(6):
            rank_next(ann)
        with django_assert_num_queries(1):
            result = ratings.rate(project)
        assert (result.prompts, result.annotators, result.preferences) == (6, 1, 18)
        expected = np.zeros((3, 3), int)
        for row in Ranking.objects.prefetch_related("comparison__items__completion"):
            sources = [item.completion.source_id for item in row.comparison.items.order_by("position")]
            for i, j in itertools.permutations(range(3), 2):
                one, other = result.sources.index(sources[i]), result.sources.index(sources[j])
                expected[one, other] += row.ranks[i] < row.ranks[j]
        assert result.wins == expected.tolist()

    def test_a_flag_that_means_not_for_training_does_not_take_a_ranking_out(self, ann, project, work):
        project.flags = ["off topic"]
        project.save()
        work(1)
        rank_next(ann, flags=["off topic"])
        assert ratings.rate(project).preferences == 1

    def test_gold_is_left_out(self, ann, project):
        completions = [{"text": text, "source": text} for text in ("good", "bad")]
        (ids,) = imports.add_prompts(project, [{"prompt": "gold", "completions": completions}]).completion_ids
        imports.add_gold(project, [{"completion_ids": ids, "ranks": [1, 2]}])
        project.qualification_items = 1
        project.save()
        assert rank_next(ann).comparison.gold_ranks == [1, 2]
        assert ratings.rate(project).preferences == 0

    def test_extra_rankings_on_disagreement_are_left_out(self, project, work):
        project.extra_rankings = 1
        project.save()
        work(1, wanted_rankings=2)
        members = [membership(person(project, name, "annotator"), project) for name in ("a", "b", "c")]
        for member, ranks in zip(members, ([1, 2], [2, 1], [1, 2]), strict=True):
            rank_by_position(member, ranks)
        assert Ranking.objects.filter(reason="disagreement").count() == 1
        result = ratings.rate(project)
        assert (result.preferences, result.wins) == (2, [[0, 1], [1, 0]])

    def test_an_overruled_ranking_is_rated_and_the_adjudication_is_not(self, ann, mona, project, work):
        (comparison,) = work(1)
        rank_by_position(ann, [1, 2])
        adjudicate(mona, comparison, [2, 1])
        first, second = comparison.items.order_by("position").values_list("completion__source_id", flat=True)
        (row,) = ranked_sources.read(project)
        assert (row.annotator_id, list(row.ranks), list(row.sources)) == (ann.user_id, [1, 2], [first, second])

    def test_the_style_of_a_completion_is_the_logarithm_of_its_length(
        self, ann, project, work, django_assert_num_queries
    ):
        (comparison,) = work(1, size=3)
        Completion.objects.filter(items__comparison=comparison, items__position=1).update(text="")
        rank_next(ann)
        with django_assert_num_queries(1):
            (row,) = ranked_sources.read(project, with_style=True)
        lengths = comparison.items.order_by("position").values_list("completion__text", flat=True)
        assert list(row.style[0]) == pytest.approx([math.log(len(text) + 1) for text in lengths])
        assert row.style[0][1] == 0
        assert [one.name for one in ratings.rate(project, with_style=True).style] == ["log_length"]
