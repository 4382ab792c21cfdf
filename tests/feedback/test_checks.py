"""The quality checks on simulated annotators: careful, careless, biased and adversarial.

Each check finds its kind as soon as the docstring of `feedback.quality.checks` states, and flags careful people no more
often than the stated rate.
"""

import random
from functools import cache
from statistics import median

import numpy as np
import pytest
from scipy import stats

from feedback.actions import rankings
from feedback.quality import checks
from feedback.quality.checks import check_rankings, sequential_tests, single_checks
from feedback.quality.checks.answers import GOLD, answers_to_gold, answers_to_others
from feedback.quality.checks.single_checks import FALSE_ALARM_RATE, chance_agreement
from feedback.quality.ranking_arrays import arrays_by_size
from feedback.quality.ranking_rows import RankingRow
from feedback.queue import leases
from tests.factories import rank_next
from tests.feedback import checks_by_loop

CAREFUL = 0.5 + 0.75 * (0.73 - 0.5)  # asked of the partner of people who agree with others 73 % of the time


def at_most_at_the_stated_rate(flagged, people):
    """Return whether so many flags are plausible (p > 0.001) at a false-alarm rate of FALSE_ALARM_RATE each."""
    return stats.binom.sf(flagged - 1, people, FALSE_ALARM_RATE) > 0.001


def answers(generator, chance, length, careful=CAREFUL):
    return [(generator.random() < chance, careful) for _ in range(length)]


def position_bias(displayed_ranks):
    """Check rankings that are written in the order of display."""
    wins = [(ranks[0] == 1, len(ranks)) for ranks in displayed_ranks if ranks.count(1) == 1]
    return single_checks.position_bias(np.array([win for win, _ in wins]), np.array([size for _, size in wins]))


def speed(timed):
    """Check the speed of (annotator, number of completions, seconds)."""
    annotators, sizes, seconds = (np.array(column) for column in zip(*timed, strict=True))
    return single_checks.speed(annotators, sizes, seconds)


def test_without_rankings_there_are_no_results():
    assert position_bias([]).value is None
    assert position_bias([[1, 1]]).rankings == 0
    assert chance_agreement([]).value is None
    assert check_rankings([], 0.8) == {}


@pytest.mark.parametrize("chance", [0.6, 0.75, 0.9])
def test_a_bet_on_guessing_is_fair_at_the_least_careful_probability_and_loses_above_it(chance):
    """Enumerate all sequences of 8 answers: the expected wealth is 1, and less for a better annotator."""
    fair = better = 0.0
    for number in range(2**8):
        right = [bool(number >> bit & 1) for bit in range(8)]
        *_, wealth = sequential_tests.guessing_wealth((is_right, chance) for is_right in right)
        fair += wealth * chance ** sum(right) * (1 - chance) ** (8 - sum(right))
        better += wealth * 0.95 ** sum(right) * 0.05 ** (8 - sum(right))
    assert fair == pytest.approx(1, abs=1e-12)
    assert better < 1


@pytest.mark.parametrize("places", [2, 3, 9])
def test_a_bet_on_the_first_place_is_fair_when_the_display_order_is_random(places):
    fair = 0.0
    for number in range(2**8):
        right = [bool(number >> bit & 1) for bit in range(8)]
        *_, wealth = sequential_tests.first_place_wealth(np.array(right), np.full(8, places))
        fair += wealth * (1 / places) ** sum(right) * (1 - 1 / places) ** (8 - sum(right))
    assert fair == pytest.approx(1, abs=1e-12)


@cache
def results_of(kind):
    """Return the test's results for 200 simulated annotators of a kind."""
    generator = random.Random(kind)
    chance = {"clicker": 0.5, "adversary": 0.27}.get(kind, 0.5)
    if kind == "gold clicker":
        return [chance_agreement(answers(generator, 0.5, 600, careful=0.8)) for _ in range(200)]
    return [chance_agreement(answers(generator, chance, 600)) for _ in range(200)]


@pytest.mark.parametrize(("kind", "soon"), [("clicker", 59), ("adversary", 21), ("gold clicker", 19)])
def test_a_careless_annotator_is_flagged_soon(kind, soon):
    results = results_of(kind)
    assert sum(result.is_flagged for result in results) >= 196
    assert median(result.after or 600 for result in results) == soon


