"""The filters of an export, checked against the project, as one condition on rankings.

All conditions but the least agreement and reliability are about what never changes from one revision of a ranking to
the next, so they can be used with a cursor.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import BigIntegerField, Exists, FloatField, Func, OuterRef, Q, Value
from django.db.models.functions import Cast
from django.db.models.lookups import GreaterThanOrEqual

from feedback.export.ranking_record import pseudonym
from feedback.models import ComparisonItem, Lease, Project, User
from feedback.models.reliability import PRIOR
from feedback.reports.data.filters import source_of, user_of

MAX_DIGITS = 19  # of an id


@dataclass(frozen=True)
class Filters:
    """Conditions on the rankings of an export."""

    annotator: str = ""  # username or pseudonym
    source: str = ""  # name: rankings of comparisons with a completion of this source
    round: int | None = None  # number: of comparisons with a completion that this round wrote
    tag: str = ""  # of the prompt: its metadata's "tags", or an element of them
    imported: bool | None = None  # True: imported rankings only; False: those that were made here
    min_agreement: float | None = None  # of the comparison's annotators, 0 to 1
    min_reliability: float | None = None  # of the annotator, 0 to 1

    def condition(self, project: Project, until: int, reliability: Mapping[int, float] | None) -> Q:
        """Return the condition on rankings. Raises Invalid if the project has no such annotator or source.

        until: end of the record, for the agreement. reliability: by user id; an annotator without an estimate has the
        prior's.
        """
        chosen = Q()
        if self.annotator:
            chosen &= Q(annotator=_annotator_of(project, self.annotator))
        if self.source:
            chosen &= _has_completion(completion__source=source_of(project, self.source))
        if self.round is not None:
            chosen &= _has_completion(completion__sampling__round=self.round)
        if self.tag:
            chosen &= Q(comparison__prompt__metadata__tags__contains=self.tag)
        if self.imported is not None:
            chosen &= Q(annotator__is_imported=self.imported)
        if self.min_reliability is not None:
            chosen &= _is_reliable(self.min_reliability, reliability or {}) | SETTLED
        if self.min_agreement is not None:
            agreement = Agreement("comparison_id", Cast(Value(until), BigIntegerField()))
            chosen &= Q(GreaterThanOrEqual(agreement, self.min_agreement)) | SETTLED
        return chosen


# A reviewer who has seen the others' rankings settled the comparison: neither filter is about that ranking.
SETTLED = Q(reason=Lease.Reason.ADJUDICATION)


class Agreement(Func):
    """Agreement of a comparison's annotators at a sequence: 1 − disagreement; null with fewer than two annotators.

    The definition of the disagreement is that of `feedback/sql/disagreement.sql`. Here it is of the record up to a
    sequence, so that later rankings do not change it.
    """

    output_field = FloatField()
    template = """(
        SELECT 1 - coalesce(sum(pair.a * pair.b)::float8
                            / nullif(sum((pair.a + pair.b) * (pair.a + pair.b - 1) / 2), 0), 0)
        FROM (SELECT %(expressions)s) AS compared (comparison_id, until), LATERAL (
            SELECT count(*) FILTER (WHERE r.ranks[i] < r.ranks[j]) AS a,
                   count(*) FILTER (WHERE r.ranks[i] > r.ranks[j]) AS b
            FROM feedback_ranking AS r, generate_series(1, r.size - 1) AS i, generate_series(i + 1, r.size) AS j
            WHERE r.comparison_id = compared.comparison_id AND r.sequence <= compared.until
                  AND r.reason <> 'adjudication' AND r.standing IN ('counts', 'overruled')
                  AND NOT EXISTS (
                      SELECT FROM feedback_ranking AS later
                      WHERE later.comparison_id = r.comparison_id AND later.annotator_id = r.annotator_id
                            AND later.revision > r.revision AND later.sequence <= compared.until)
            GROUP BY i, j
            HAVING count(*) >= 2
        ) AS pair
        HAVING count(*) > 0
    )"""


def _annotator_of(project: Project, name: str) -> User:
    """Return the person of a username or of a pseudonym. Raises Invalid."""
    number = name.removeprefix("annotator-")
    if number.isdecimal() and len(number) < MAX_DIGITS and name == pseudonym(int(number)):
        user = User.objects.filter(pk=int(number), rankings__project=project).first()
        if user is not None:
            return user
    return user_of(project, name)


def _has_completion(**condition: Any) -> Q:
    items = ComparisonItem.objects.filter(comparison=OuterRef("comparison"), **condition)
    return Q(Exists(items))


def _is_reliable(least: float, reliability: Mapping[int, float]) -> Q:
    if least <= PRIOR:
        return ~Q(annotator__in=[pk for pk, value in reliability.items() if value < least])
    return Q(annotator__in=[pk for pk, value in reliability.items() if value >= least])
