"""Comparisons that somebody has worked on, which are not deleted when their import is undone or their trial ends."""

from collections.abc import Iterator

from django.db.models import Exists, OuterRef, Q, QuerySet

from feedback.models import Comparison, Demonstration, Lease, Ranking, Skip


def reasons_to_keep(comparisons: QuerySet[Comparison], *, may_wait: bool = False) -> Iterator[tuple[int, str]]:
    """Lock comparisons and yield the id of each with the reason why it must stay; "": it can be deleted.

    The reasons are ranked, skipped, answered and held. Comparisons that others have locked are held, too, unless this
    may wait for them: those transactions must not wait for a lock of the caller's.
    """
    # Leasing, ranking or skipping a comparison locks its row, after membership and lease. A row that is locked by
    # somebody else is therefore being worked on. For the rows locked here the second query sees everything that was
    # committed before the lock.
    locked = comparisons.order_by("pk").select_for_update(skip_locked=not may_wait, of=("self",))
    free = set(locked.values_list("pk", flat=True))
    worked_on = comparisons.annotate(
        ranked=Exists(Ranking.objects.filter(comparison=OuterRef("pk"))),
        skipped=Exists(Skip.objects.filter(comparison=OuterRef("pk"))),
        answered=Exists(Demonstration.objects.filter(comparison=OuterRef("pk"))),
        # A stand-in decides whether its annotator gets gold again after a skip or a lapsed lease.
        held=Exists(Lease.objects.filter(Q(comparison=OuterRef("pk")) | Q(stand_in=OuterRef("pk"))))
        | Exists(Skip.objects.filter(stand_in=OuterRef("pk"))),
    )
    rows = worked_on.values_list("pk", "ranked", "skipped", "answered", "held")
    for pk, ranked, skipped, answered, held in rows:
        if ranked:
            yield pk, "ranked"
        elif skipped:
            yield pk, "skipped"
        elif answered:
            yield pk, "answered"
        else:
            yield pk, "held" if held or pk not in free else ""
