"""Simulated annotators, careful, careless, biased and adversarial: each sign finds its own kind, and how soon."""

import random
from statistics import median

import pytest

from feedback import detectors, judging, queue
from feedback.detectors import first_common_preference, position_bias, random_clicker, speed
from tests.feedback.conftest import rank_next


def careful(generator, size=2):
    return generator.sample(range(1, size + 1), size)


def test_no_rankings_no_verdict():
    assert position_bias([]).value is None
    assert position_bias([[1, 1]]).rankings == 0
    assert random_clicker([], 0.73).value is None
    assert speed([], []).value is None


def test_the_score_test_is_the_binomials():
    # 60 of 100: z = 2, two-sided p = 0.0455; 67 of 100: z = 3.4, p = 0.00067.
    assert not position_bias([[1, 2]] * 60 + [[2, 1]] * 40).is_flagged
    assert position_bias([[1, 2]] * 67 + [[2, 1]] * 33).is_flagged
    assert position_bias([[1, 2]] * 33 + [[2, 1]] * 67).is_flagged


def test_one_who_takes_the_first_shown_is_found_within_thirty_rankings():
    generator = random.Random(2)
    shown = [[1, 2, 3] if generator.random() < 0.8 else [2, 1, 3] for _ in range(30)]
    assert position_bias(shown).is_flagged


def test_a_careful_annotator_is_hardly_ever_called_biased():
    generator = random.Random(3)
    flagged = sum(position_bias([careful(generator, 3) for _ in range(200)]).is_flagged for _ in range(500))
    assert flagged <= 4  # 0.5 are expected


def sequence(generator, chance, length):
    return [generator.random() < chance for _ in range(length)]


def test_a_random_clicker_is_found_soon():
    generator = random.Random(4)
    found = [random_clicker(sequence(generator, 0.5, 600), 0.73) for _ in range(200)]
    assert sum(sign.is_flagged for sign in found) >= 190
    assert median(sign.rankings for sign in found) < 100


def test_an_adversary_is_found_sooner_still():
    generator = random.Random(5)
    found = [random_clicker(sequence(generator, 0.25, 200), 0.73) for _ in range(200)]
    assert all(sign.is_flagged for sign in found)
    assert median(sign.rankings for sign in found) < 30


def test_a_careful_annotator_is_hardly_ever_called_a_clicker():
    """Wald's bound on one run of the test is α/(1 − β), and a run that clears the annotator starts another."""
    generator = random.Random(6)
    flagged = sum(random_clicker(sequence(generator, 0.73, 60), 0.73).is_flagged for _ in range(2000))
    assert flagged <= 12  # about 2 a thousand runs at most, with several runs in 60 answers


def test_one_who_grows_careless_is_found():
    generator = random.Random(7)
    grows = sequence(generator, 0.73, 300) + sequence(generator, 0.5, 300)
    sign = random_clicker(grows, 0.73)
    assert sign.is_flagged
    assert sign.rankings > 300


@pytest.mark.parametrize("honest", [0.5, 0.3, 1.0])
def test_where_people_do_not_agree_nobody_is_accused(honest):
    assert not random_clicker([False] * 500, honest).is_flagged


def test_one_far_too_fast_is_found_and_a_brisk_one_is_not():
    generator = random.Random(8)
    usual = [generator.lognormvariate(3, 0.5) for _ in range(500)]
    assert speed([1.2] * 20, usual + [1.2] * 20).is_flagged
    assert not speed([generator.lognormvariate(2.6, 0.5) for _ in range(20)], usual).is_flagged


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [([1, 2], [1, 2], True), ([1, 2], [2, 1], False), ([1, 1], [1, 2], None), ([1, 1, 2], [2, 1, 3], True)],
)
def test_one_pair_a_comparison_is_compared(one, other, expected):
    assert first_common_preference(one, other) is expected


@pytest.mark.django_db
def test_the_signs_of_a_project_are_by_annotator(ann, cole, project, work):
    work(12, wanted_rankings=2)
    while rank_next(ann):  # always the first shown
        pass
    while lease := queue.lease_next(cole):
        ranks = [1 + position for position in lease.display_order]
        judging.record(cole, lease.pk, ranks, idempotency_key=lease.pk, seconds=30)
    biases, speeds = detectors.position_biases(project), detectors.speeds(project)
    assert biases[ann.user_id].value == 1.0
    assert biases[ann.user_id].is_flagged
    assert speeds[ann.user_id].rankings == 12
    clickers = detectors.random_clickers(project)
    assert clickers[ann.user_id].rankings == clickers[cole.user_id].rankings == 12


@pytest.mark.django_db
def test_an_empty_project_has_no_signs(project):
    assert detectors.position_biases(project) == {}
    assert detectors.speeds(project) == {}
    assert detectors.random_clickers(project) == {}
