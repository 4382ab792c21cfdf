"""Gold comparisons: their right ranking is known. They test annotators before real work, and now and then during it.

An annotator must not learn which comparisons are gold. How many come before a piece of real work is drawn once, from a
secret (`blinding.gold_before`). Gold that an annotator gives up (releases, skips, or holds until the lease expires)
behaves like the real work that it came before, its *stand-in*: it comes again while the stand-in has an open slot, and
is gone once others have taken the slots. Rankings of gold are in no export and no agreement.
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

PASS_RATE = gettext_lazy("{value:.0%} of {pairs:,} gold preferences ({low:.0%} to {high:.0%}).")

GOLD = """
    FROM feedback_comparison AS look
    WHERE look.project_id = %(project)s AND look.gold_ranks IS NOT NULL AND look.open_slots > 0 AND {condition}
"""
CLAIM = f"SELECT look.id {GOLD} ORDER BY look.shuffle_key LIMIT 1 FOR NO KEY UPDATE OF look SKIP LOCKED"
# Without gold that the annotator gave up: only `claim_before` gives that again, in place of its stand-in.
NEVER_LEASED = f"""{claim.MAY_RANK} AND NOT EXISTS (
    SELECT FROM feedback_lease WHERE comparison_id = look.id AND annotator_id + 0 = %(person)s OFFSET 0)"""
COUNT = f"SELECT count(*) FROM (SELECT {GOLD.format(condition=NEVER_LEASED)} LIMIT %(most)s) AS left_over"


def must_qualify(membership: Membership) -> bool:
    """Return whether this member gets gold only: an annotator who has not yet passed the project's qualification."""
    is_required = membership.project.qualification_items > 0 and membership.role == Membership.Role.ANNOTATOR
    return is_required and membership.qualified_at is None


def claim_before(membership: Membership, comparison_id: int) -> Comparison | None:
    """Return the gold comparison that this member gets before that real work, locked with a slot open.

    None means that the annotator gets the real work next. The caller has locked the membership.
    """
    if not membership.project.gold_percent:
        return None
    given_up = _given_up(membership, stand_in=comparison_id).values_list("comparison_id", flat=True).first()
    may_rank = given_up is not None and claim.may_rank_prompt_of(membership, given_up)
    if given_up is not None and may_rank and (comparison := _lock_open(given_up)):
        return comparison
    count = membership.gold_given if membership.gold_given_before == comparison_id else 0
    if count >= blinding.gold_before(membership.project, membership.user_id, comparison_id):
        return None
    comparison = _claim(membership, NEVER_LEASED)
    if comparison is not None:
        membership.gold_given_before, membership.gold_given = comparison_id, count + 1
        membership.save(update_fields=["gold_given_before", "gold_given"])
    return comparison


def claim_to_qualify(membership: Membership) -> Comparison:
    """Return a gold comparison to qualify with, locked with a slot open. Raises Conflict if none is left."""
    comparison = _claim(membership, claim.MAY_RANK)
    if comparison is None:
        raise Conflict(
            _(
                "You have ranked all qualification comparisons of this project and have not passed yet: "
                "ask its managers to add more."
            )
        )
    return comparison


def is_stand_in_taken(given_up: Lease | Skip) -> bool:
    """Return whether others have taken all slots of the stand-in of this gold. The annotator may not have it back then.

    False if it has no stand-in, as for real work.
    """
    return given_up.stand_in_id is not None and not Comparison.objects.filter(pk=given_up.stand_in_id, open_slots__gt=0)


def gold_to_come(membership: Membership, waiting: Sequence[int]) -> int:
    """Return how much gold will come among the real work that is `waiting` for this member (ids of comparisons).

    The page counts it together with that work. Otherwise a ranking after which the count stays the same would be
    recognisable as gold.
    """
    left, project = _left_to_qualify(membership), membership.project
    if not (left or project.gold_percent):
        return 0
    drawn = {pk: blinding.gold_before(project, membership.user_id, pk) for pk in waiting}
    if membership.gold_given_before in drawn:
        drawn[membership.gold_given_before] = max(0, drawn[membership.gold_given_before] - membership.gold_given)
    planned = left + sum(drawn.values())
    values = {**claim.parameters(membership), "most": planned}
    ((left_over,),) = statements.run(COUNT, values)
    # An outer join: a stand-in of a trial that has ended comes no more, so its gold does not either.
    comes_again = _given_up(membership, stand_in__open_slots__gt=0).filter(stand_in__trial__ended_at__isnull=True)
    return comes_again.count() + left_over


