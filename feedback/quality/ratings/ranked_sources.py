"""Rankings with the sources of their completions, as the ratings read them."""

from collections.abc import Sequence
from typing import NamedTuple

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import F, FloatField, OuterRef
from django.db.models.functions import Cast, Length, Ln

from feedback.models import ComparisonItem, Lease, Project, Ranking

STYLE_NAMES = ("log_length",)  # logarithm of the number of characters plus one
LOG_LENGTH = Ln(Cast(Length("completion__text") + 1, FloatField()))


class RankedSources(NamedTuple):
    """One ranking. All sequences are aligned with the positions of the completions, except `display_order`."""

    prompt_id: int
    annotator_id: int
    ranks: Sequence[int]  # 1 is best, equal ranks are ties
    display_order: Sequence[int]  # positions in the order in which the annotator saw them
    sources: Sequence[int]  # ids
    style: Sequence[Sequence[float]] = ()  # one sequence per style covariate


def read(project: Project, *, with_style: bool = False) -> list[RankedSources]:
    """Return the rankings that rate the sources of a project. Runs one query.

    These are the annotators' live rankings, also those with a flag that means "not for training": the flag restricts
    the use of a ranking, it is still that person's judgement. Gold is left out, because its completions were chosen to
    have a known ranking. Extra rankings are left out, because they were requested where others disagreed: with them,
    comparisons without a clear winner would count more, and all ratings would move towards each other. Adjudications
    and pairs of demonstrations are left out as in all figures of people's judgement.
    """
    items = ComparisonItem.objects.filter(comparison=OuterRef("comparison")).order_by("position")
    columns = {
        "prompt": F("comparison__prompt_id"),
        "sources": ArraySubquery(items.values("completion__source_id")),
    }
    if with_style:
        columns["log_length"] = ArraySubquery(items.values(log_length=LOG_LENGTH))
    rankings = Ranking.objects.live_in(project).exclude(reason=Lease.Reason.DISAGREEMENT)
    rows = (
        rankings.filter(comparison__gold_ranks__isnull=True)
        .annotate(**columns)
        .values_list("prompt", "annotator_id", "ranks", "display_order", *list(columns)[1:])
        .iterator(chunk_size=5000)
    )
    return [RankedSources._make([*row[:5], row[5:]]) for row in rows]
