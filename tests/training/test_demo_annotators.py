"""Simulated annotators: they agree as often as people do, and differ from each other."""

import json
from itertools import combinations
from pathlib import Path

import pytest

from training.demo.annotators import Annotator, choice_probabilities, compare, pair_accuracy, ranks

POLITE = "I am sorry for the trouble."
ANSWER = "We will replace your damaged kettle."
RUDE = "That is your own problem."


def test_ranks_are_a_weak_order_without_gaps():
    assert ranks([0.0, 3.0, 2.9, 1.0], noticeable=0.2) == [3, 1, 1, 2]


def test_a_tie_is_measured_from_the_best_of_its_rank():
    assert ranks([1.0, 0.8, 0.6], noticeable=0.3) == [1, 1, 2]


def test_without_noise_the_ranking_is_the_utilitys():
    message = "My kettle arrived broken."
    good = "Hello, I am sorry for the trouble. We will replace your damaged kettle. I will ship a replacement today."
    vague = "Every case is different. Let us wait and see."
    rude = "That is your own problem. Every case is different. Do not write again."
    assert Annotator(1, noise=0.0).rank(message, [rude, good, vague]) == [3, 1, 2]


def test_an_annotator_ranks_the_same_comparison_twice_alike_and_another_one_differently():
    message, replies = "My kettle arrived broken.", [f"We will look into case {number}." for number in range(9)]
    assert Annotator(1).rank(message, replies) == Annotator(1).rank(message, replies)
    assert Annotator(1).rank(message, replies) != Annotator(2).rank(message, replies)


def test_a_judgement_does_not_depend_on_the_order_of_display():
    message, replies = "My kettle arrived broken.", [f"We will look into case {number}." for number in range(5)]
    assert Annotator(3).rank(message, replies[::-1]) == Annotator(3).rank(message, replies)[::-1]


@pytest.mark.slow
def test_smaller_differences_are_noticed_among_similar_replies():
    message = "My kettle arrived broken."
    better, worse = f"{POLITE} {ANSWER}", f"{ANSWER} We will look into it."
    beside = [f"{POLITE} {ANSWER} I will ship a replacement today.", f"{RUDE} Every case is different. {RUDE}"]

    def right(others):
        all_ranks = [Annotator(seed).rank(message, [better, worse, *others]) for seed in range(400)]
        return sum(ranks[0] < ranks[1] for ranks in all_ranks)

    assert right([]) > right(beside) + 40


@pytest.fixture(scope="module")
def rankings_by_annotator():
    """Rankings by four annotators of 120 × 4 completions that a base model of this demo wrote at temperature 1."""
    lines = (Path(__file__).parent / "data" / "base_completions.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [[Annotator(seed).rank(row["message"], row["completions"]) for row in rows] for seed in range(1, 5)]


@pytest.mark.slow
def test_two_annotators_agree_on_three_pairs_in_four(rankings_by_annotator):
    counts = [compare(one, other) for one, other in combinations(rankings_by_annotator, 2)]
    assert 0.73 <= sum(count.agreeing for count in counts) / sum(count.strict for count in counts) <= 0.77
    assert all(0.70 <= count.agreement <= 0.80 for count in counts)


@pytest.mark.slow
def test_annotators_call_some_pairs_ties_as_people_do(rankings_by_annotator):
    pairs = [pair for ranked in rankings_by_annotator for ranks in ranked for pair in combinations(ranks, 2)]
    assert 0.03 <= sum(one == other for one, other in pairs) / len(pairs) <= 0.12


def test_agreement_counts_pairs_that_both_have_a_preference_on():
    first, second = [[1, 2, 3]], [[1, 3, 3]]
    count = compare(first, second)
    assert (count.agreeing, count.strict, count.ties) == (2, 2, 1)
    assert compare([[1, 2]], [[2, 1]]).agreement == 0


def test_pair_accuracy_counts_a_draw_as_half_and_leaves_true_draws_out():
    truth, score = [0.0, 1.0, 1.0, 5.0], [0.0, 0.0, 3.0, 2.0]
    # 0–1 draw, 0–2 right, 0–3 right, 1–2 left out, 1–3 right, 2–3 wrong
    assert pair_accuracy(score.__getitem__, truth.__getitem__, [[0, 1, 2, 3]]) == pytest.approx(3.5 / 5)
    assert pair_accuracy(score.__getitem__, [1, 1, 1, 1].__getitem__, [[0, 1, 2, 3]]) is None


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(1.0, 1.0), (1.3, 1.0), (0.0, 2.0)])
def test_the_choice_probabilities_are_the_frequencies_of_annotators(first, second):
    utilities = {"first": first, "second": second}
    wins = losses = 0
    for seed in range(4000):
        one = Annotator(seed, utility=lambda message, turns: utilities[turns[-1]["content"]])
        a, b = one.rank("question", ["first", "second"])
        wins, losses = wins + (a < b), losses + (b < a)
    expected = choice_probabilities(first, second)
    # Four standard errors of a frequency of 4,000 draws are at most 0.032.
    assert (wins / 4000, losses / 4000) == (
        pytest.approx(expected[0], abs=0.032),
        pytest.approx(expected[1], abs=0.032),
    )
    assert choice_probabilities(second, first) == expected[::-1]
