"""Labels of single completions: derived from rankings or read from a file, and refused rows."""

import pytest

from tests.learner.worlds.letters import letters_tokenizer
from training.learner.preferences.labels import LabelData, labels_of_ranking, read_labels
from training.learner.runtime.config.kto import KtoConfig
from training.learner.runtime.jobdir import BadInput

AUTO = KtoConfig(model="m")


def ranking(ranks, prompt="a", completions=("a", "b", "c", "d"), **details):
    return {
        "prompt_id": 1,
        "split": "train",
        "messages": [{"role": "user", "content": prompt}],
        "completions": list(completions[: len(ranks)]),
        "ranks": list(ranks),
        **details,
    }


def label(prompt, completion, is_desirable, **details):
    messages = [{"role": "user", "content": prompt}]
    return {"messages": messages, "completion": completion, "desirable": is_desirable, **details}


def labels(row, **settings):
    found = labels_of_ranking(row, KtoConfig(model="m", **settings), LabelData())
    return {one.turns[-1]["content"]: one.is_desirable for one in found}


def test_the_first_and_the_last_rank_are_labels_and_those_between_are_not():
    assert labels(ranking([2, 1, 3, 2])) == {"b": True, "c": False}
    assert labels(ranking([1, 1, 2, 2])) == {"a": True, "b": True, "c": False, "d": False}
    assert labels(ranking([1, 1, 1])) == {}


def test_halves_label_everything_except_the_middle():
    assert labels(ranking([1, 2, 3, 4]), ranks_as_labels="halves") == {"a": True, "b": True, "c": False, "d": False}
    assert labels(ranking([1, 2, 3]), ranks_as_labels="halves") == {"a": True, "c": False}
    assert labels(ranking([1, 1, 1]), ranks_as_labels="halves") == {}


@pytest.mark.parametrize(("flag", "is_desirable"), [("all good", True), ("all bad", False)])
def test_a_flag_labels_all_completions_regardless_of_their_ranks(flag, is_desirable):
    row = ranking([1, 2, 3], flags=["own flag", flag], ratings={"honest": [5, 1, None]})
    assert labels(row) == dict.fromkeys("abc", is_desirable)
    assert labels(row, labels_from="ranks") == {"a": True, "c": False}
    assert labels(ranking([1, 2], flags=["all good", "all bad"]), labels_from="flags") == {}


def test_ratings_take_precedence_over_ranks_and_only_the_midpoint_gives_no_label():
    row = ranking([1, 2, 3, 4], ratings={"honest": [2, 5, 3, None], "kind": [3, 4, None, None]})
    # a is rated 2.5 on average although it is first; c at the midpoint and d without ratings have their ranks only.
    assert labels(row) == {"a": False, "b": True, "d": False}
    assert labels(row, labels_from="ratings") == {"a": False, "b": True}
    assert labels(row, labels_from="ratings", rating_midpoint=2.0) == {"a": True, "b": True, "c": True}


def test_labels_of_one_completion_are_added_up_and_both_files_count():
    rows = [
        ranking([1, 2], weight=0.5),
        ranking([2, 1], weight=2.0),
        ranking([1, 2], prompt="b", completions=("c", "d")),
    ]
    singles = [label("a", "a", True, weight=4.0), label("c", "d", False, split="held_out")]
    data = read_labels(letters_tokenizer(), rows, singles, AUTO)
    (a, b), (c, d) = data.train
    assert (a.prompt, a.completion, a.desirable, a.undesirable) == ((1,), (1, 0), 4.5, 2.0)
    assert (b.desirable, b.undesirable) == (2.0, 0.5) and (c.desirable, d.undesirable) == (1.0, 1.0)
    ((held_out,),) = data.held_out
    assert (held_out.prompt, held_out.completion, held_out.undesirable) == ((3,), (4, 0), 1.0)
    assert (data.desirable, data.undesirable, data.unlabelled) == (4, 3, 0)


def test_truncated_and_omitted_labels_are_counted():
    settings = KtoConfig(model="m", max_prompt_tokens=1, max_completion_tokens=2)
    rows = [ranking([1, 2, 3], prompt="b a", completions=("a", "b", "c c c"))]
    singles = [label("b", "a", True), label("a", "d", False, split="held_out")]
    data = read_labels(letters_tokenizer(), rows, singles, settings)
    assert (data.truncated_prompts, data.truncated_completions, data.unlabelled) == (1, 1, 1)
    assert data.held_out == [] and data.dropped_held_out == 1  # its prompt is a training prompt after truncation


TWO = [label("a", "a", True), label("b", "b", False)]


@pytest.mark.parametrize(
    ("rankings", "singles", "sentence"),
    [
        ([], [], "there is no training label with a weight above 0"),
        ([ranking([1, 1])], [], "there is no training label with a weight above 0"),
        ([], TWO[:1], "no training label is undesirable"),
        ([], [label("a", "a", False), label("b", "b", False)], "no training label is desirable"),
        ([ranking([1, 2])], [], "all training labels are of one prompt"),
        ([], [*TWO, label("c", "c", "yes")], "labels.jsonl, row 3: desirable must be true or false, not 'yes'"),
        ([], [*TWO, label("c", "c", True, weight=-1)], "row 3: weight must be a number of at least 0"),
        ([], [*TWO, label("c", 3, True)], "row 3: completion must be a string"),
        ([], [*TWO, label("c", "c", True, split="test")], "row 3: split must be train or held_out"),
        ([], [*TWO, label("", "c", True)], "row 3: the prompt has no tokens"),
        ([ranking([1])], [], "rankings.jsonl, row 1.*completions must be a list of at least two"),
        ([ranking([1, 2], ratings={"honest": [1]})], [], "ratings must be an object of lists with one rating"),
        ([ranking([1, 2], ratings={"honest": ["5", None]})], [], "a rating must be a number or null"),
        ([ranking([1, 2], flags="all bad")], [], "flags must be a list"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_in_a_sentence(rankings, singles, sentence):
    with pytest.raises(BadInput, match=sentence):
        read_labels(letters_tokenizer(), rankings, singles, AUTO)
