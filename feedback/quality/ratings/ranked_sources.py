"""Rankings with the sources of their completions, as the ratings read them."""

from collections.abc import Sequence
from typing import NamedTuple

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import F, FloatField, Func, IntegerField, OuterRef, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Cast, Length, Ln

from feedback.models import ComparisonItem, Lease, Project, Ranking


def _log_count(pattern: str) -> Ln:
    """Return the logarithm of the number of matches plus 1; ^ matches at the beginning of a line."""
    parts = Func(F("completion__text"), Value(pattern), Value("n"), function="regexp_split_to_array")
    return _log(Func(parts, function="cardinality", output_field=IntegerField()) - 1)


def _log(count: Combinable) -> Ln:
    return Ln(Cast(count + 1, FloatField()))


# The style of a completion: natural logarithms of counts plus 1, of characters and of Markdown's headings, list items
# and bold passages. These are the covariates of Chatbot Arena's style control (Li, Angelopoulos and Chiang 2024, "Does
# style matter?"), with characters in place of tokens.
STYLE = {
    "log_length": _log(Length("completion__text")),
    "log_headings": _log_count("^ {0,3}#{1,6}[ \\t]"),
    "log_list_items": _log_count("^[ \\t]*([-*+]|[0-9]{1,9}[.)])[ \\t]"),
    "log_bold": _log_count("\\*\\*[^*\\n]+\\*\\*|__[^_\\n]+__"),
}
STYLE_NAMES = tuple(STYLE)
# Pairs that must differ. The first few with formatting often have the same winner: no finite effect would fit them, and
# no source could be rated with control for style.
MIN_DIFFERENT = dict.fromkeys(STYLE_NAMES[1:], 30)


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
        columns |= {name: ArraySubquery(items.values(style=expression)) for name, expression in STYLE.items()}
    rankings = Ranking.objects.live_in(project).exclude(reason=Lease.Reason.DISAGREEMENT)
    rows = (
        rankings.filter(comparison__gold_ranks__isnull=True)
        .annotate(**columns)
        .values_list("prompt", "annotator_id", "ranks", "display_order", *list(columns)[1:])
        .iterator(chunk_size=5000)
    )
    return [RankedSources._make([*row[:5], row[5:]]) for row in rows]
