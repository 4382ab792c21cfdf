"""Figures of the report on a reward model, against independent computation."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from feedback.quality.ratings.slices import PromptFields
from training.reward_reports import figures, held_out
from training.reward_reports.held_out import HeldOut, HeldOutPair, ScoredCompletion
from training.web.reward_rows import slice_rows


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def pair(prompt, log_odds, longer_by=0, strength=None, ties=False, comparison=None, ranking=0, flags=()):
    comparison = prompt if comparison is None else comparison
    return HeldOutPair(prompt, comparison, ranking, 0, 1, log_odds, longer_by, strength, ties, flags)


@pytest.fixture
def simulated():
    """2,000 pairs of 300 prompts whose preferences follow the model's probabilities, with an effect of the prompt."""
    draw = np.random.default_rng(1)
    pairs = []
    for number in range(2000):
        prompt = number % 300
        odds = draw.normal(0, 2)
        true = odds + 0.5 * math.sin(prompt)
        chosen = odds if draw.random() < sigmoid(true) else -odds
        pairs.append(pair(prompt, chosen, longer_by=int(draw.integers(-50, 50)), strength=int(draw.integers(1, 4))))
    return pairs


def clustered_wilson(right, prompts):
    """Wilson's interval for the effective number, by the formulas written out (Cochran 1977; Kish 1965)."""
    groups = {prompt: [] for prompt in prompts}
    for value, prompt in zip(right, prompts, strict=True):
        groups[prompt].append(value)
    n, m, p = len(right), len(groups), sum(right) / len(right)
    variance = m / (m - 1) * sum((sum(values) - p * len(values)) ** 2 for values in groups.values()) / n**2
    effective, z = min(n, p * (1 - p) / variance), stats.norm.ppf(0.975)
    centre = (p + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = z / (1 + z**2 / effective) * math.sqrt(p * (1 - p) / effective + z**2 / (4 * effective**2))
    return p, centre - half, centre + half


def test_accuracy_has_the_interval_of_pairs_that_depend_on_each_other_by_prompt(simulated):
    found = figures.share_of(simulated, figures.hit)
    right = [float(one.log_odds > 0) for one in simulated]
    expected = clustered_wilson(right, [one.prompt_id for one in simulated])
    assert (found["value"], found["low"], found["high"]) == pytest.approx(expected)
    assert (found["pairs"], found["prompts"]) == (2000, 300)


def test_calibration_bins_and_error_are_those_of_the_learner(simulated):
    import torch

    from training.learner.preferences import calibration

    bins = figures.calibration(simulated)
    odds = np.array([one.log_odds for one in simulated])
    confidence = np.array([sigmoid(abs(value)) for value in odds])
    assert len(bins) == 10
    for one in bins:
        inside = (confidence >= one["from"]) & (confidence < one["to"] + (one["to"] == 1))
        assert one["confidence"] == pytest.approx(confidence[inside].mean())
        prompts = [pair.prompt_id for pair, chosen in zip(simulated, inside, strict=True) if chosen]
        expected = clustered_wilson((odds[inside] > 0).astype(float).tolist(), prompts)
        share = one["share"]
        assert (share["value"], share["low"], share["high"]) == pytest.approx(expected)
        assert share["pairs"] == inside.sum()
    error = figures.expected_calibration_error(simulated)
    assert error == pytest.approx(calibration.expected_calibration_error(torch.tensor(odds)))
    gaps = [one["share"]["pairs"] * abs(one["confidence"] - one["share"]["value"]) for one in bins]
    assert error == pytest.approx(sum(gaps) / 2000)


@pytest.mark.full
def test_the_intervals_of_the_bins_cover_the_true_shares():
    draw = np.random.default_rng(2)
    inside = total = 0
    for _ in range(200):
        odds = draw.normal(0, 1.5, 600)
        effect = np.repeat(draw.normal(0, 0.7, 150), 4)  # four pairs of a prompt have one taste in common
        true = 1 / (1 + np.exp(-(odds + effect)))
        chosen = np.where(draw.random(600) < true, odds, -odds)
        pairs = [pair(number // 4, float(value)) for number, value in enumerate(chosen)]
        # the expected share of a bin, over effects
        nodes = np.random.default_rng(0).normal(0, 0.7, 400)
        for one in figures.calibration(pairs):
            chosen_bin = [abs(value) for value in odds if one["from"] <= sigmoid(abs(value)) < one["to"]]
            expected = np.mean([1 / (1 + np.exp(-(value + nodes))) for value in chosen_bin])
            inside += one["share"]["low"] <= expected <= one["share"]["high"]
            total += 1
    assert 0.93 <= inside / total <= 0.98


def test_a_pair_of_equal_scores_is_half_right():
    found = figures.share_of([pair(1, 0.0), pair(2, 1.0), pair(3, -1.0), pair(4, 2.0)], figures.hit)
    assert found["value"] == pytest.approx(2.5 / 4)
    assert figures.bin_of(pair(1, 0.0)) == 0 and figures.bin_of(pair(1, -800.0)) == 9


def test_slices_divide_the_pairs_by_ties_strength_length_and_metadata():
    pairs = [
        pair(number, 1.0 if number % 3 else -1.0, longer_by=number - 15, strength=1 + number % 2, ties=number < 6)
        for number in range(30)
    ]
    prompts = [
        PromptFields(number, "held_out", {"topic": ["parcels", "bills"][number % 2]}, 10) for number in range(30)
    ]
    found = {(one["kind"], one["value"]): one["share"] for one in figures.slices(pairs, prompts)}
    by_hand = {
        ("ties", "some"): [n for n in range(30) if n < 6],
        ("ties", "none"): [n for n in range(30) if n >= 6],
        ("strength", "1"): range(0, 30, 2),
        ("strength", "2"): range(1, 30, 2),
        ("preferred", "longer"): range(16, 30),
        ("preferred", "shorter"): range(15),
        ("length_difference", "0–5"): range(10, 21),  # thirds of 0, 1, 1, 2, 2 … 14, 14, 15
        ("length_difference", "6–10"): [*range(5, 10), *range(21, 26)],
        ("length_difference", "11–15"): [*range(5), *range(26, 30)],
        ("metadata", "parcels"): range(0, 30, 2),
        ("metadata", "bills"): range(1, 30, 2),
    }
    assert set(found) == set(by_hand)
    for name, numbers in by_hand.items():
        assert found[name]["pairs"] == len(numbers), name
        assert found[name]["value"] == pytest.approx(np.mean([n % 3 > 0 for n in numbers])), name


def test_a_ranking_with_two_flags_is_in_both_slices():
    flags = {0: ("rude",), 1: ("all bad", "rude"), 2: ("all bad",)}
    pairs = [pair(number, 1.0 if number % 2 else -1.0, flags=flags.get(number, ())) for number in range(6)]
    found = [(one["value"], one["share"]) for one in figures.slices(pairs, []) if one["kind"] == "flag"]
    assert [(value, share["pairs"], share["value"]) for value, share in found] == [
        ("all bad", 2, 0.5),
        ("rude", 2, 0.5),
        ("", 3, pytest.approx(2 / 3)),
    ]
    labels = [(row.label, row.group) for row in slice_rows({"slices": figures.slices(pairs, [])})]
    assert labels[1:4] == [(label, "Flag of the ranking") for label in ("All bad", "rude", "without a flag")]
    without = figures.slices([pair(number, 1.0) for number in range(6)], [])
    assert "flag" not in {one["kind"] for one in without}


def test_agreement_is_that_of_every_two_people_on_the_same_comparison():
    def row(comparison, annotator, ranks, reason="sampled"):
        return {
            "comparison_id": comparison,
            "prompt_id": comparison,
            "ranks": ranks,
            "annotator": annotator,
            "reason": reason,
        }

    rankings = [
        row(1, "a", [1, 2, 3]),
        row(1, "b", [2, 1, 3]),
        row(1, "c", [1, 1, 2]),
        row(2, "a", [1, 2]),
        row(2, "b", [2, 1], reason="disagreement"),
        row(3, "a", [1, 2]),
        row(3, "b", [1, 2]),
    ]
    found = figures.agreement(HeldOut(rankings, [], [], [], 0.0))
    # a and b: 2 of 3 pairs; a and c, b and c: 2 of 2 pairs without ties each; comparison 3: 1 of 1
    assert (found["value"], found["pairs"], found["prompts"]) == (pytest.approx(7 / 8), 8, 2)
    assert figures.agreement(HeldOut(rankings[3:5], [], [], [], 0.0)) is None


def test_the_worst_mistake_of_a_comparison_is_the_one_that_the_model_is_surest_of():
    pairs = [
        pair(1, -1.0, comparison=5, ranking=1),
        pair(1, -3.0, comparison=5, ranking=2),
        pair(2, -2.0, comparison=6, ranking=3),
        pair(3, 4.0, comparison=7, ranking=4),
    ]
    found = figures.mistakes(pairs)
    assert [one["ranking"] for one in found] == [2, 3]
    assert [one["probability"] for one in found] == pytest.approx([sigmoid(-3), sigmoid(-2)])


def test_histograms_of_sources_have_the_same_bins_and_all_scores():
    draw = np.random.default_rng(3)
    scores = {"base": draw.normal(0, 1, 200).tolist(), "round-0001": draw.normal(1, 1, 100).tolist()}
    numbers = itertools.count()
    completions = [ScoredCompletion(next(numbers), name, value) for name, values in scores.items() for value in values]
    found = figures.histogram(completions)
    assert [(one["source"], one["completions"]) for one in found["sources"]] == [("base", 200), ("round-0001", 100)]
    for one in found["sources"]:
        values, edges = scores[one["source"]], found["edges"]
        counts = [sum(low <= value < high for value in values) for low, high in itertools.pairwise(edges)]
        counts[-1] += sum(value == edges[-1] for value in values)
        assert one["counts"] == counts and sum(counts) == len(values)
        assert one["mean"] == pytest.approx(np.mean(values)) and one["deviation"] == pytest.approx(np.std(values))
    assert figures.histogram([]) is None


def test_nothing_held_out_has_figures_that_say_so():
    found = figures.figures_of(HeldOut([], [], [], [], 0.0), [])
    assert found["accuracy"] is None and found["agreement"] is None and found["calibration"] == []
    assert found["ties"]["share"] is None and found["expected_calibration_error"] is None


def test_both_files_are_read_together(tmp_path):
    def ranking(number, split, ranks):
        return {
            "ranking_id": 100 + number, "comparison_id": 10 + number, "prompt_id": number, "split": split,
            "messages": [], "completions": ["a", "bbbb", "cc"], "completion_ids": [1, 2, 3], "sources": ["x", "y", "x"],
            "ranks": ranks, "strength": 2, "flags": ["rude"], "reason": "sampled", "annotator": "a",
        }  # fmt: skip

    rows = [ranking(1, "train", [1, 2, 3]), ranking(2, "train", [1, 1, 1]), ranking(3, "held_out", [2, 1, 2])]
    scored = [
        {"row": 1, "split": "train", "surprise": 0.5},
        {"row": 3, "split": "held_out", "scores": [0.1, 0.2, 0.3], "log_odds": [1.0, -2.0, 0.5],
         "ties": [0.1, 0.2, 0.3], "surprise": -0.25},
    ]  # fmt: skip
    for name, lines in (("rankings", rows), ("scored_rankings", scored)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    read, surprises = held_out.read(tmp_path)
    assert surprises == [(101, 0.5), (103, -0.25)]
    # rank 1 is the second completion, against the first and the third, which tie
    assert [(one.preferred, one.other, one.log_odds, one.longer_by) for one in read.pairs] == [
        (1, 0, -1.0, 3),
        (1, 2, 0.5, 2),
    ]
    assert all(one.ranking_has_ties and one.strength == 2 and one.comparison_id == 13 for one in read.pairs)
    assert {one.flags for one in read.pairs} == {("rude",)}
    assert read.tied == [0.2] and read.tie_probabilities == pytest.approx(0.6)
    assert [one.score for one in read.completions] == [0.1, 0.2, 0.3]
    found = figures.ties(read)
    assert (found["pairs"], found["tied"], found["share"], found["predicted"]) == (
        3,
        1,
        pytest.approx(1 / 3),
        pytest.approx(0.2),
    )
