"""Near-duplicates: the exact edit distance, and what counts as alike."""

import random

import pytest

from feedback.dialogues import Answer
from feedback.imports.edit_distance import distance_within
from feedback.imports.near_duplicates import are_alike


def brute_force(one, other):
    """Return the Levenshtein distance by the table of all prefixes (Wagner and Fischer 1974)."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1]


def edited(text, edits, letters, random_):
    characters = list(text)
    for _ in range(edits):
        place = random_.randrange(len(characters) + 1)
        kind = random_.choice("isd")
        characters[place : place + (kind != "i")] = random_.choice(letters) if kind != "d" else ""
    return "".join(characters)


@pytest.mark.parametrize("letters", ["ab", "abcdefgh", "aé漢\U0001f600"])
def test_the_distance_is_that_of_the_whole_table(letters):
    random_ = random.Random(7)
    for _ in range(150):
        text = "".join(random_.choices(letters, k=random_.randrange(40)))
        other = edited(text, random_.randrange(8), letters, random_)
        if random_.random() < 0.3:
            other = "".join(random_.choices(letters, k=random_.randrange(40)))
        true = brute_force(text, other)
        for limit in (0, 1, 2, 5, true - 1, true, true + 3, 100):
            assert distance_within(text, other, limit) == (true if true <= limit else None), (text, other, limit)


def test_the_distance_of_long_texts_is_exact_at_the_limit():
    random_ = random.Random(3)
    text = "".join(random_.choices("abcdefghij ", k=600))
    other = edited(text, 25, "klm", random_)
    true = brute_force(text, other)
    assert 10 < true <= 25
    assert distance_within(text, other, true) == true
    assert distance_within(text, other, true - 1) is None


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("The same.", "The same.", True),
        ("The same.", "The same. \n\n", True),  # white space at the end
        ("caf\u00e9", "cafe\u0301", True),  # equal in normal form C
        ("one\ntwo", "one two", True),  # a line break that Markdown does not show
        ("a" * 100, "a" * 96 + "bbbb", True),  # 4 %
        ("a" * 100, "a" * 95 + "bbbbb", False),  # 5 % is not under 5 %
        ("a" * 20, "a" * 19 + "b", False),
        ("", "", True),
        ("Yes.", "No.", False),
        ("$x^2$", "$x^3$", False),
        ("*one* and two", "_one_ and two", False),
    ],
)
def test_near_duplicates_are_those_under_five_percent_or_of_one_look(one, other, alike):
    assert are_alike(Answer(one), Answer(other)) is alike
    assert are_alike(Answer(other), Answer(one)) is alike


def test_dialogues_are_alike_only_with_the_same_speakers():
    turns = [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "x"}]
    one = [*turns, {"role": "assistant", "content": "Bye"}]
    assert are_alike(Answer("t", one), Answer("t", [*one]))
    assert not are_alike(Answer("t", one), Answer("t", [*turns, {"role": "assistant", "content": "No"}]))
    assert not are_alike(Answer("t", one), Answer("Hi"))
