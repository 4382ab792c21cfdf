"""Everything that is stored about a person, for that person.

Left out is what would show an annotator which comparisons are gold or whose a completion is: the reasons of the queue,
right rankings, sources, and counts of answers to gold. Comparisons have the numbers that the person's pages show.
"""

from collections.abc import Iterator
from typing import Any

from django.db.models import QuerySet

from feedback.models import Completion, Invitation, Membership, Pause, Project, Ranking, Review, Skip, User
from feedback.queue.blinding import comparison_number

Row = dict[str, Any]
LEFT_OUT = (
    "Left out is what would show which comparisons are tests, or whose a completion is. Ranks and ratings are in the "
    "order in which the page showed the completions."
)
ACCOUNT = ("username", "first_name", "last_name", "email", "language", "time_zone", "is_staff", "date_joined")
MEMBERSHIP = (
    *("role", "joined_at", "qualified_at", "groups", "daily_limit", "total_limit", "share_limit", "paused_at"),
)
TOKEN = ("name", "scopes", "created_at", "expires_at", "last_used_at")


def own_data(user: User) -> Row:
    """Return everything that is stored about the person, ready for JSON but for dates."""
    memberships = list(user.memberships.select_related("project").order_by("pk"))
    seen_as = {membership.project_id: membership for membership in memberships}
    return {
        "note": LEFT_OUT,
        "account": {**_fields(user, ACCOUNT), "last_login": user.last_login},
        "memberships": [{"project": one.project.slug, **_fields(one, MEMBERSHIP)} for one in memberships],
        "rankings": list(_rankings(user, seen_as)),
        "skips": list(_skips(user, seen_as)),
        "written": list(_written(user)),
        "reviews_written": list(_reviews(Review.objects.filter(reviewer=user))),
        "reviews_of_your_rankings": list(_reviews(Review.objects.filter(annotator=user))),
        "pauses": [
            {"project": pause.project.slug, "began_at": pause.began_at, "ended_at": pause.ended_at}
            for pause in Pause.objects.filter(user=user).select_related("project").order_by("pk")
        ],
        "invitations_made": list(
            Invitation.objects.filter(made_by=user).order_by("pk").values("project__slug", "role", "name", "created_at")
        ),
        "tokens": [_fields(token, TOKEN) for token in user.api_tokens.order_by("pk")],
    }


def _fields(row: Any, names: tuple[str, ...]) -> Row:
    return {name: getattr(row, name) for name in names}


def _number(seen_as: dict[int, Membership], project: Project, comparison_id: int) -> int:
    """Return the number of a comparison on the person's pages; of a former member, as an annotator's."""
    membership = seen_as.setdefault(project.pk, Membership(project=project))
    membership.project = project
    return comparison_number(membership, comparison_id)


def _rankings(user: User, seen_as: dict[int, Membership]) -> Iterator[Row]:
    rows = Ranking.objects.filter(annotator=user).select_related("project").order_by("pk")
    for ranking in rows.iterator(chunk_size=1000):
        order = ranking.display_order
        yield {
            "project": ranking.project.slug,
            "comparison": _number(seen_as, ranking.project, ranking.comparison_id),
            "ranks": [ranking.ranks[position] for position in order],
            "ratings": {name: [points[position] for position in order] for name, points in ranking.ratings.items()},
            "spans": [{**span, "completion": order.index(span["completion"])} for span in ranking.spans],
            **_fields(ranking, ("revision", "is_live", "standing", "strength", "flags", "comment", "seconds")),
            "created_at": ranking.created_at,
        }


def _skips(user: User, seen_as: dict[int, Membership]) -> Iterator[Row]:
    rows = Skip.objects.filter(annotator=user).select_related("comparison__project").order_by("pk")
    for skip in rows.iterator(chunk_size=1000):
        project = skip.comparison.project
        number = _number(seen_as, project, skip.comparison_id)
        yield {"project": project.slug, "comparison": number, "reason": skip.reason, "created_at": skip.created_at}


def _written(user: User) -> Iterator[Row]:
    rows = Completion.objects.filter(author=user).select_related("prompt__project", "demonstration").order_by("pk")
    for completion in rows.iterator(chunk_size=1000):
        demonstration = getattr(completion, "demonstration", None)
        yield {
            "project": completion.prompt.project.slug,
            "text": completion.text,
            "turns": completion.turns,
            "created_at": completion.created_at,
            "withdrawn_at": demonstration.withdrawn_at if demonstration else None,
        }


def _reviews(reviews: QuerySet[Review]) -> Iterator[Row]:
    for review in reviews.select_related("project").order_by("pk"):
        fields = _fields(review, ("kind", "reason", "ranking_count", "created_at", "undone_at"))
        yield {"project": review.project.slug, **fields}
