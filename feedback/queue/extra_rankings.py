"""Extra rankings: one more annotator ranks a comparison on which the annotators so far have no majority."""

from collections.abc import Sequence
from itertools import combinations

from django.db.models import F

from feedback.models import Comparison, Project


def request_if_no_majority(project: Project, comparison_id: int) -> None:
    """Request one more ranking of a comparison that is complete and has no majority.

    Called in the transaction that wrote its last ranking and so locked its row. The queue serves the comparison first,
    because no other has as many rankings.
    """
    comparison = Comparison.objects.get(pk=comparison_id)
    is_complete = comparison.ranking_count == comparison.wanted_rankings and comparison.gold_ranks is None
    # A trial tests one vote of each comparison: another one would decide nothing.
    is_complete = is_complete and comparison.trial_id is None
    # Adjudicated comparisons need no check: nobody can hold one, so no ranking of one leads here.
    if not is_complete or comparison.extra_rankings >= project.extra_rankings:
        return
    rankings = comparison.rankings.filter(is_live=True).values_list("ranks", flat=True)
    if not has_majority(list(rankings)):
        Comparison.objects.filter(pk=comparison_id).update(
            wanted_rankings=F("wanted_rankings") + 1,
            open_slots=F("open_slots") + 1,
            extra_rankings=F("extra_rankings") + 1,
        )


def has_majority(rankings: Sequence[Sequence[int]]) -> bool:
    """Return whether no pair of completions has equally many annotators, at least one each, on both sides."""
    for i, j in combinations(range(len(rankings[0])), 2):
        first = sum(ranks[i] < ranks[j] for ranks in rankings)
        second = sum(ranks[i] > ranks[j] for ranks in rankings)
        if first == second > 0:
            return False
    return True