def test_an_annotator_who_becomes_careless_is_flagged():
    generator = random.Random(7)
    after = []
    for _ in range(100):
        result = chance_agreement(answers(generator, 0.73, 300) + answers(generator, 0.5, 500))
        after.append(result.after or 800)
    assert sum(rankings < 800 for rankings in after) >= 95
    assert median(after) == 474


@pytest.mark.slow
def test_careful_people_are_flagged_no_more_often_than_the_stated_rate_over_all_their_work():
    """Annotators at the least careful probability, tested after each of 400 answers."""
    generator = random.Random(8)
    flagged = sum(chance_agreement(answers(generator, CAREFUL, 400)).is_flagged for _ in range(1500))
    assert flagged > 0  # otherwise the bound would show nothing
    assert at_most_at_the_stated_rate(flagged, 1500)


def test_if_annotators_do_not_agree_no_one_is_flagged():
    assert not chance_agreement([(False, 0.5)] * 500).is_flagged


@pytest.mark.parametrize(("chance", "places", "soon"), [(1.0, 2, 11), (0.8, 3, 12), (0.7, 2, 64), (0.0, 4, 25)])
def test_a_biased_annotator_is_flagged_soon(chance, places, soon):
    generator = random.Random(2)
    after = []
    for _ in range(100):
        wins = [generator.random() < chance for _ in range(400)]
        displayed = [[1, *range(2, places + 1)] if win else [2, 1, *range(3, places + 1)] for win in wins]
        after.append(position_bias(displayed).after or 400)
    assert median(after) == soon
    assert max(after) < 400


@pytest.mark.slow
def test_careful_people_are_flagged_as_biased_no_more_often_than_the_stated_rate():
    generator = random.Random(3)
    flagged = 0
    for _ in range(800):
        size = generator.choice([2, 3, 4])
        displayed = [generator.sample(range(1, size + 1), size) for _ in range(300)]
        flagged += position_bias(displayed).is_flagged
    assert flagged > 0
    assert at_most_at_the_stated_rate(flagged, 800)


def test_an_annotator_far_too_fast_is_flagged_at_ten_rankings_and_brisk_people_are_not():
    generator = random.Random(8)
    flagged = 0
    for _ in range(40):
        pace = [generator.gauss(0, 0.4) for _ in range(8)]
        timed = [
            (who, size, (8 * size) * 2.718 ** (own_pace + generator.gauss(0, 0.5)))
            for who, own_pace in enumerate(pace)
            for size in generator.choices([2, 4, 9], k=40)
        ]
        timed += [(99, 4, generator.uniform(0.8, 2.0)) for _ in range(10)]
        results = speed(timed)
        assert results[99].is_flagged
        flagged += sum(result.is_flagged for who, result in results.items() if who != 99)
    assert flagged == 0  # of 320 people


def test_an_annotator_of_small_comparisons_is_not_flagged_as_fast():
    """Without regard to size, everybody who ranks pairs would be an outlier among those who rank nine completions."""
    generator = random.Random(9)
    timed = [(1, 2, generator.lognormvariate(1.5, 0.3)) for _ in range(60)]
    timed += [(who, 9, generator.lognormvariate(5, 0.3)) for who in range(2, 12) for _ in range(60)]
    timed += [(who, 2, generator.lognormvariate(1.5, 0.3)) for who in range(2, 12) for _ in range(10)]
    assert not speed(timed)[1].is_flagged


