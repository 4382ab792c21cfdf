"""Shared code of reviewers' decisions: locks, checks, and the revisions that a decision writes."""

from collections.abc import Sequence
from typing import Any

from django.db import connection
from django.db.models import Exists, OuterRef, QuerySet
from django.utils.translation import gettext as _

from feedback import audit, validation
from feedback.errors import Conflict, Forbidden, Invalid, NotFound
from feedback.models import Comparison, Lease, Membership, Ranking, Review
from feedback.queue import locks

MAX_REASON_LENGTH = 1000  # characters

# Members of TextChoices are str, which mypy cannot see where they have a label.
Standing: Any = Ranking.Standing
Kind: Any = Review.Kind
ADJUDICATION: Any = Lease.Reason.ADJUDICATION


def revise_all(
    ranking_ids: Sequence[int] | QuerySet[Ranking, int],
    standing: str,
    review: Review,
    *,
    is_live: bool = False,
    revision: int | None = None,
) -> None:
    """Write the next revision of each ranking: a copy with another standing. The caller has locked the comparisons.

    `revision` is the number of the new revision, where it is not the ranking's plus 1.
    """
    ids = list(ranking_ids)
    # First: a unique constraint allows one live revision.
    Ranking.objects.filter(pk__in=ids, is_live=True).update(is_live=False)
    changed = {
        "revision": "coalesce(%(revision)s, revision + 1)",
        "standing": "%(standing)s",
        "review_id": "%(review)s",
        "is_live": "%(is_live)s",
        "sequence": "NULL",
        "idempotency_key": "gen_random_uuid()",
    }
    columns = [field.column for field in Ranking._meta.concrete_fields if not field.primary_key]
    expressions = ", ".join(changed.get(column, column) for column in columns)
    # One statement, since a decision may change thousands of rankings. `created_at` is copied: it is the time at which
    # the annotator ranked.
    statement = (
        f"INSERT INTO feedback_ranking ({', '.join(columns)}) "
        f"SELECT {expressions} FROM feedback_ranking WHERE id = ANY(%(ids)s) ORDER BY id"
    )
    values = {"revision": revision, "standing": standing, "review": review.pk, "is_live": is_live, "ids": ids}
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def live_of(comparison: Comparison) -> QuerySet[Ranking]:
    return Ranking.objects.filter(comparison=comparison, is_live=True)


def last_of(review: Review, standing: str) -> QuerySet[Ranking]:
    """Return the revisions that the review wrote with this standing and that are still the last of their ranking."""
    later = Ranking.objects.filter(
        comparison=OuterRef("comparison"), annotator=OuterRef("annotator"), revision__gt=OuterRef("revision")
    )
    return Ranking.objects.filter(~Exists(later), review=review, standing=standing)


def lock_live(membership: Membership, ranking_id: int) -> Ranking:
    """Return a live ranking of the project that a reviewer may decide about, its comparison locked."""
    rows = Ranking.objects.filter(pk=ranking_id, project=membership.project_id)
    comparison_id = rows.values_list("comparison_id", flat=True).first()
    if comparison_id is None:
        raise NotFound(_("There is no such ranking in this project."))
    locks.lock_comparison(comparison_id)
    ranking = rows.select_related("comparison").get()
    if not ranking.is_live:
        raise Conflict(_("This ranking was revised, returned or discarded meanwhile: look at it again."))
    if ranking.reason == Lease.Reason.DEMONSTRATION:
        raise Conflict(_("This ranking belongs to a demonstration: discard the demonstration instead."))
    if ranking.reason == ADJUDICATION:
        raise Conflict(_("This ranking settles its comparison: undo the adjudication instead."))
    return ranking


def lock_comparisons(ids: Sequence[int | None]) -> None:
    list(Comparison.objects.filter(pk__in=ids).order_by("pk").select_for_update(no_key=True).values_list("pk"))


def lock_reviewer(membership: Membership) -> None:
    locks.lock_member(membership)
    check_reviewer(membership)


def check_reviewer(membership: Membership) -> None:
    if not membership.may_review:
        raise Forbidden(_("Only the project's reviewers and managers may do this."))


def write_review(membership: Membership, kind: str, reason: str, **fields: Any) -> Review:
    review = Review.objects.create(
        project_id=membership.project_id, kind=kind, reviewer_id=membership.user_id, reason=reason, **fields
    )
    after = {name: value for name, value in fields.items() if isinstance(value, int | str)}
    audit.record(f"review.{kind}", membership.project, review, after={**after, "reason": reason}, actor=membership.user)
    return review


def write_review_of(membership: Membership, kind: str, reason: str, ranking: Ranking) -> Review:
    fields = {"comparison_id": ranking.comparison_id, "annotator_id": ranking.annotator_id, "ranking_count": 1}
    return write_review(membership, kind, reason, **fields)


def checked_reason(reason: str) -> str:
    reason = validation.text(reason, "The reason", MAX_REASON_LENGTH).strip()
    if not reason:
        raise Invalid(_("Give a reason: the annotator and other reviewers will read it."))
    return reason
