"""Asking one more person where those who were asked have no majority."""

from collections.abc import Sequence
from itertools import combinations

from django.db.models import F

from feedback.models import Comparison, Project


def ask_for_majority(project: Project, comparison_id: int) -> None:
    """Want one more ranking of a comparison that has all it wanted, and no majority.

    Inside the transaction that wrote its last ranking, so that its row is locked. The queue serves it first: no
    other has as many rankings.
    """
    comparison = Comparison.objects.get(pk=comparison_id)
    is_complete = comparison.ranking_count == comparison.wanted_rankings and comparison.gold_ranks is None
    # An adjudicated one is never asked for again: nobody can hold it, so nobody's ranking brings us here.
    if not is_complete or comparison.extra_opinions >= project.extra_opinions:
        return
    said = comparison.rankings.filter(is_live=True).values_list("ranks", flat=True)
    if not has_majority(list(said)):
        Comparison.objects.filter(pk=comparison_id).update(
            wanted_rankings=F("wanted_rankings") + 1,
            open_slots=F("open_slots") + 1,
            extra_opinions=F("extra_opinions") + 1,
        )


def has_majority(said: Sequence[Sequence[int]]) -> bool:
    """Whether no pair of completions has as many people for the one as for the other (and anybody at all)."""
    for i, j in combinations(range(len(said[0])), 2):
        first = sum(ranks[i] < ranks[j] for ranks in said)
        second = sum(ranks[i] > ranks[j] for ranks in said)
        if first == second > 0:
            return False
    return True