def simulated_rankings(kinds, comparisons, seed, wanted=2, gold=0.0, size=2, reason="sampled", timed=False):
    """Yield rankings in the order of time by people of these kinds; each comparison has random people."""
    generator = random.Random(seed)
    for pk in range(comparisons):
        truth = generator.sample(range(1, size + 1), size)
        is_gold = generator.random() < gold
        # Two careful people agree on three pairs in four: ½ + 2·E(clear − ½)² = ½ + ½·E(b²).
        clear = 0.93 if is_gold else 0.5 + 0.5 * generator.betavariate(2, 1)
        for who in generator.sample(range(len(kinds)), wanted):
            order = generator.sample(range(size), size)
            honest = truth if generator.random() < clear else [1 + size - rank for rank in truth]
            ranks = {
                "careful": honest,
                "clicker": generator.sample(range(1, size + 1), size),
                "adversary": [1 + size - rank for rank in honest],
                "first": [1 + order.index(position) for position in range(size)],
            }[kinds[who]]
            gold_ranks = truth if is_gold else None
            seconds = generator.lognormvariate(2, 0.6) if timed else 10.0
            yield RankingRow(pk, who, ranks, gold_ranks, reason, display_order=order, seconds=seconds)


@pytest.mark.slow
def test_in_a_group_the_random_clicker_is_flagged_and_careful_partners_are_not():
    """Six people share comparisons at random; one is a random clicker and one an adversary."""
    clicker, adversary, blamed, people = [], [], 0, 0
    for seed in range(8):
        results = check_rankings(list(simulated_rankings(["careful"] * 4 + ["clicker", "adversary"], 900, seed)), 0.8)
        clicker.append(results[4].random_clicker.after or 300)
        adversary.append(results[5].random_clicker.after or 300)
        blamed += sum(results[who].random_clicker.is_flagged for who in range(4))
        people += 4
    assert median(clicker) == 86  # of about 300 comparisons each
    assert median(adversary) == 27.5
    assert blamed == 0


def test_gold_flags_the_clicker_sooner_and_without_overlap():
    after = []
    for seed in range(20):
        results = check_rankings(list(simulated_rankings(["careful", "clicker"], 200, seed, wanted=1, gold=0.3)), 0.8)
        assert not results[0].gold_failure.is_flagged
        after.append(results[1].gold_failure.after or 100)
    assert median(after) <= 40  # of gold


@pytest.mark.slow
def test_in_a_careful_group_people_are_flagged_no_more_often_than_the_stated_rate():
    """The others' agreement is estimated from the same rankings, as in a project."""
    flagged = people = 0
    for seed in range(40):
        results = check_rankings(list(simulated_rankings(["careful"] * 5, 400, seed, gold=0.1)), 0.8)
        flagged += sum(bool(of_one.flagged) for of_one in results.values())
        people += len(results)
    assert people == 200
    assert at_most_at_the_stated_rate(flagged, 3 * people)  # three tests with that rate, and speed


def test_an_annotator_paired_with_a_random_clicker_is_not_flagged():
    """Half of the partner's answers agree, as a clicker's would; but so do those of the clicker's other partners."""
    generator = random.Random(4)
    rows = list(simulated_rankings(["clicker", "careful", "careful", "careful", "careful"], 900, 5))
    for pk in range(10_000, 10_300):
        rows.append(RankingRow(pk, 7, [1, 2], display_order=[0, 1], seconds=10.0))
        rows.append(RankingRow(pk, 0, generator.sample([1, 2], 2), display_order=[0, 1], seconds=10.0))
    results = check_rankings(rows, 0.8)
    assert not results[7].random_clicker.is_flagged
    assert results[0].random_clicker.is_flagged


def test_two_annotators_who_share_comparisons_only_with_each_other_are_not_flagged():
    results = check_rankings(list(simulated_rankings(["careful", "clicker"], 600, 3)), 0.8)
    assert not any(of_one.random_clicker.is_flagged for of_one in results.values())


def pairs_compared(rows):
    """Return (annotator, partner, whether they prefer the same) of each answer."""
    parts = [answers_to_others(part) for part in arrays_by_size(rows)]
    columns = [(part.annotator.tolist(), part.partner.tolist(), part.is_same.tolist()) for part in parts]
    return [answer for part in columns for answer in zip(*part, strict=True)]


def test_extra_rankings_of_a_disagreement_are_not_compared():
    given = [(0, [1, 2], "sampled"), (1, [2, 1], "started"), (2, [1, 2], "disagreement")]
    rows = [RankingRow(1, who, ranks, reason=reason) for who, ranks, reason in given]
    assert pairs_compared(rows) == [(1, 0, False), (0, 1, False)]


