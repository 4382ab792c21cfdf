"""Details of a ranking besides its ranks: strength, flags, ratings, marked spans and comment.

Pages and the API both check them here, so that neither accepts details that the project does not ask for.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from django.utils.translation import gettext as _

from feedback import validation
from feedback.actions import spans
from feedback.errors import Invalid
from feedback.models import Comparison, Project, Ranking
from feedback.models.flags import flags_of

MAX_COMMENT_LENGTH = 10_000  # characters
RATING_POINTS = 5  # 1 is the worst, 5 the best


class RankingDetails(TypedDict, total=False):
    """Details as they are submitted; lists with one value per completion follow the order of display."""

    comment: str
    strength: int | None  # 1 … the project's `strength_points`, for comparisons of two
    flags: Sequence[str]
    ratings: Mapping[str, Sequence[int | None]]  # by attribute: 1 … 5 for each completion, None where not rated
    spans: Sequence[spans.Span | spans.VisibleSpan]


def details_by_position(
    comparison: Comparison, project: Project, order: Sequence[int], details: RankingDetails
) -> dict[str, Any]:
    """Check the details and return them as fields of a Ranking, by position. Raises Invalid.

    `order` is the order of display. The completions' texts are read only if a span is marked.
    """
    marked = details.get("spans", ())
    return {
        "comment": validation.text(details.get("comment", ""), _("The comment"), MAX_COMMENT_LENGTH),
        "strength": _strength(project, len(order), details.get("strength")),
        "flags": _flags(project, details.get("flags", ())),
        "ratings": _ratings(project, order, details.get("ratings", {})),
        "spans": spans.spans_by_position(marked, comparison.answers(order), order) if marked else [],
    }


def shown_ratings(ranking: Ranking) -> dict[str, list[int | None]]:
    """Return the ratings by attribute, in the order of display."""
    order = ranking.display_order
    return {name: [ratings[position] for position in order] for name, ratings in ranking.ratings.items()}


def is_whole(value: object) -> bool:
    # bool is a subclass of int: without the second test, true would pass as 1.
    return isinstance(value, int) and not isinstance(value, bool)


def _strength(project: Project, size: int, strength: object) -> int | None:
    if strength is None:
        return None
    if not project.strength_points:
        raise Invalid(_("This project does not ask for a strength: leave it out."))
    if size != 2:
        raise Invalid(_("Only a comparison of two completions can have a strength: leave it out."))
    if not (isinstance(strength, int) and is_whole(strength) and 1 <= strength <= project.strength_points):
        raise Invalid(_("A strength is a whole number from 1 to %(most)s.") % {"most": project.strength_points})
    return strength


def _flags(project: Project, flags: object) -> list[str]:
    if isinstance(flags, str) or not isinstance(flags, Sequence):
        raise Invalid(_("Flags must be a list of texts."))
    known = flags_of(project)
    for flag in flags:
        if flag not in known:
            raise Invalid(
                _('This project has no flag "%(flag)s": its flags are %(known)s.')
                % {"flag": str(flag)[:50], "known": ", ".join(known)}
            )
    return list(dict.fromkeys(flags))


def _ratings(project: Project, order: Sequence[int], ratings: object) -> dict[str, list[int | None]]:
    if not isinstance(ratings, Mapping):
        raise Invalid(_("Ratings must be an object: a list for each attribute."))
    by_attribute = {name: _rating(project, name, order, values) for name, values in ratings.items()}
    return {name: values for name, values in by_attribute.items() if any(values)}


def _rating(project: Project, name: str, order: Sequence[int], values: object) -> list[int | None]:
    """Return the ratings of one attribute by position, from `values` in the order of display."""
    if name not in project.attributes:
        raise Invalid(
            _('This project does not rate "%(name)s": its attributes are %(known)s.')
            % {"name": str(name)[:50], "known": ", ".join(project.attributes) or "–"}
        )
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != len(order):
        raise Invalid(
            _('Give "%(name)s" a list of %(size)s ratings, one for each completion, null where there is none.')
            % {"name": name, "size": len(order)}
        )
    if not all(rating is None or (is_whole(rating) and 1 <= rating <= RATING_POINTS) for rating in values):
        raise Invalid(_("A rating is a whole number from 1 (worst) to %(most)s.") % {"most": RATING_POINTS})
    by_position: list[int | None] = [None] * len(order)
    for position, rating in zip(order, values, strict=True):
        by_position[position] = rating
    return by_position
