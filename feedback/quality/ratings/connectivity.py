"""The sources that have a finite rating.

Without ties, the likelihood has a finite maximum if and only if every source can be reached from every other one by a
path of wins (Ford 1957, American Mathematical Monthly 64): the graph of wins is strongly connected. A tie is an edge in
both directions. The sources of the largest strongly connected component are rated; the others are not.

With ties and an unknown ν this is not sufficient. If one source beat and tied with another and never lost, the
likelihood grows with both d and ν without limit. In general it does so along a direction (δ, ε) of (θ, log ν) if
δ₁ − δ₂ ≥ 2ε for each win and |δ₁ − δ₂| ≤ 2ε for each tie, for some ε > 0. Such difference constraints can be satisfied
if and only if their graph has no negative cycle: no cycle along wins and ties has more wins than ties.
"""

import numpy as np

from feedback.quality.ranking_arrays import Booleans, Integers
from feedback.quality.ratings.estimates import Status


def statuses(wins: Integers, ties: Integers) -> list[Status]:
    """Return the status of each source. wins, ties: [S, S] counts; `wins` are those of the row's source."""
    component = _largest_component(wins, ties)
    has_maximum = _has_maximum(wins[component][:, component], ties[component][:, component])
    has_won, has_lost = (wins + ties).any(axis=1), (wins + ties).any(axis=0)
    result = np.full(len(wins), Status.DISCONNECTED, dtype=object)
    result[~has_won & has_lost] = Status.ONLY_LOSSES
    result[~has_lost & has_won] = Status.ONLY_WINS
    result[component] = Status.RATED if has_maximum else Status.UNDETERMINED
    return [Status(status) for status in result]  # np.full makes the members plain strings


def _largest_component(wins: Integers, ties: Integers) -> Booleans:
    """Return [S] whether a source is in the largest component of at least two; of equal ones, that with most pairs."""
    from scipy.sparse.csgraph import connected_components  # takes a tenth of a second to import

    count, label = connected_components(wins + ties > 0, connection="strong")
    met = wins + wins.T + ties
    same = label[:, None] == label
    pairs = np.bincount(label, (met * same).sum(axis=1), count)
    sizes = np.bincount(label, minlength=count)
    best = max(range(count), key=lambda index: (sizes[index], pairs[index]), default=0)
    return (label == best) & (sizes[label] > 1)


def _has_maximum(wins: Integers, ties: Integers) -> bool:
    """Return whether a strongly connected component has a finite maximum: see the module's docstring.

    The search for a negative cycle is Bellman and Ford's, with all edges at once.
    """
    if not ties.any():
        return True
    lengths = np.where(wins > 0, -1.0, np.where(ties > 0, 1.0, np.inf))
    distance = np.zeros(len(wins))
    for _ in range(len(wins)):
        shorter = np.minimum(distance, (distance[:, None] + lengths).min(axis=0))
        if (shorter == distance).all():
            return False
        distance = shorter
    return True
