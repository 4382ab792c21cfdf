"""Ratings of a project's sources by name, for the API."""

from dataclasses import dataclass

from django.utils.translation import gettext as _

from feedback.errors import TooLarge
from feedback.models import Project, Source
from feedback.quality import ratings
from feedback.quality.ratings import Ratings
from feedback.reports.quality_snapshot import record_length

MAX_RECORD = 100_000  # rows of the record; 2,000 rankings of four take 0.1 s, most of it in PostgreSQL


@dataclass(frozen=True)
class SourceRatings:
    """Ratings with the sources that they mention."""

    ratings: Ratings
    sources: dict[int, Source]  # by id


def get_ratings(project: Project, *, with_style: bool = False) -> SourceRatings:
    """Return the ratings of a project's sources, computed now. Raises TooLarge for a record over MAX_RECORD rows."""
    length = record_length(project)
    if length > MAX_RECORD:
        raise TooLarge(
            _(
                "This project has %(length)s rankings, corrections included. Ratings are computed at a request for at "
                "most %(limit)s: export the rankings and compute the ratings from the file."
            )
            % {"length": length, "limit": MAX_RECORD}
        )
    result = ratings.rate(project, with_style=with_style)
    return SourceRatings(result, project.sources.in_bulk(result.sources))
