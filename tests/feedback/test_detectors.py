"""Simulated annotators, careful, careless, biased and adversarial: each sign finds its own kind, as soon as the
package's docstring says, and careful people are flagged no more often than the stated rate."""

import random
from functools import cache
from statistics import median

import pytest
from scipy import stats

from feedback.actions import rankings
from feedback.quality import checks
from feedback.quality.checks import Answer, careless, position_bias, sequential_tests, speed
from feedback.quality.checks.project import Seen, first_common_preference, meetings, signs
from feedback.quality.checks.results import FALSE_ALARM, Timed
from feedback.queue import leases
from tests.factories import rank_next

HONEST = 0.5 + 0.75 * (0.73 - 0.5)  # what is asked of a partner of people who agree with others 73 % of the time


def at_most_at_the_stated_rate(flagged, people):
    """Whether so many flags are no surprise (1 in 1,000) if each careful annotator's chance is FALSE_ALARM."""
    return stats.binom.sf(flagged - 1, people, FALSE_ALARM) > 0.001


def answers(generator, chance, length, honest=HONEST):
    return [Answer(generator.random() < chance, honest) for _ in range(length)]


def test_no_rankings_no_verdict():
    assert position_bias([]).value is None
    assert position_bias([[1, 1]]).rankings == 0
    assert careless([]).value is None
    assert speed([]) == {}


@pytest.mark.parametrize("chance", [0.6, 0.75, 0.9])
def test_a_bet_on_chance_is_fair_where_honesty_is_least_and_loses_where_it_is_more(chance):
    """By enumeration of all sequences of 8 answers: the expected stake is 1, and below it for whoever is better."""
    fair = better = 0.0
    for number in range(2**8):
        said = [bool(number >> bit & 1) for bit in range(8)]
        *_, stake = sequential_tests.of_chance((each, chance) for each in said)
        fair += stake * chance ** sum(said) * (1 - chance) ** (8 - sum(said))
        better += stake * 0.95 ** sum(said) * 0.05 ** (8 - sum(said))
    assert fair == pytest.approx(1, abs=1e-12)
    assert better < 1


@pytest.mark.parametrize("places", [2, 3, 9])
def test_a_bet_on_the_first_place_is_fair_when_it_is_drawn_at_random(places):
    fair = 0.0
    for number in range(2**8):
        said = [bool(number >> bit & 1) for bit in range(8)]
        *_, stake = sequential_tests.of_the_first_place((each, places) for each in said)
        fair += stake * (1 / places) ** sum(said) * (1 - 1 / places) ** (8 - sum(said))
    assert fair == pytest.approx(1, abs=1e-12)


@cache
def found(kind):
    """What the test says of 200 simulated annotators of a kind."""
    generator = random.Random(kind)
    chance = {"clicker": 0.5, "adversary": 0.27}.get(kind, 0.5)
    if kind == "gold clicker":
        return [careless(answers(generator, 0.5, 600, honest=0.8)) for _ in range(200)]
    return [careless(answers(generator, chance, 600)) for _ in range(200)]


@pytest.mark.parametrize(("kind", "soon"), [("clicker", 59), ("adversary", 21), ("gold clicker", 19)])
def test_who_does_not_read_is_found_soon(kind, soon):
    signs = found(kind)
    assert sum(sign.is_flagged for sign in signs) >= 196
    assert median(sign.after or 600 for sign in signs) == soon


def test_one_who_grows_careless_is_found():
    generator = random.Random(7)
    after = []
    for _ in range(100):
        sign = careless(answers(generator, 0.73, 300) + answers(generator, 0.5, 500))
        after.append(sign.after or 800)
    assert sum(each < 800 for each in after) >= 95
    assert median(after) == 474


def test_careful_people_are_flagged_no_more_often_than_the_stated_rate_over_all_their_work():
    """At the very least that is asked of them, looked at after each of 400 answers."""
    generator = random.Random(8)
    flagged = sum(careless(answers(generator, HONEST, 400)).is_flagged for _ in range(1500))
    assert flagged > 0  # the bound is not an idle one
    assert at_most_at_the_stated_rate(flagged, 1500)


def test_where_people_do_not_agree_nobody_is_accused():
    assert not careless([Answer(False, 0.5)] * 500).is_flagged


@pytest.mark.parametrize(("chance", "places", "soon"), [(1.0, 2, 11), (0.8, 3, 12), (0.7, 2, 64), (0.0, 4, 25)])
def test_a_biased_annotator_is_found_soon(chance, places, soon):
    generator = random.Random(2)
    after = []
    for _ in range(100):
        wins = [generator.random() < chance for _ in range(400)]
        shown = [[1, *range(2, places + 1)] if win else [2, 1, *range(3, places + 1)] for win in wins]
        after.append(position_bias(shown).after or 400)
    assert median(after) == soon
    assert max(after) < 400


def test_careful_people_are_called_biased_no_more_often_than_the_stated_rate():
    generator = random.Random(3)
    flagged = 0
    for _ in range(800):
        size = generator.choice([2, 3, 4])
        shown = [generator.sample(range(1, size + 1), size) for _ in range(300)]
        flagged += position_bias(shown).is_flagged
    assert flagged > 0
    assert at_most_at_the_stated_rate(flagged, 800)


def test_one_far_too_fast_is_found_at_ten_rankings_and_brisk_people_are_not():
    generator = random.Random(8)
    flagged = 0
    for _ in range(40):
        pace = [generator.gauss(0, 0.4) for _ in range(8)]
        timed = [
            Timed(who, size, (8 * size) * 2.718 ** (own + generator.gauss(0, 0.5)))
            for who, own in enumerate(pace)
            for size in generator.choices([2, 4, 9], k=40)
        ]
        timed += [Timed(99, 4, generator.uniform(0.8, 2.0)) for _ in range(10)]
        judged = speed(timed)
        assert judged[99].is_flagged
        flagged += sum(sign.is_flagged for who, sign in judged.items() if who != 99)
    assert flagged == 0  # of 320 people


