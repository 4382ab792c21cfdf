"""Gold: comparisons whose right ranking is known. They test people before they start, and now and then afterwards.

An annotator is never told which ones these are. What is said of them goes into no export and no agreement.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from django.db.models import F, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feedback import candidates
from feedback.agreement import Estimate, same_preference, share
from feedback.errors import Conflict
from feedback.models import Comparison, Membership, Project, Ranking

OF_GOLD = gettext_lazy("{value:.0%} of {pairs:,} gold preferences ({low:.0%} to {high:.0%}).")


def must_qualify(membership: Membership) -> bool:
    """Whether only gold may be given to this person: an annotator who has not passed what the project asks."""
    asked = membership.project.qualification_items > 0 and membership.role == Membership.Role.ANNOTATOR
    return asked and membership.qualified_at is None


def is_due(membership: Membership) -> bool:
    """Drawn at random, so that nobody can count to the next one."""
    return random.random() * 100 < membership.project.gold_percent


def claim(membership: Membership) -> Comparison | None:
    """A gold comparison that this person has not seen, locked with a slot open."""
    gold = Comparison.objects.filter(
        project_id=membership.project_id, gold_ranks__isnull=False, open_slots__gt=0
    ).order_by("shuffle_key")
    unseen = candidates.unseen(gold, membership).select_related("prompt")
    return unseen.select_for_update(of=("self",), no_key=True, skip_locked=True).first()


def claim_to_qualify(membership: Membership) -> Comparison:
    """As `claim`; a Conflict says so when there is none left to qualify with."""
    found = claim(membership)
    if found is None:
        raise Conflict(
            _(
                "You have ranked all the comparisons that this project tests new annotators with, and not yet passed: "
                "its managers can add more of them."
            )
        )
    return found


def note(membership: Membership) -> None:
    """After a ranking of gold: qualify the person if their last ones pass. The membership is locked by the caller."""
    if not must_qualify(membership):
        return
    asked = membership.project.qualification_items
    last = _of_gold(membership.project).filter(annotator_id=membership.user_id).order_by("-created_at", "-id")[:asked]
    rows = list(last)
    counts = [counted(ranks, gold) for _, ranks, gold in rows]
    same, all_ = sum(same for same, _ in counts), sum(all_ for _, all_ in counts)
    if len(rows) == asked and 100 * same >= membership.project.qualification_percent * all_:
        membership.qualified_at = timezone.now()
        Membership.objects.filter(pk=membership.pk).update(qualified_at=membership.qualified_at)


def counted(ranks: Sequence[int], gold_ranks: Sequence[int]) -> tuple[int, int]:
    """(preferences of the gold ranking that `ranks` shares, all of them). A tie in their place is not shared."""
    same, _ = same_preference(ranks, gold_ranks)
    return same, same_preference(gold_ranks, gold_ranks)[1]


def pass_rates(
    project: Project,
    since: datetime | None = None,
    *,
    until: datetime | None = None,
    user_id: int | None = None,
) -> dict[int, Estimate]:
    """By user id: the share of the gold preferences that each annotator (or one of them) shares, in that time."""
    counts: dict[int, list[tuple[int, int]]] = defaultdict(list)
    found = _of_gold(project, since, until)
    found = found if user_id is None else found.filter(annotator=user_id)
    for annotator_id, ranks, gold in found.iterator(chunk_size=2000):
        counts[annotator_id].append(counted(ranks, gold))
    return {each: share(found, OF_GOLD) for each, found in sorted(counts.items())}


def _of_gold(
    project: Project, since: datetime | None = None, until: datetime | None = None
) -> QuerySet[Ranking, tuple[int, list[int], list[int]]]:
    """Live rankings of gold: annotator id, ranks, gold ranks."""
    live = Ranking.objects.live_in(project, since=since, until=until).filter(comparison__gold_ranks__isnull=False)
    return live.values_list("annotator_id", "ranks", F("comparison__gold_ranks"))
