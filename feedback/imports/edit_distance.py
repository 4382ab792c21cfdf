"""Levenshtein distance of two texts up to a limit, exact.

The furthest-reaching form of E. Ukkonen, "Algorithms for approximate string matching", Information and Control 64
(1985): time O(limit²) besides the comparison of equal stretches. Before it, the q-gram lemma of P. Jokinen and
E. Ukkonen, "Two algorithms for approximate string matching in static texts" (1991) refuses most different texts in
linear time.
"""

from collections import Counter

GRAM = 4  # characters of the q-grams: different texts share few of this length
UNREACHED = -2  # row of a diagonal that no number of edits reaches yet


def distance_within(one: str, other: str, limit: int) -> int | None:
    """Return the number of insertions, deletions and substitutions from one text to the other; None above the limit."""
    if limit < 0 or abs(len(one) - len(other)) > limit:
        return None
    begin = equal_stretch(one, 0, other, 0)
    one, other = one[begin:], other[begin:]
    end = equal_stretch(one[::-1], 0, other[::-1], 0)
    one, other = one[: len(one) - end], other[: len(other) - end]
    if not one or not other:
        return max(len(one), len(other))  # at most the limit, by the difference of the lengths
    if limit == 0 or not _may_be_within(one, other, limit):
        return None
    return _furthest_reaching(one, other, limit)


def _may_be_within(one: str, other: str, limit: int) -> bool:
    """Return False if the texts share too few q-grams: each edit changes at most GRAM of them."""
    longest = max(len(one), len(other))
    needed = longest - GRAM + 1 - limit * GRAM
    if needed <= 0:
        return True
    return sum((_grams(one) & _grams(other)).values()) >= needed


def _grams(text: str) -> Counter[str]:
    return Counter(text[start : start + GRAM] for start in range(len(text) - GRAM + 1))


def _furthest_reaching(one: str, other: str, limit: int) -> int | None:
    """Return the distance, by the furthest row that `edits` edits reach on each diagonal (column − row)."""
    rows, columns = len(one), len(other)
    goal = columns - rows
    before: dict[int, int] = {}
    for edits in range(limit + 1):
        reached: dict[int, int] = {}
        # Cut-off: from another diagonal the goal's cannot be reached with the edits that are left.
        left = limit - edits
        for diagonal in range(max(-edits, goal - left, -rows), min(edits, goal + left, columns) + 1):
            row = 0 if edits == 0 else _next_row(before, diagonal)
            row = min(row, rows, columns - diagonal)
            if row < 0 or row + diagonal < 0:
                continue
            row += equal_stretch(one, row, other, row + diagonal)
            if diagonal == goal and row == rows:
                return edits
            reached[diagonal] = row
        before = reached
    return None


def _next_row(before: dict[int, int], diagonal: int) -> int:
    """Return the row after one more substitution, insertion or deletion."""
    return max(
        before.get(diagonal, UNREACHED) + 1,
        before.get(diagonal - 1, UNREACHED),
        before.get(diagonal + 1, UNREACHED) + 1,
    )


def equal_stretch(one: str, start: int, other: str, other_start: int) -> int:
    """Return how many characters are equal from these places on. Slices of doubling length are compared at once."""
    length = 0
    most = min(len(one) - start, len(other) - other_start)
    step = 1
    while length < most:
        step = min(step, most - length)
        first, second = start + length, other_start + length
        if one[first : first + step] == other[second : second + step]:
            length += step
            step *= 2
        else:
            most = length + step - 1  # the difference is within this step
            step = max(1, step // 2)
    return length