def _left_to_qualify(membership: Membership) -> int:
    if not must_qualify(membership):
        return 0
    of_member = {"annotator": membership.user_id, "project": membership.project_id}
    held = Lease.objects.filter(**of_member, reason=Lease.Reason.QUALIFICATION, lapsed_at__isnull=True).count()
    ranked = _rankings_of_gold(membership.project).filter(annotator_id=membership.user_id).count()
    return max(0, membership.project.qualification_items - ranked - held)


def _given_up(membership: Membership, **stand_in: int) -> QuerySet[Lease]:
    """Return the lapsed leases of gold that this member gave up, oldest first, by conditions on their stand-in.

    Gold whose ranking was withdrawn is left out: real work of that kind does not come again either.
    """
    leases = Lease.objects.filter(annotator=membership.user_id, project=membership.project_id)
    return leases.filter(lapsed_at__isnull=False, withdrawn__isnull=True, **stand_in).order_by("taken_at")


def _claim(membership: Membership, condition: str) -> Comparison | None:
    """Return the first gold comparison that meets the condition, locked. Its prompt is loaded."""
    values = claim.parameters(membership)
    (row,) = statements.run(CLAIM.format(condition=condition), values) or (None,)
    return None if row is None else _lock_open(row[0])


def _lock_open(comparison_id: int) -> Comparison | None:
    """Return the gold comparison, locked with a slot open. None if another transaction has locked it."""
    gold = Comparison.objects.filter(pk=comparison_id, gold_ranks__isnull=False, open_slots__gt=0)
    return gold.select_related("prompt").select_for_update(of=("self",), no_key=True, skip_locked=True).first()


def qualify_if_passed(membership: Membership) -> None:
    """Qualify the member if their last rankings of gold pass. Called after each; the membership is locked."""
    if not must_qualify(membership):
        return
    project = membership.project
    of_member = _rankings_of_gold(project).filter(annotator_id=membership.user_id)
    last = list(of_member.order_by("-created_at", "-id")[: project.qualification_items])
    counts = [shared_preferences(ranks, gold_ranks) for _, ranks, gold_ranks in last]
    shared, total = sum(shared for shared, _ in counts), sum(total for _, total in counts)
    if len(last) == project.qualification_items and 100 * shared >= project.qualification_percent * total:
        membership.qualified_at = timezone.now()
        Membership.objects.filter(pk=membership.pk).update(qualified_at=membership.qualified_at)


def shared_preferences(ranks: Sequence[int], gold_ranks: Sequence[int]) -> tuple[int, int]:
    """Return (preferences of the gold ranking that `ranks` shares, all of them). A tie in `ranks` shares none."""
    shared, _ = count_equal_preferences(ranks, gold_ranks)
    return shared, count_equal_preferences(gold_ranks, gold_ranks)[1]


def pass_rates(
    project: Project,
    *,
    until: datetime | None = None,
    user_id: int | None = None,
) -> dict[int, Estimate]:
    """Return the share of gold preferences that each annotator (or one) shares, by user id.

    `until` keeps the rankings made before it.
    """
    rows = _rankings_of_gold(project, until)
    if user_id is not None:
        rows = rows.filter(annotator=user_id)
    counts: dict[int, list[tuple[int, int]]] = defaultdict(list)
    # In a fixed order: another order rounds the sums otherwise, and equal figures would differ in their last digits.
    for annotator_id, ranks, gold_ranks in rows.order_by("comparison_id").iterator(chunk_size=2000):
        counts[annotator_id].append(shared_preferences(ranks, gold_ranks))
    return {annotator_id: share(pairs, PASS_RATE) for annotator_id, pairs in sorted(counts.items())}


def _rankings_of_gold(
    project: Project, until: datetime | None = None
) -> QuerySet[Ranking, tuple[int, list[int], list[int]]]:
    """Return live rankings of gold: annotator id, ranks, gold ranks."""
    live = Ranking.objects.live_in(project, until=until).filter(comparison__gold_ranks__isnull=False)
    return live.values_list("annotator_id", "ranks", F("comparison__gold_ranks"))
