"""Gold: comparisons whose right ranking is known. They test people before they start, and now and then afterwards.

An annotator is never told which ones these are, and cannot find out. How much gold comes before a piece of real work is
drawn once, from a secret (`blinding.gold_before`). Gold that an annotator lets go, by giving it back, skipping it or
letting its time run out, goes the way of real work that stands in for it: it comes again while that one is there to be
had, and is gone once others have taken it. What is said of gold goes into no export and no agreement.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from django.db.models import F, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feedback import statements
from feedback.errors import Conflict
from feedback.models import Comparison, Lease, Membership, Project, Ranking, Skip
from feedback.quality.agreement import Estimate, count_equal_preferences, share
from feedback.queue import blinding, claim

OF_GOLD = gettext_lazy("{value:.0%} of {pairs:,} gold preferences ({low:.0%} to {high:.0%}).")


GOLD = """
    FROM feedback_comparison AS look
    WHERE look.project_id = %(project)s AND look.gold_ranks IS NOT NULL AND look.open_slots > 0 AND {condition}
"""
CLAIM = f"SELECT look.id {GOLD} ORDER BY look.shuffle_key LIMIT 1 FOR NO KEY UPDATE OF look SKIP LOCKED"
# Without what they let go: that comes again in place of what stands in for it, or not at all.
NEVER_GIVEN = f"""{claim.MAY_RANK} AND NOT EXISTS (
    SELECT FROM feedback_lease WHERE comparison_id = look.id AND annotator_id + 0 = %(person)s OFFSET 0)"""
COUNT = f"SELECT count(*) FROM (SELECT {GOLD.format(condition=NEVER_GIVEN)} LIMIT %(most)s) AS left_over"


def must_qualify(membership: Membership) -> bool:
    """Whether only gold may be given to this person: an annotator who has not passed what the project asks."""
    asked = membership.project.qualification_items > 0 and membership.role == Membership.Role.ANNOTATOR
    return asked and membership.qualified_at is None


def claim_before(membership: Membership, comparison_id: int) -> Comparison | None:
    """Return the gold comparison that this person gets before that piece of real work, locked with a slot open.

    None: it is the real work's turn. The membership is locked by the caller.
    """
    if not membership.project.gold_percent:
        return None
    let_go = _let_go(membership, stand_in=comparison_id).values_list("comparison_id", flat=True).first()
    if let_go is not None and (found := _locked(let_go)):
        return found
    given = membership.gold_given if membership.gold_given_before == comparison_id else 0
    if given >= blinding.gold_before(membership.project, membership.user_id, comparison_id):
        return None
    found = _claim(membership, NEVER_GIVEN)
    if found is not None:
        membership.gold_given_before, membership.gold_given = comparison_id, given + 1
        membership.save(update_fields=["gold_given_before", "gold_given"])
    return found


def claim_to_qualify(membership: Membership) -> Comparison:
    """Gold to qualify with, locked with a slot open; a Conflict says so when there is none left."""
    found = _claim(membership, claim.MAY_RANK)
    if found is None:
        raise Conflict(
            _(
                "You have ranked all the comparisons that this project tests new annotators with, and not yet passed: "
                "its managers can add more of them."
            )
        )
    return found


def is_gone(let_go: Lease | Skip) -> bool:
    """Whether the annotator may not have back what they let go: others have taken what stands in for this gold."""
    return let_go.stand_in_id is not None and not Comparison.objects.filter(pk=let_go.stand_in_id, open_slots__gt=0)


def gold_to_come(membership: Membership, waiting: Sequence[int]) -> int:
    """Return how much gold will come among the real work that is `waiting` for this person, given by ids.

    It is counted with that work, so that what is left to do falls by one with each ranking, of gold or not.
    """
    left, project = _left_to_qualify(membership), membership.project
    if not (left or project.gold_percent):
        return 0
    drawn = {pk: blinding.gold_before(project, membership.user_id, pk) for pk in waiting}
    if membership.gold_given_before in drawn:
        drawn[membership.gold_given_before] = max(0, drawn[membership.gold_given_before] - membership.gold_given)
    planned = left + sum(drawn.values())
    given = {"person": membership.user_id, "project": membership.project_id, "most": planned}
    ((left_over,),) = statements.run(COUNT, given)
    return _let_go(membership, stand_in__open_slots__gt=0).count() + left_over


def _left_to_qualify(membership: Membership) -> int:
    if not must_qualify(membership):
        return 0
    mine = {"annotator": membership.user_id, "project": membership.project_id}
    held = Lease.objects.filter(**mine, reason=Lease.Reason.QUALIFICATION, lapsed_at__isnull=True).count()
    ranked = _of_gold(membership.project).filter(annotator_id=membership.user_id).count()
    return max(0, membership.project.qualification_items - ranked - held)


def _let_go(membership: Membership, **of_stand_in: int) -> QuerySet[Lease]:
    """Leases of gold that this person let go, the first one first, by conditions on what stands in for it.

    Without gold that they withdrew a ranking of: real work of that kind does not come again either.
    """
    mine = {"annotator": membership.user_id, "project": membership.project_id, "lapsed_at__isnull": False}
    mine["withdrawn__isnull"] = True
    return Lease.objects.filter(**mine, **of_stand_in).order_by("taken_at")


def _claim(membership: Membership, condition: str) -> Comparison | None:
    """The first gold comparison of which this holds, locked; its prompt is loaded."""
    given = {"person": membership.user_id, "project": membership.project_id}
    (row,) = statements.run(CLAIM.format(condition=condition), given) or (None,)
    return None if row is None else _locked(row[0])


def _locked(comparison_id: int) -> Comparison | None:
    """The comparison, locked with a slot open; None where others are at work on it."""
    gold = Comparison.objects.filter(pk=comparison_id, gold_ranks__isnull=False, open_slots__gt=0)
    return gold.select_related("prompt").select_for_update(of=("self",), no_key=True, skip_locked=True).first()


def note(membership: Membership) -> None:
    """After a ranking of gold: qualify the person if their last ones pass. The membership is locked by the caller."""
    if not must_qualify(membership):
        return
    asked = membership.project.qualification_items
    last = _of_gold(membership.project).filter(annotator_id=membership.user_id).order_by("-created_at", "-id")[:asked]
    rows = list(last)
    counts = [shared_preferences(ranks, gold) for _, ranks, gold in rows]
    same, all_ = sum(same for same, _ in counts), sum(all_ for _, all_ in counts)
    if len(rows) == asked and 100 * same >= membership.project.qualification_percent * all_:
        membership.qualified_at = timezone.now()
        Membership.objects.filter(pk=membership.pk).update(qualified_at=membership.qualified_at)


def shared_preferences(ranks: Sequence[int], gold_ranks: Sequence[int]) -> tuple[int, int]:
    """(preferences of the gold ranking that `ranks` shares, all of them). A tie in their place is not shared."""
    same, _ = count_equal_preferences(ranks, gold_ranks)
    return same, count_equal_preferences(gold_ranks, gold_ranks)[1]


def pass_rates(
    project: Project,
    *,
    until: datetime | None = None,
    user_id: int | None = None,
) -> dict[int, Estimate]:
    """By user id: the share of the gold preferences that each annotator (or one of them) shares, before then."""
    counts: dict[int, list[tuple[int, int]]] = defaultdict(list)
    found = _of_gold(project, until)
    found = found if user_id is None else found.filter(annotator=user_id)
    for annotator_id, ranks, gold in found.iterator(chunk_size=2000):
        counts[annotator_id].append(shared_preferences(ranks, gold))
    return {each: share(found, OF_GOLD) for each, found in sorted(counts.items())}


def _of_gold(project: Project, until: datetime | None = None) -> QuerySet[Ranking, tuple[int, list[int], list[int]]]:
    """Live rankings of gold: annotator id, ranks, gold ranks."""
    live = Ranking.objects.live_in(project, until=until).filter(comparison__gold_ranks__isnull=False)
    return live.values_list("annotator_id", "ranks", F("comparison__gold_ranks"))
