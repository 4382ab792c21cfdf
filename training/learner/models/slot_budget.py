"""Batches of packed sequences that fit a budget of attention slots."""

from collections.abc import Callable, Sequence

from training.learner.models.packed_attention import GroupSizes
from training.learner.models.packed_layouts import chunks_of, is_shared, similar_lengths


def attention_slots(groups: Sequence[GroupSizes]) -> int:
    """Return the number of slots that attention holds for these prompts and their completions, with padding.

    A slot is a query with its output and a key with its value. Where a row has more keys than queries (copies of a
    prompt's keys), each of them counts half a slot.
    """
    chunks = [chunk for number, sizes in enumerate(groups) for chunk in chunks_of(number, sizes)]
    whole: list[int] = []
    for prompt, lengths in groups:
        whole += [prompt] if is_shared((prompt, lengths)) else [prompt + length for length in lengths]
    copied = [(chunk.width, chunk.queries) for chunk in chunks if not chunk.is_viewed]
    viewed = sum(chunk.queries for chunk in chunks if chunk.is_viewed)
    return viewed + -(-(padded_size([(length, length) for length in whole]) + padded_size(copied)) // 2)


def padded_size(shapes: Sequence[tuple[int, int]]) -> int:
    """Return the number of keys plus queries of rows with (keys, queries) each, padded by `similar_lengths`."""
    parts = [[shapes[i] for i in part] for part in similar_lengths([keys for keys, _ in shapes])]
    return sum(len(part) * (part[0][0] + max(queries for _, queries in part)) for part in parts)


def fill_batches(sizes: Sequence[int], budget: int, slots: Callable[[Sequence[int]], int]) -> list[list[int]]:
    """Return indices of items in batches of at most `budget` slots; items of similar size come together.

    slots: number of slots of several items in one batch. An item that needs more than the budget goes alone.
    """
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    batches: list[list[int]] = []
    while order:
        count = fitting_count(order, budget, slots)
        batches.append(order[:count])
        order = order[count:]
    return batches


def fitting_count(order: Sequence[int], budget: int, slots: Callable[[Sequence[int]], int]) -> int:
    """Return how many of the first items fit the budget together, at least 1.

    Doubling and then bisection need O(log n) calls of `slots`. One call per item would make filling quadratic.
    """
    fits, fails = 1, len(order) + 1
    while fails - fits > 1:
        is_bounded = fails <= len(order)
        count = (fits + fails) // 2 if is_bounded else min(2 * fits, len(order))
        if slots(order[:count]) <= budget:
            fits = count
        else:
            fails = count
    return fits


def batches_within(items: Sequence[Sequence[GroupSizes]], budget: int) -> list[list[int]]:
    """Return indices of items in batches of at most `budget` attention slots, see `fill_batches`."""

    def slots(chosen: Sequence[int]) -> int:
        return attention_slots([sizes for index in chosen for sizes in items[index]])

    return fill_batches([attention_slots(sizes) for sizes in items], budget, slots)
