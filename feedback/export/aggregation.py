"""One ranking a comparison: the consensus of its annotators, by weighted votes on each pair."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from statistics import fmean, median
from typing import Any

from feedback.export.ranking_record import Row

EVERYBODY = "everybody"  # in place of a pseudonym
REASON = "aggregated"
DIGITS = 9  # sums of equal weights in another order differ beyond these


def aggregated(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the consensus of each comparison. The rows come by comparison, without retractions."""
    for _comparison_id, rankings in groupby(rows, key=lambda row: row["comparison_id"]):
        yield consensus(list(rankings))


def consensus(rankings: Sequence[Row]) -> Row:
    """Return the rankings of one comparison as one, in the form of a single ranking.

    Completions are ordered by Borda's count: the sum over annotators and other completions of the annotator's weight,
    positive where the completion is better and negative where it is worse. Equal sums tie. If all weights are 0, they
    count as equal.

    `ranking_id`, `sequence`, `created_at`, `display_order` and the like are those of the newest ranking. `weight` is
    the sum of the weights, at most 1. `seconds` is the sum. A flag stays if more than half of the annotators put it;
    `ratings` are means. `strength` is the median of those who agree with the consensus. A single annotator's spans,
    comment and reliability are left out.
    """
    newest = max(rankings, key=lambda row: row["sequence"])
    ranks = _ranks(rankings)
    return newest | {
        "annotator": EVERYBODY,
        "reason": REASON,
        "ranks": ranks,
        "weight": min(round(sum(row["weight"] for row in rankings), DIGITS), 1.0),
        "reliability": None,
        "seconds": round(sum(row["seconds"] for row in rankings), 3),
        "strength": _strength(rankings, ranks),
        "flags": _flags(rankings),
        "ratings": _ratings(rankings),
        "spans": [],
        "comment": "",
    }


def _ranks(rankings: Sequence[Row]) -> list[int]:
    places = range(len(rankings[0]["ranks"]))
    has_weights = any(row["weight"] for row in rankings)
    counts = [0.0 for _place in places]
    for row in rankings:
        weight, ranks = row["weight"] if has_weights else 1.0, row["ranks"]
        for place in places:
            counts[place] += weight * sum((other > ranks[place]) - (other < ranks[place]) for other in ranks)
    rounded = [round(count, DIGITS) for count in counts]
    best_first = sorted(set(rounded), reverse=True)
    return [best_first.index(count) + 1 for count in rounded]


def _strength(rankings: Sequence[Row], ranks: list[int]) -> int | None:
    agreeing = [row["strength"] for row in rankings if row["strength"] is not None and row["ranks"] == ranks]
    return int(median(agreeing)) if agreeing else None


def _flags(rankings: Sequence[Row]) -> list[str]:
    counts = Counter(flag for row in rankings for flag in row["flags"])
    return sorted(flag for flag, count in counts.items() if 2 * count > len(rankings))


def _ratings(rankings: Sequence[Row]) -> dict[str, list[Any]]:
    """Return the mean rating of each completion by attribute, null where nobody rated it."""
    places = range(len(rankings[0]["ranks"]))
    means: dict[str, list[Any]] = {}
    for attribute in sorted({attribute for row in rankings for attribute in row["ratings"]}):
        lists = [row["ratings"][attribute] for row in rankings if attribute in row["ratings"]]
        by_place = [[values[place] for values in lists if values[place] is not None] for place in places]
        means[attribute] = [round(fmean(values), 3) if values else None for values in by_place]
    return means
