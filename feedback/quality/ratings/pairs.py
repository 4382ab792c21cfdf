"""Rankings as pairs of completions by different sources, as arrays."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from feedback.quality.ranking_arrays import Booleans, Floats, Integers, Preferences, preferences_of
from feedback.quality.ratings.ranked_sources import RankedSources

MAX_TABLE = 1_000_000  # ids


class Pairs(NamedTuple):
    """N pairs of completions, in the order of prompt and annotator. The first source has the lower index.

    A ranking of K completions makes K(K − 1)/2 pairs. Pairs of one source with itself are left out.
    """

    first: Integers  # [N] indices into `sources`
    second: Integers  # [N]
    sign: Preferences  # [N] 1: the first is better, −1: the second, 0: they tie
    shown_first: Preferences  # [N] 1: the first was displayed before all others, −1: the second, 0: neither
    prompt: Integers  # [N] indices from 0
    annotator: Integers  # [N] indices from 0
    style: Floats  # [N, M] style of the first minus that of the second
    sources: Integers  # [S] ids

    def select(self, rows: Booleans | Integers) -> "Pairs":
        """Return the pairs in these rows; sources, prompts and annotators keep their indices."""
        return Pairs._make([*(column[rows] for column in self[:-1]), self.sources])


def pairs_of(rankings: Iterable[RankedSources], covariates: int = 0) -> Pairs:
    """Return the pairs of rankings that have this number of style covariates."""
    groups: dict[int, list[RankedSources]] = defaultdict(list)
    for ranking in rankings:
        groups[len(ranking.ranks)].append(ranking)
    columns: list[Any] = [_pairs_of_size(group, size, covariates) for size, group in sorted(groups.items())]
    if not columns:
        nothing = np.zeros(0, dtype=np.int64)
        columns = [(nothing, nothing, nothing, nothing, nothing, nothing, np.zeros((0, covariates)))]
    first, second, sign, shown_first, prompt, annotator, style = (
        np.concatenate(column) for column in zip(*columns, strict=True)
    )
    sources, index = np.unique(np.stack([first, second]), return_inverse=True)
    index = index.reshape(2, -1)
    return make_pairs(index[0], index[1], sign, shown_first, prompt, annotator, style, sources)


def make_pairs(
    first: Integers,
    second: Integers,
    sign: Preferences,
    shown_first: Preferences,
    prompt: Integers,
    annotator: Integers,
    style: Floats,
    sources: Integers,
) -> Pairs:
    """Return pairs from columns in any order, with any of the two sources first; prompts and annotators are ids."""
    direction = np.where(first < second, 1, -1)
    is_pair = first != second
    pairs = Pairs(
        np.minimum(first, second),
        np.maximum(first, second),
        (sign * direction).astype(np.int8),
        (shown_first * direction).astype(np.int8),
        prompt,
        annotator,
        style * direction[:, None],
        sources,
    )
    pairs = pairs if is_pair.all() else pairs.select(is_pair)
    pairs = pairs._replace(prompt=numbered(pairs.prompt), annotator=numbered(pairs.annotator))
    # The covariance sums clusters faster when their pairs are neighbours.
    return pairs.select(sorting_order(pairs.prompt, pairs.annotator))


def sorting_order(*keys: Integers) -> Integers:
    """Return the stable order [N] by columns that are not negative, the most important one first, as np.lexsort does.

    A radix sort by 16 bits at a time: for these, numpy's stable sort counts, in a fifth of the time of comparisons.
    """
    order = np.arange(len(keys[0]))
    for key in reversed(keys):
        for shift in range(0, max(1, int(key.max(initial=0)).bit_length()), 16):
            digits = (key >> shift).astype(np.uint16)  # the low 16 bits
            order = order[np.argsort(digits[order], kind="stable")]
    return order


def numbered(ids: Integers) -> Integers:
    """Return each id's index among the different ids, which are not negative."""
    limit = int(ids.max(initial=-1)) + 1
    if limit > MAX_TABLE + 4 * len(ids):
        return np.unique(ids, return_inverse=True)[1].reshape(-1)
    is_used = np.zeros(limit, dtype=np.bool_)
    is_used[ids] = True
    return (np.cumsum(is_used) - 1)[ids]  # a tenth of the time of np.unique, which sorts


def _pairs_of_size(rankings: list[RankedSources], size: int, covariates: int) -> tuple[Any, ...]:
    """Return the columns of `make_pairs` for R rankings of K completions; sources are ids."""
    sources = np.array([ranking.sources for ranking in rankings], dtype=np.int64)  # [R, K]
    ranks = np.array([ranking.ranks for ranking in rankings], dtype=np.int64)
    displayed_first = np.array([ranking.display_order[0] for ranking in rankings], dtype=np.int64)[:, None]
    style = np.array([ranking.style for ranking in rankings], dtype=np.float64)  # [R, M, K]
    style = style.reshape(len(rankings), covariates, size)
    first, second = np.triu_indices(size, k=1)
    count = len(first)
    difference = style[:, :, first] - style[:, :, second]  # [R, M, pairs]
    return (
        sources[:, first].ravel(),
        sources[:, second].ravel(),
        preferences_of(ranks).ravel(),
        ((displayed_first == first).astype(np.int8) - (displayed_first == second)).ravel(),
        np.repeat([ranking.prompt_id for ranking in rankings], count),
        np.repeat([ranking.annotator_id for ranking in rankings], count),
        difference.transpose(0, 2, 1).reshape(len(rankings) * count, covariates),
    )
