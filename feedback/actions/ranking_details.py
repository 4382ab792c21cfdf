"""What is said of a comparison beside its ranks: strength, flags, ratings, marked spans, a comment.

Pages and the API come through here, so that neither lets in what the project does not ask for.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from django.db.models import Q
from django.utils.translation import gettext as _

from feedback import validation
from feedback.actions import spans
from feedback.errors import Invalid
from feedback.models import Comparison, Project, Ranking

LONGEST_COMMENT = 10_000  # characters
RATING_POINTS = 5  # 1 is the worst, 5 the best
ALL_BAD, ALL_GOOD = "all bad", "all good"  # flags that every project has
# Rankings without a flag of the project's own: such flags are for what should not be trained on.
WITHOUT_OWN_FLAGS = Q(flags__contained_by=[ALL_BAD, ALL_GOOD])


class Remarks(TypedDict, total=False):
    """Everything that runs by completion runs in the order of display."""

    comment: str
    strength: int | None  # 1 … the project's `strength_points`, for comparisons of two
    flags: Sequence[str]
    ratings: Mapping[str, Sequence[int | None]]  # by attribute: 1 … 5 for each completion, None where not rated
    spans: Sequence[spans.Span | spans.SeenSpan]


def flags_of(project: Project) -> list[str]:
    """Every flag that an annotator may set there."""
    return [ALL_BAD, ALL_GOOD, *project.flags]


def has_own_flag(flags: Sequence[str]) -> bool:
    """Whether a flag of the project's own is among these."""
    return not {ALL_BAD, ALL_GOOD}.issuperset(flags)


def fields_of(comparison: Comparison, project: Project, order: Sequence[int], remarks: Remarks) -> dict[str, Any]:
    """The fields of a Ranking, by position; or Invalid with a sentence.

    `order` is the order of display. The completions' texts are read only when a span is marked.
    """
    marked = remarks.get("spans", ())
    return {
        "comment": validation.text(remarks.get("comment", ""), _("The comment"), LONGEST_COMMENT),
        "strength": _strength(project, len(order), remarks.get("strength")),
        "flags": _flags(project, remarks.get("flags", ())),
        "ratings": _ratings(project, order, remarks.get("ratings", {})),
        "spans": spans.stored(marked, comparison.texts(order), order) if marked else [],
    }


def shown_ratings(ranking: Ranking) -> dict[str, list[int | None]]:
    """By attribute, in the order of display."""
    order = ranking.display_order
    return {name: [given[position] for position in order] for name, given in ranking.ratings.items()}


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _strength(project: Project, size: int, strength: object) -> int | None:
    if strength is None:
        return None
    if not project.strength_points:
        raise Invalid(_("This project does not ask for a strength: leave it out."))
    if size != 2:
        raise Invalid(_("A strength is said of a comparison of two alone: leave it out."))
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
                _("This project has no flag «%(flag)s»: its flags are %(known)s.")
                % {"flag": str(flag)[:50], "known": ", ".join(known)}
            )
    return list(dict.fromkeys(flags))


def _ratings(project: Project, order: Sequence[int], ratings: object) -> dict[str, list[int | None]]:
    if not isinstance(ratings, Mapping):
        raise Invalid(_("Ratings must be an object: a list for each attribute."))
    rated = {name: _rating(project, name, order, given) for name, given in ratings.items()}
    return {name: given for name, given in rated.items() if any(given)}


def _rating(project: Project, name: str, order: Sequence[int], given: object) -> list[int | None]:
    if name not in project.attributes:
        raise Invalid(
            _("This project does not rate «%(name)s»: its attributes are %(known)s.")
            % {"name": str(name)[:50], "known": ", ".join(project.attributes) or "–"}
        )
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != len(order):
        raise Invalid(
            _("Give «%(name)s» a list of %(size)s ratings, one for each completion, null where there is none.")
            % {"name": name, "size": len(order)}
        )
    if not all(each is None or (is_whole(each) and 1 <= each <= RATING_POINTS) for each in given):
        raise Invalid(_("A rating is a whole number from 1 (worst) to %(most)s.") % {"most": RATING_POINTS})
    by_position: list[int | None] = [None] * len(order)
    for position, rating in zip(order, given, strict=True):
        by_position[position] = rating
    return by_position