def test_an_annotator_gives_one_answer_a_comparison():
    rows = [RankingRow(1, who, [1, 2]) for who in range(4)]
    assert sorted(pairs_compared(rows)) == [(0, 1, True), (1, 0, True), (2, 0, True), (3, 0, True)]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [([1, 2], [1, 2], [True]), ([1, 2], [2, 1], [False]), ([1, 1], [1, 2], []), ([1, 1, 2], [2, 1, 3], [True])],
)
def test_the_first_pair_that_both_decide_is_compared(one, other, expected):
    compared = pairs_compared([RankingRow(1, 1, one), RankingRow(1, 2, other)])
    assert [is_same for _, _, is_same in compared] == expected * 2


@pytest.mark.parametrize(("ranks", "expected"), [([1, 2, 2], True), ([2, 1, 1], False), ([1, 1, 1], False)])
def test_gold_is_compared_on_the_first_pair_that_it_decides(ranks, expected):
    (part,) = arrays_by_size([RankingRow(1, 5, ranks, gold_ranks=[1, 1, 2]), RankingRow(2, 5, ranks, [1, 1, 1])])
    answers = answers_to_gold(part)
    assert (answers.annotator.tolist(), answers.partner.tolist()) == ([5], [GOLD])
    assert answers.is_same.tolist() == [expected]


def random_rankings(seed):
    """Return rankings of comparisons of 2 to 4 completions with ties, gold, extra rankings and careless people."""
    generator, rows = random.Random(seed), []
    kinds = ["careful"] * generator.randint(1, 4) + ["clicker", "adversary", "first"][: generator.randint(0, 3)]
    for size in (2, 3, 4):
        wanted = generator.randint(1, min(3, len(kinds)))
        part = simulated_rankings(
            kinds, generator.randint(0, 250), generator.random(), wanted, gold=0.2, size=size, timed=True
        )
        rows += [row._replace(comparison_id=10 * row.comparison_id + size) for row in part]
    generator.shuffle(rows)
    for place, row in enumerate(rows):
        if generator.random() < 0.1:
            rows[place] = row._replace(ranks=[generator.randint(1, 2) for _ in row.ranks], reason="disagreement")
        if generator.random() < 0.05:
            rows[place] = rows[place]._replace(ranks=[1] * len(row.ranks), seconds=0.0)
    return rows


@pytest.mark.parametrize("seed", range(30))
def test_the_vectorised_checks_return_what_a_loop_over_the_rankings_returns(seed):
    rows = random_rankings(seed)
    mark = random.Random(seed).choice([0.5, 0.8, 1.0])
    assert check_rankings(rows, mark) == checks_by_loop.check_rankings(rows, mark)


@pytest.mark.slow
def test_the_random_rankings_have_flags_of_each_kind():
    """Without all kinds of flags the comparison with the loop would test little."""
    results = [of_one for seed in range(30) for of_one in check_rankings(random_rankings(seed), 0.8).values()]
    assert {name for of_one in results for name in of_one.flagged} >= {
        "random_clicker",
        "gold_failure",
        "position_bias",
    }


@pytest.mark.slow
@pytest.mark.django_db
def test_the_results_of_a_project_are_by_annotator(ann, cole, project, work, django_assert_num_queries):
    work(12, wanted_rankings=2)
    while rank_next(ann):  # always the first shown
        pass
    while lease := leases.lease_next(cole):
        ranks = [1 + position for position in lease.display_order]
        rankings.record_ranking(cole, lease.pk, ranks, idempotency_key=lease.pk, seconds=3)
    with django_assert_num_queries(1):
        results = checks.check_project(project)
    of_ann = results[ann.user_id]
    assert of_ann.position_bias.value == 1.0
    assert list(of_ann.flagged) == ["position_bias"]
    assert "100% of 12" in of_ann.position_bias.sentence
    assert results[cole.user_id].speed.rankings == 12
    assert of_ann.random_clicker.value is None  # the two share comparisons only with each other
    assert of_ann.gold_failure.value is None


@pytest.mark.django_db
def test_an_empty_project_has_no_results(project):
    assert checks.check_project(project) == {}
