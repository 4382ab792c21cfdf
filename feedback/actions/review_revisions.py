"""The record of reviewers' decisions: what their functions share. A ranking's comparison is locked by the caller."""

from collections.abc import Sequence
from typing import Any

from django.db import connection
from django.db.models import Exists, OuterRef, QuerySet
from django.utils.translation import gettext as _

from feedback import validation
from feedback.errors import Conflict, Forbidden, Invalid, NotFound
from feedback.models import Comparison, Lease, Membership, Ranking, Review
from feedback.queue import leases

MAX_REASON_LENGTH = 1000  # characters

# Members of TextChoices are texts, which a type checker cannot see where they have a label.
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
    """A further revision of each: the same statement with another standing. Their comparisons are locked."""
    ids = list(ranking_ids)
    Ranking.objects.filter(pk__in=ids, is_live=True).update(is_live=False)
    given = {
        "revision": "coalesce(%(revision)s, revision + 1)",
        "standing": "%(standing)s",
        "review_id": "%(review)s",
        "is_live": "%(is_live)s",
        "sequence": "NULL",
        "idempotency_key": "gen_random_uuid()",
    }
    columns = [field.column for field in Ranking._meta.concrete_fields if not field.primary_key]
    values = ", ".join(given.get(column, column) for column in columns)
    statement = (
        f"INSERT INTO feedback_ranking ({', '.join(columns)}) "
        f"SELECT {values} FROM feedback_ranking WHERE id = ANY(%(ids)s) ORDER BY id"
    )
    told = {"revision": revision, "standing": standing, "review": review.pk, "is_live": is_live, "ids": ids}
    with connection.cursor() as cursor:
        cursor.execute(statement, told)


def live_of(comparison: Comparison) -> QuerySet[Ranking]:
    return Ranking.objects.filter(comparison=comparison, is_live=True)


def last_of(review: Review, standing: str) -> QuerySet[Ranking]:
    """What the review gave this standing to, and nobody has changed since."""
    later = Ranking.objects.filter(
        comparison=OuterRef("comparison"), annotator=OuterRef("annotator"), revision__gt=OuterRef("revision")
    )
    return Ranking.objects.filter(~Exists(later), review=review, standing=standing)


def lock_live(membership: Membership, ranking_id: int) -> Ranking:
    """Somebody's last word on a comparison, which is locked."""
    found = Ranking.objects.filter(pk=ranking_id, project=membership.project_id)
    comparison_id = found.values_list("comparison_id", flat=True).first()
    if comparison_id is None:
        raise NotFound(_("There is no such ranking in this project."))
    leases.lock_comparison(comparison_id)
    ranking = found.select_related("comparison").get()
    if not ranking.is_live:
        raise Conflict(_("This ranking was revised, returned or discarded meanwhile: look at it again."))
    if ranking.reason == ADJUDICATION:
        raise Conflict(_("This ranking settles its comparison: undo the adjudication instead."))
    return ranking


def lock_comparisons(ids: Sequence[int | None]) -> None:
    list(Comparison.objects.filter(pk__in=ids).order_by("pk").select_for_update(no_key=True).values_list("pk"))


def lock_reviewer(membership: Membership) -> None:
    leases.lock_member(membership)
    check_reviewer(membership)


def check_reviewer(membership: Membership) -> None:
    if not membership.may_review:
        raise Forbidden(_("Only the project's reviewers and managers may do this."))


def decide(membership: Membership, kind: str, reason: str, **about: Any) -> Review:
    return Review.objects.create(
        project_id=membership.project_id, kind=kind, reviewer_id=membership.user_id, reason=reason, **about
    )


def decide_about(membership: Membership, kind: str, reason: str, ranking: Ranking) -> Review:
    about = {"comparison_id": ranking.comparison_id, "annotator_id": ranking.annotator_id, "ranking_count": 1}
    return decide(membership, kind, reason, **about)


def checked_reason(reason: str) -> str:
    reason = validation.text(reason, "The reason", MAX_REASON_LENGTH).strip()
    if not reason:
        raise Invalid(_("Say why: the annotator and other reviewers will read it."))
    return reason
