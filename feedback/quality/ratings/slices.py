"""Win rates of two sources on slices of the prompts: which prompts raise or lower the win rate.

A slice is the prompts of one split, of one quarter of lengths, or with one value of a key of their metadata. Keys with
many values, such as numbers of tickets, make no slices.

With many slices some differ by chance. The p-value of a difference between a slice and the other prompts is therefore
corrected by Holm's method (1979, Scandinavian Journal of Statistics 6): if no slice differs, the probability that any
is reported is at most the level. The variance of a difference is that of `covariance`, and at least that of Agresti and
Caffo (2000, The American Statistician 54) for one preference a prompt, which does not vanish when a slice has only
wins.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from feedback.models import Project, Prompt
from feedback.quality.ranking_arrays import Booleans
from feedback.quality.ratings import covariance
from feedback.quality.ratings.estimates import SliceRate
from feedback.quality.ratings.pairs import Pairs
from feedback.quality.ratings.ranked_sources import RankedSources
from feedback.quality.ratings.win_rates import pairs_between, score_of, variance_of_sum, win_rate

MAX_VALUES = 12  # of a key of the metadata
MAX_KEYS = 20
MIN_PROMPTS = 10  # in a slice, and outside of it for its test
LEVEL = 0.05  # of the tests of all slices together

Name = tuple[str, str, str]  # kind, key, value


class PromptFields(NamedTuple):
    """The fields of a prompt that make its slices."""

    prompt_id: int
    split: str
    metadata: dict[str, Any]
    length: int  # characters of its messages


def read_prompts(project: Project, ids: Iterable[int]) -> list[PromptFields]:
    """Return the prompts with these ids, without repetition. Runs one query."""
    rows = Prompt.objects.filter(project=project, pk__in=set(ids)).values_list("pk", "split", "metadata", "messages")
    return [
        PromptFields(pk, split, metadata, sum(len(str(message["content"])) for message in messages))
        for pk, split, metadata, messages in rows.iterator(chunk_size=5000)
    ]


def slices_of(prompts: Sequence[PromptFields]) -> dict[Name, set[int]]:
    """Return the ids of the prompts in each slice: by split, by length, then by metadata."""
    slices: dict[Name, set[int]] = defaultdict(set)
    for prompt in sorted(prompts, key=lambda prompt: prompt.split, reverse=True):
        slices["split", "", prompt.split].add(prompt.prompt_id)
    _add_lengths(slices, prompts)
    _add_metadata(slices, prompts)
    return dict(slices)


def _add_lengths(slices: dict[Name, set[int]], prompts: Sequence[PromptFields]) -> None:
    """Add four slices with about as many prompts each; fewer if many prompts are equally long."""
    if not prompts:
        return
    lengths = np.array([prompt.length for prompt in prompts])
    low = int(lengths.min())
    for high in np.unique(np.quantile(lengths, [0.25, 0.5, 0.75, 1], method="inverted_cdf")).tolist():
        ids = {prompt.prompt_id for prompt in prompts if low <= prompt.length <= high}
        slices["length", "", f"{low}–{high}"] = ids
        low = high + 1


def _add_metadata(slices: dict[Name, set[int]], prompts: Sequence[PromptFields]) -> None:
    by_key: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for prompt in prompts:
        for key, value in prompt.metadata.items():
            for text in _texts(value):
                by_key[key][text].add(prompt.prompt_id)
    keys = [key for key in sorted(by_key) if len(by_key[key]) <= MAX_VALUES][:MAX_KEYS]
    for key in keys:
        for text in sorted(by_key[key]):
            slices["metadata", key, text] = by_key[key][text]


def _texts(value: Any) -> Iterator[str]:
    """Yield a value as text; of a list, such as tags, every value; nothing of nested data."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, bool):
            yield "true" if one else "false"
        elif isinstance(one, str | int | float):
            yield str(one)


def slice_rates(
    rankings: Sequence[RankedSources], slices: dict[Name, set[int]], source_id: int, other_id: int
) -> list[SliceRate]:
    """Return the win rate of a source against another on each slice with at least MIN_PROMPTS prompts of theirs.

    A slice that holds all of their prompts is left out.
    """
    pairs, prompt_ids = pairs_between(rankings, source_id, other_id)
    rates = []
    for (kind, key, value), ids in slices.items():
        is_prompt_inside = np.array([prompt_id in ids for prompt_id in prompt_ids], dtype=np.bool_)
        if not MIN_PROMPTS <= is_prompt_inside.sum() < len(prompt_ids):
            continue
        is_inside = is_prompt_inside[pairs.prompt]
        rate = win_rate(pairs.select(is_inside))
        difference, p_value = _difference(pairs, is_inside)
        if source_id != rate.source_id:
            rate, difference = rate.reversed(), None if difference is None else -difference
        rates.append(SliceRate(kind, key, value, rate, difference, p_value))
    return _with_holm(rates)


def _difference(pairs: Pairs, is_inside: Booleans) -> tuple[float | None, float | None]:
    """Return how much higher the win rate is inside, and the p-value; None with too few prompts or clusters."""
    from scipy.special import stdtr  # takes a tenth of a second to import

    clusters = covariance.clusters_of(pairs)
    if clusters is None or len(np.unique(pairs.prompt[~is_inside])) < MIN_PROMPTS:
        return None, None
    score = score_of(pairs)
    difference, residuals, least = 0.0, np.zeros(len(score)), 0.0
    for sign, rows in ((1, is_inside), (-1, ~is_inside)):
        mean, prompts = float(score[rows].mean()), len(np.unique(pairs.prompt[rows]))
        difference += sign * mean
        residuals[rows] = sign * (score[rows] - mean) / rows.sum()
        shrunk = (mean * prompts + 1) / (prompts + 2)
        least += shrunk * (1 - shrunk) / (prompts + 2)
    error = math.sqrt(max(variance_of_sum(clusters, residuals), least))
    return difference, float(2 * stdtr(clusters.degrees, -abs(difference) / error))


def _with_holm(rates: Sequence[SliceRate]) -> list[SliceRate]:
    """Correct the p-values by Holm's method."""
    tested = sorted((rate.p_value, index) for index, rate in enumerate(rates) if rate.p_value is not None)
    corrected: dict[int, float] = {}
    highest = 0.0
    for position, (p_value, index) in enumerate(tested):
        highest = max(highest, min(1.0, p_value * (len(tested) - position)))
        corrected[index] = highest
    return [
        SliceRate(rate.kind, rate.key, rate.value, rate.rate, rate.difference, corrected.get(index))
        for index, rate in enumerate(rates)
    ]
