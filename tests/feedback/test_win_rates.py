"""Win rates of two sources, whole and by slice, against numbers computed by hand and on simulated worlds."""

import math

import numpy as np
import pytest
from scipy import stats

from feedback.quality.ratings import RankedSources, slices
from feedback.quality.ratings.pairs import pairs_of
from feedback.quality.ratings.slices import PromptFields, slice_rates, slices_of
from feedback.quality.ratings.win_rates import win_rates
from tests.feedback.rating_worlds import (
    STRENGTHS,
    WORLDS,
    log_probabilities,
    ranking,
    world,
)
from tests.lengths import length


def rates_of(rows):
    return {(rate.source_id, rate.other_id): rate for rate in win_rates(pairs_of(rows))}


class TestWinRates:
    def test_a_tie_is_half_a_preference(self):
        rows = [ranking(1, 2, sign, prompt=n) for n, sign in enumerate([1] * 5 + [0] * 2 + [-1] * 3)]
        rate = rates_of(rows)[1, 2]
        assert (rate.value, rate.wins, rate.ties, rate.losses, rate.prompts) == (0.6, 5, 2, 3, 10)
        other = rate.reversed()
        assert (other.source_id, other.wins, other.losses) == (2, 3, 5)
        assert (other.value, other.low, other.high) == pytest.approx((0.4, 1 - rate.high, 1 - rate.low))

    def test_the_interval_of_independent_preferences_is_wilsons(self):
        """With n prompts of one preference each, the variance p(1 − p)/(n − 1) makes n − 1 the effective number."""
        rate = rates_of([ranking(1, 2, 1 if n < 24 else -1, prompt=n) for n in range(40)])[1, 2]
        z, n = stats.norm.ppf(0.975), 39 * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 39)) ** 2
        roots = np.roots([1 + z**2 / n, -(2 * 0.6 + z**2 / n), 0.36])  # |p − 0.6| = z √(p(1 − p)/n)
        assert sorted(roots) == pytest.approx([rate.low, rate.high])

    def test_repeated_preferences_on_a_prompt_add_no_certainty(self):
        once = [ranking(1, 2, 1 if n < 24 else -1, prompt=n) for n in range(40)]
        one, three = rates_of(once)[1, 2], rates_of(once * 3)[1, 2]
        assert (three.low, three.high) == pytest.approx((one.low, one.high))
        assert three.preferences == 3 * one.preferences

    def test_wins_only_leave_an_interval_by_the_number_of_prompts(self):
        rate = rates_of([ranking(1, 2, 1, prompt=n // 2) for n in range(20)])[1, 2]
        assert (rate.value, rate.high) == (1.0, 1.0)
        assert rate.low == pytest.approx(1 / (1 + stats.norm.ppf(0.975) ** 2 / 10))

    def test_a_ranking_of_three_gives_the_rates_of_its_three_pairs(self):
        rates = rates_of([RankedSources(n, 0, [1, 2, 2], [0, 1, 2], [7, 5, 9]) for n in range(4)])
        assert {two: (rate.wins, rate.ties, rate.losses) for two, rate in rates.items()} == {
            (5, 7): (0, 0, 4),
            (5, 9): (0, 4, 0),
            (7, 9): (4, 0, 0),
        }
        assert rates_of([]) == {}

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["tastes", pytest.param("prompts", marks=pytest.mark.full)])
    def test_the_intervals_hold_the_truth_in_95_percent_of_simulated_worlds(self, name):
        settings, covered = WORLDS[name], []
        true = win_rates_of_the_population(**settings)
        for seed in range(length(300, 12)):
            for (first, second), rate in rates_of(world(np.random.default_rng(seed), **settings)).items():
                covered.append(rate.low <= true[first, second] <= rate.high)
        low, high = length((0.93, 0.98), (0.85, 1.0))
        assert low <= np.mean(covered) <= high


def win_rates_of_the_population(nu, taste, quality, **_):
    """The win rates that infinitely many annotators and prompts would give, by quadrature."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(41)
    d = (STRENGTHS[:, None] - STRENGTHS)[..., None] + math.sqrt(2 * (taste**2 + quality**2)) * nodes
    _lost, tied, won = np.exp(log_probabilities(d, nu)) @ (mass / mass.sum())
    return won + tied / 2


def sliced_world(generator, advantage=0.0, prompts=160, annotators=8):
    """Rankings of two sources by annotators with tastes, on prompts with tags; the first wins more where tag is a."""
    tastes = generator.normal(0, 0.4, annotators)
    fields = [
        PromptFields(
            n,
            str(generator.choice(["train", "held_out"])),
            {"tag": str(generator.choice(list("abcd"))), "tier": int(generator.integers(3))},
            int(generator.integers(10, 500)),
        )
        for n in range(prompts)
    ]
    rows = []
    for prompt in fields:
        quality = generator.normal(0, 0.6) + advantage * (prompt.metadata["tag"] == "a")
        for annotator in generator.permutation(annotators)[:2]:
            wins = generator.random() < stats.logistic.cdf(quality + tastes[annotator])
            rows.append(ranking(1, 2, 1 if wins else -1, prompt.prompt_id, int(annotator)))
    return rows, slices_of(fields)


class TestSlices:
    def test_slices_are_splits_quarters_of_lengths_and_keys_with_few_values(self):
        fields = [
            PromptFields(
                n,
                "held_out" if n % 5 == 0 else "train",
                {"tags": ["long", "hard"][: n % 3], "urgent": n % 2 == 0, "ticket": n, "nested": {"a": 1}},
                100 + n,
            )
            for n in range(40)
        ]
        names = slices_of(fields)
        assert [name for name in names if name[0] != "metadata"] == [
            ("split", "", "train"),
            ("split", "", "held_out"),
            *(("length", "", bounds) for bounds in ("100–109", "110–119", "120–129", "130–139")),
        ]
        assert names["length", "", "110–119"] == set(range(10, 20))
        assert [name[1:] for name in names if name[0] == "metadata"] == [
            ("tags", "hard"),
            ("tags", "long"),
            ("urgent", "false"),
            ("urgent", "true"),
        ]
        assert names["metadata", "tags", "hard"] == set(range(2, 40, 3))
        assert slices_of([]) == {}

    def test_a_slice_has_the_win_rate_of_its_rankings(self):
        rows, names = sliced_world(np.random.default_rng(1))
        for one in slice_rates(rows, names, 2, 1):
            inside = [row for row in rows if row.prompt_id in names[one.kind, one.key, one.value]]
            outside = [row for row in rows if row not in inside]
            expected = rates_of(inside)[1, 2].reversed()
            assert one.rate == expected
            assert one.difference == pytest.approx(expected.value - rates_of(outside)[1, 2].reversed().value)

    def test_small_slices_and_those_of_all_prompts_are_left_out(self):
        rows = [ranking(1, 2, 1 if n % 2 else -1, prompt=n, annotator=n % 7) for n in range(40)]
        names = {("metadata", "k", str(n)): set(range(n)) for n in (9, 10, 31, 40)}
        rates = {one.value: one for one in slice_rates(rows, names, 1, 2)}
        assert set(rates) == {"10", "31"}
        assert rates["31"].p_value is None and rates["31"].difference is None, "nine prompts outside"
        assert slice_rates(rows, names, 1, 3) == []

    def test_p_values_have_holms_correction(self, monkeypatch):
        raw = iter([0.01, 0.04, 0.03, None, 0.005])
        monkeypatch.setattr(slices, "_difference", lambda pairs, is_inside: (0.1, next(raw)))
        rows = [ranking(1, 2, 1 if n % 2 else -1, prompt=n) for n in range(40)]
        names = {("metadata", "k", str(n)): set(range(n)) for n in (15, 16, 17, 18, 19)}
        rates = slice_rates(rows, names, 1, 2)
        assert [one.p_value for one in rates] == [pytest.approx(0.03), 0.06, 0.06, None, pytest.approx(0.02)]

    @pytest.mark.slow
    def test_an_advantage_on_some_prompts_is_found(self):
        found = 0
        for seed in range(6):
            rates = slice_rates(*sliced_world(np.random.default_rng(seed), advantage=2.5), 1, 2)
            best = max(rates, key=lambda one: one.difference)
            found += (best.key, best.value, best.p_value < slices.LEVEL) == ("tag", "a", True)
        assert found == 6

    @pytest.mark.slow
    def test_without_a_difference_at_most_one_world_in_twenty_reports_a_slice(self):
        worlds = length(600, 40)
        alarms = 0
        for seed in range(worlds):
            rates = slice_rates(*sliced_world(np.random.default_rng(seed)), 1, 2)
            alarms += any(one.p_value < slices.LEVEL for one in rates)
        # A binomial's 99.9 % quantile at a rate of 5 %.
        assert alarms <= stats.binom.ppf(0.999, worlds, 0.05)