def test_one_who_is_given_the_small_comparisons_is_not_called_fast():
    """By seconds alone everybody who ranks pairs would be an outlier among those who rank nine."""
    generator = random.Random(9)
    timed = [Timed(1, 2, generator.lognormvariate(1.5, 0.3)) for _ in range(60)]
    timed += [Timed(who, 9, generator.lognormvariate(5, 0.3)) for who in range(2, 12) for _ in range(60)]
    timed += [Timed(who, 2, generator.lognormvariate(1.5, 0.3)) for who in range(2, 12) for _ in range(10)]
    assert not speed(timed)[1].is_flagged


def crew(kinds, comparisons, seed, wanted=2, gold=0.0, size=2, reason="sampled"):
    """Rankings in the order of time by people of these kinds, each comparison's people drawn at random."""
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
            yield Seen(who, pk, ranks, order, 10.0, reason, truth if is_gold else None)


def test_in_a_crew_the_clicker_is_found_and_careful_partners_are_not_blamed():
    """Six people, one of them a clicker and one an adversary, who meet each other at random."""
    clicker, adversary, blamed, people = [], [], 0, 0
    for seed in range(8):
        found = signs(list(crew(["careful"] * 4 + ["clicker", "adversary"], 900, seed)), 0.8)
        clicker.append(found[4].random_clicker.after or 300)
        adversary.append(found[5].random_clicker.after or 300)
        blamed += sum(found[who].random_clicker.is_flagged for who in range(4))
        people += 4
    assert median(clicker) == 86  # of about 300 comparisons each
    assert median(adversary) == 27.5
    assert blamed == 0


def test_gold_finds_the_clicker_sooner_and_where_nobody_overlaps():
    after = []
    for seed in range(20):
        found = signs(list(crew(["careful", "clicker"], 200, seed, wanted=1, gold=0.3)), 0.8)
        assert not found[0].gold_failure.is_flagged
        after.append(found[1].gold_failure.after or 100)
    assert median(after) <= 40  # of gold


def test_in_a_careful_crew_people_are_flagged_no_more_often_than_the_stated_rate():
    """Everything as in a project: the others' agreement is estimated from the same rankings."""
    flagged = people = 0
    for seed in range(40):
        found = signs(list(crew(["careful"] * 5, 400, seed, gold=0.1)), 0.8)
        flagged += sum(bool(each.flagged) for each in found.values())
        people += len(found)
    assert people == 200
    assert at_most_at_the_stated_rate(flagged, 3 * people)  # three tests with that rate each, and speed


def test_one_who_always_meets_the_clicker_is_not_blamed():
    """Half of their answers agree, as a clicker's would: but so do all those of the partner's other partners."""
    generator = random.Random(4)
    seen = list(crew(["clicker", "careful", "careful", "careful", "careful"], 900, 5))
    for pk in range(10_000, 10_300):
        seen.append(Seen(7, pk, [1, 2], [0, 1], 10.0, "sampled", None))
        seen.append(Seen(0, pk, generator.sample([1, 2], 2), [0, 1], 10.0, "sampled", None))
    found = signs(seen, 0.8)
    assert not found[7].random_clicker.is_flagged
    assert found[0].random_clicker.is_flagged


def test_of_two_who_only_meet_each_other_neither_is_blamed():
    found = signs(list(crew(["careful", "clicker"], 600, 3)), 0.8)
    assert not any(each.random_clicker.is_flagged for each in found.values())


def test_whoever_is_asked_because_others_disagree_is_not_judged_by_that():
    said = [(0, [1, 2], "sampled"), (1, [2, 1], "started"), (2, [1, 2], "disagreement")]
    seen = [Seen(who, 1, ranks, [0, 1], 1.0, reason, None) for who, ranks, reason in said]
    assert [(met.who, met.partner) for met in meetings(seen)] == [(1, 0), (0, 1)]


def test_an_annotator_gives_one_answer_a_comparison():
    seen = [Seen(who, 1, [1, 2], [0, 1], 1.0, "sampled", None) for who in range(4)]
    assert sorted((met.who, met.partner) for met in meetings(seen)) == [(0, 1), (1, 0), (2, 0), (3, 0)]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [([1, 2], [1, 2], True), ([1, 2], [2, 1], False), ([1, 1], [1, 2], None), ([1, 1, 2], [2, 1, 3], True)],
)
def test_one_pair_a_comparison_is_compared(one, other, expected):
    assert first_common_preference(one, other) is expected


@pytest.mark.django_db
def test_the_signs_of_a_project_are_by_annotator(ann, cole, project, work, django_assert_num_queries):
    work(12, wanted_rankings=2)
    while rank_next(ann):  # always the first shown
        pass
    while lease := leases.lease_next(cole):
        ranks = [1 + position for position in lease.display_order]
        rankings.record_ranking(cole, lease.pk, ranks, idempotency_key=lease.pk, seconds=3)
    with django_assert_num_queries(1):
        found = checks.signs_of(project)
    of_ann = found[ann.user_id]
    assert of_ann.position_bias.value == 1.0
    assert list(of_ann.flagged) == ["position_bias"]
    assert "100% of 12" in of_ann.position_bias.sentence
    assert found[cole.user_id].speed.rankings == 12
    assert of_ann.random_clicker.value is None  # they only ever met each other
    assert of_ann.gold_failure.value is None


@pytest.mark.django_db
def test_an_empty_project_has_no_signs(project):
    assert checks.signs_of(project) == {}
