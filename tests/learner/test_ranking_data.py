"""Rows of rankings.jsonl to comparisons, and the rows that are refused."""

import pytest

from tests.learner.worlds.words import ranking_rows, words_tokenizer
from training.learner.preferences.ranking_data import pairs_of_comparisons, read_rankings
from training.learner.runtime.config import RewardConfig
from training.learner.runtime.jobdir import BadInput

TOKENIZER = words_tokenizer()
END = TOKENIZER.eos_token_id


def settings(**values) -> RewardConfig:
    return RewardConfig(model="somewhere", **values)


def row(**changes):
    return {
        "prompt_id": 1,
        "split": "train",
        "messages": [{"role": "user", "content": "refund please"}],
        "completions": ["thanks", "never", "wait"],
        "ranks": [1, 3, 2],
        "annotator": "ann",
    } | changes


def test_two_rankings_of_the_same_completions_are_one_comparison_in_any_order():
    data = read_rankings(
        TOKENIZER,
        [row(), row(completions=["never", "wait", "thanks"], ranks=[2, 2, 1], annotator="bob", weight=0.5)],
        settings(),
    )
    (comparison,) = data.train
    assert [ranking.annotator for ranking in comparison.rankings] == ["ann", "bob"]
    for ranking, expected in zip(comparison.rankings, ({"thanks": 1, "never": 3, "wait": 2}, None), strict=True):
        texts = [TOKENIZER.decode(comparison.group.completions[place][:-1]) for place in ranking.places]
        ranked = dict(zip(texts, ranking.ranks, strict=True))
        assert ranked == (expected or {"thanks": 1, "never": 2, "wait": 2})
    assert comparison.rankings[1].weight == 0.5


def test_completions_are_their_text_as_written_and_one_end_token():
    texts = ["thanks", "  thanks\n", "thanks<eos>never<eos>"]
    (comparison,) = read_rankings(TOKENIZER, [row(completions=texts)], settings()).train
    assert sorted(TOKENIZER.decode(completion[:-1]) for completion in comparison.group.completions) == sorted(texts)
    assert all(completion[-1] == END and completion.count(END) == 1 for completion in comparison.group.completions)


def test_completions_of_the_same_tokens_are_computed_once():
    data = read_rankings(TOKENIZER, [row(completions=["wait", "wait", "never"], ranks=[1, 2, 3])], settings())
    assert len(data.train[0].group.completions) == 2
    pairs = pairs_of_comparisons(data.train)
    assert len(pairs.better) == 3


def test_pairs_of_several_comparisons_point_at_their_own_completions():
    rows = [row(), row(prompt_id=2, messages=[{"role": "user", "content": "order"}], completions=["no", "yes"],
                       ranks=[2, 1], strength=3)]  # fmt: skip
    data = read_rankings(TOKENIZER, rows, settings())
    every = [completion for comparison in data.train for completion in comparison.group.completions]
    pairs = pairs_of_comparisons(data.train, margin=0.5)
    ranked = {
        tuple(TOKENIZER.decode(every[i][:-1]) for i in pair)
        for pair in zip(pairs.better.tolist(), pairs.worse.tolist(), strict=True)
    }
    assert ranked == {("thanks", "never"), ("thanks", "wait"), ("wait", "never"), ("yes", "no")}
    assert sorted(pairs.margin.tolist()) == [0.0, 0.0, 0.0, 1.5]


def test_over_long_prompts_lose_their_beginning_and_are_counted():
    whole = read_rankings(TOKENIZER, [row()], settings()).train[0].group.prompt
    data = read_rankings(TOKENIZER, [row()], settings(max_prompt_tokens=len(whole) - 2, max_completion_tokens=1))
    assert data.train[0].group.prompt == whole[2:]
    assert (data.truncated_prompts, data.truncated_completions) == (1, 3)
    assert read_rankings(TOKENIZER, [row()], settings(max_prompt_tokens=len(whole))).truncated_prompts == 0


def test_over_long_prompts_are_refused_where_configured():
    with pytest.raises(BadInput, match=r"row 1 \(prompt_id 1\): the prompt has .* more than max_prompt_tokens"):
        read_rankings(TOKENIZER, [row()], settings(max_prompt_tokens=2, overlong_prompts="refuse"))


def test_held_out_rankings_of_a_training_prompts_text_are_dropped():
    rows = [row(), row(prompt_id=2, split="held_out")]
    data = read_rankings(TOKENIZER, rows, settings())
    assert (len(data.train), len(data.held_out), data.dropped_held_out) == (1, 0, 1)


def test_held_out_rankings_are_kept_apart():
    data = read_rankings(TOKENIZER, ranking_rows(12, held_out=4), settings())
    assert {c.prompt_id for c in data.train} == set(range(8))
    assert {c.prompt_id for c in data.held_out} <= set(range(8, 12))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt_id": "1"}, "prompt_id must be a whole number"),
        ({"split": "test"}, "split must be train or held_out, not 'test'"),
        ({"messages": []}, "messages must be a list of at least one message"),
        ({"completions": ["one"], "ranks": [1]}, "completions must be a list of at least two strings"),
        ({"completions": ["one", 2], "ranks": [1, 2]}, "completions must be a list of at least two strings"),
        ({"ranks": [1, 2]}, "one rank per completion, not 2 for 3"),
        ({"ranks": [1, 2, True]}, "ranks must be a list of whole numbers"),
        ({"weight": -1}, "weight must be a number of at least 0"),
        ({"weight": float("nan")}, "weight must be a number of at least 0"),
        ({"strength": 1.5}, "strength must be a whole number of at least 0, or null"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused_by_its_number(changes, reason):
    with pytest.raises(BadInput, match=rf"row 2 \(prompt_id .*\): .*{reason}"):
        read_rankings(TOKENIZER, [row(), row(**changes)], settings())


@pytest.mark.parametrize("rows", [[], [row(ranks=[1, 1, 1])], [row(split="held_out")], [row(weight=0)]])
def test_data_without_any_preference_to_learn_is_refused(rows):
    with pytest.raises(BadInput, match="no training ranking that prefers a completion"):
        read_rankings(TOKENIZER, rows, settings())


def test_a_prompt_in_both_splits_is_refused():
    with pytest.raises(BadInput, match="prompt 1 in both splits"):
        read_rankings(TOKENIZER, [row(), row(split="held_out")], settings())
