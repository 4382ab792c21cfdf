"""The record of rankings: numbers rankings in the order of their commits and reads them back, page by page.

Every committed ranking gets a position in its project's record, `sequence`, when it is first read. A ranking that is
committed later gets a higher number, even if its transaction began earlier. A reader that has read up to a sequence
therefore misses no ranking. Rows are read in pages by sequence: a slow client keeps no transaction open, and memory
use does not grow with the record.

`comparison_id` and `annotator` identify a ranking. A reader that follows a project by cursor does this for each row:
remove all earlier rows of the same two values with a lower `revision`, then keep the row, unless it has `retracted`.
A retracted row has no content, and comes only to readers who may have an earlier one. The values of `retracted`:

    discarded   by a reviewer
    returned    by a reviewer to the annotator, who may answer with a further revision
    overruled   by a reviewer's own ranking of the comparison, which replaces all others of it
    withdrawn   by the annotator, who may rank the comparison again
    erased      with the account of the annotator, who left; no range of the record contains the row again
    flagged     the new revision has a flag that means "not for training"
    tied        (format `trl` only) the new revision has ties only, which pairs cannot express
"""

from collections.abc import Iterator, Mapping
from typing import Any

from django.db import connection, transaction
from django.db.models import Count, Exists, F, Max, OuterRef, Q, QuerySet
from django.db.models.fields.tuple_lookups import TupleGreaterThan

from feedback.dialogues import Turns
from feedback.models import ComparisonItem, Lease, Project, Ranking
from feedback.models.flags import is_trainable, trainable
from feedback.models.reliability import PRIOR, weight_of

Row = dict[str, Any]

PAGE_SIZE = 1000  # rankings
NOT_GOLD = Q(comparison__gold_ranks__isnull=True)
EVERYTHING = Q()

NUMBER_NEW_RANKINGS = """
    UPDATE feedback_ranking SET sequence = numbered.sequence
    FROM (
        SELECT id, %(last)s + row_number() OVER (ORDER BY id) AS sequence
        FROM feedback_ranking WHERE project_id = %(project)s AND sequence IS NULL
    ) AS numbered
    WHERE feedback_ranking.id = numbered.id
"""

# What identifies a ranking; a retracted row has these fields only.
IDENTITY = ("ranking_id", "sequence", "revision", "comparison_id", "prompt_id", "split", "annotator")
RANKING_FIELDS = (
    *("sequence", "revision", "standing", "comparison_id", "ranks", "display_order"),
    *("strength", "flags", "ratings", "spans", "seconds", "reason"),
)
JOINED_FIELDS = {
    "ranking_id": F("pk"),
    "prompt_id": F("comparison__prompt_id"),
    "split": F("comparison__prompt__split"),
    "messages": F("comparison__prompt__messages"),
    "annotator_pk": F("annotator_id"),
    "trial": F("comparison__trial__number"),
}
DETAIL_FIELDS = ("comment", "created_at")
PROMPT_DETAIL_FIELDS = {
    "external_id": F("comparison__prompt__external_id"),
    "references": F("comparison__prompt__references"),
    "metadata": F("comparison__prompt__metadata"),
}


@transaction.atomic
def sequence_cutoff(project: Project) -> int:
    """Number the committed rankings that have no sequence yet; return the last sequence, or 0 without rankings.

    The lock on the project's row makes readers take turns: two of them would give one number twice.
    """
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    last = Ranking.objects.filter(project=project).aggregate(last=Max("sequence"))["last"] or 0
    with connection.cursor() as cursor:
        cursor.execute(NUMBER_NEW_RANKINGS, {"project": project.pk, "last": last})
        return last + cursor.rowcount


def rankings(
    project: Project,
    after: int = 0,
    until: int | None = None,
    *,
    split: str | None = None,
    where: Q = EVERYTHING,
    still_counting: bool = False,
    reliability: Mapping[int, float] | None = None,
    details: bool = False,
    include_flagged: bool = False,
    by_comparison: bool = False,
) -> Iterator[Row]:
    """Yield the rankings with `after` < sequence ≤ `until`, as they were at `until`, in order of sequence.

    Only the last revision up to `until` of a ranking is yielded. With `after`, a row with `revision` > 1 replaces an
    earlier row of the same `comparison_id` and `annotator`; it may be retracted, and then has `ranking_id, sequence,
    revision, comparison_id, prompt_id, split, annotator, retracted` only.

    until: `sequence_cutoff` by default. split: this split only. where: a further condition; for readers by cursor, one
    that holds for all revisions of a ranking or for none. still_counting: leave out what reviewers have taken out since
    `until`, so that no round learns from it. reliability: user id to reliability, from `feedback.quality.reliability`;
    sets the weights, which are 1 without it. include_flagged: yield rankings with a flag that means "not for training",
    too. by_comparison: in order of comparison, then of sequence.

    Each row is ready for JSON: `ranking_id, sequence, revision, comparison_id, prompt_id, split, messages, completions,
    completion_ids, sources, ranks (1 is best, equal ranks tie; aligned with completions), display_order, annotator (a
    pseudonym), weight, reliability (of the annotator, or null), strength, flags, ratings, spans, seconds, reason` (why
    the queue asked for the ranking). `ratings` are lists by attribute, aligned with completions. `spans` mark the
    characters `start` … `end` − 1 of `completions[completion]` as good or bad. `trial` is the number of the trial that
    the comparison belongs to, or null. Where a completion is a dialogue, the row has `turns`: aligned with completions,
    its messages, or null for a completion that is one text.

    details: add the fields that no learner reads: `external_id` (or null), `references` and `metadata` of the prompt,
    `sampling` (parameters, aligned with completions), `comment` and `created_at` (ISO 8601) of the ranking.
    """
    until = sequence_cutoff(project) if until is None else until
    selected = counting(project, until) if still_counting else _visible(project, after, until)
    selected = selected.filter(where)
    if split is not None:
        selected = selected.filter(comparison__prompt__split=split)
    fields: tuple[str, ...] = RANKING_FIELDS
    joined = JOINED_FIELDS
    if details:
        fields, joined = fields + DETAIL_FIELDS, joined | PROMPT_DETAIL_FIELDS
    for page in _pages(selected.values(*fields, **joined), after, by_comparison=by_comparison):
        items = _items([row["comparison_id"] for row in page if row["standing"] == Ranking.Standing.COUNTS])
        for row in page:
            is_flagged = row["standing"] == Ranking.Standing.COUNTS and not is_trainable(project, row["flags"])
            line = _row(row, items.get(row["comparison_id"]), reliability)
            if include_flagged or not is_flagged:
                yield line
            elif after and line["revision"] > 1:  # the reader may have an earlier revision without the flag
                yield retraction(line, "flagged")


def _pages(selected: QuerySet[Ranking, Row], after: int, *, by_comparison: bool) -> Iterator[list[Row]]:
    """Yield the rows in pages, from a sequence on; each page is a query of its own."""
    key = (0, after)
    while True:
        if by_comparison:
            beyond: Any = TupleGreaterThan((F("comparison_id"), F("sequence")), key)
            page = list(selected.filter(beyond, sequence__gt=after).order_by("comparison_id", "sequence")[:PAGE_SIZE])
        else:
            page = list(selected.filter(sequence__gt=key[1])[:PAGE_SIZE])
        if not page:
            return
        yield page
        key = (page[-1]["comparison_id"], page[-1]["sequence"])


def selection(
    project: Project, until: int, *, split: str | None = None, where: Q = EVERYTHING, include_flagged: bool = False
) -> QuerySet[Ranking]:
    """Return the rankings that `rankings` yields to a reader from the beginning, in order of sequence."""
    selected = _visible(project, 0, until).filter(where)
    if split is not None:
        selected = selected.filter(comparison__prompt__split=split)
    return selected if include_flagged else selected.filter(trainable(project))


def retraction(ranking: Row, why: str) -> Row:
    """Return the row that retracts an earlier row of this ranking."""
    return {**{name: ranking[name] for name in IDENTITY}, "retracted": why}


def pseudonym(user_id: int) -> str:
    """Return the name of an annotator in files that leave the project: the same in every file, without a username."""
    return f"annotator-{user_id}"


def last_revisions(project: Project, until: int) -> QuerySet[Ranking]:
    """Return the last revision, as of `until`, of every ranking, including gold and rankings that do not count."""
    later = _same_ranking().filter(revision__gt=OuterRef("revision"), sequence__lte=until)
    return Ranking.objects.filter(~Exists(later), project=project, sequence__lte=until).order_by("sequence")


def counting(project: Project, until: int) -> QuerySet[Ranking]:
    """Return the rankings that counted at `until` and still count now, without gold."""
    counts_now = _same_ranking().filter(is_live=True, standing=Ranking.Standing.COUNTS)
    last = _without_gold(last_revisions(project, until))
    return last.filter(Exists(counts_now), standing=Ranking.Standing.COUNTS)


def counting_now(project: Project) -> QuerySet[Ranking]:
    """Return the rankings that `counting` would return for a record that ends now, also those without a sequence."""
    return _without_gold(Ranking.objects.counting_in(project))


def not_counting_now(project: Project) -> QuerySet[Ranking]:
    """Return the last revision of every ranking that `counting_now` leaves out: of gold, or of another standing."""
    later = _same_ranking().filter(revision__gt=OuterRef("revision"))
    is_out = ~Q(standing=Ranking.Standing.COUNTS) | (~NOT_GOLD & Q(is_live=True))
    return Ranking.objects.filter(~Exists(later), is_out, project=project)


def count_by_ranks(project: Project) -> QuerySet[Ranking, tuple[str, list[int], int]]:
    """Return (split, ranks, number of rankings) of all that counts now, without gold and flags not for training."""
    now = counting_now(project).filter(trainable(project)).order_by()
    return now.values_list("comparison__prompt__split", "ranks").annotate(count=Count("pk"))


def _visible(project: Project, after: int, until: int) -> QuerySet[Ranking]:
    """Return the rows for a reader at `after`: rankings that count, and retractions of those that it may have."""
    last = _without_gold(last_revisions(project, until))
    counts = Q(standing=Ranking.Standing.COUNTS)
    if not after:
        return last.filter(counts)
    return last.filter(counts | Exists(_same_ranking().filter(sequence__lte=after)))


def _without_gold(rankings: QuerySet[Ranking]) -> QuerySet[Ranking]:
    """Leave out gold comparisons: they test annotators, and no model learns from them."""
    return rankings.filter(NOT_GOLD)


def _same_ranking() -> QuerySet[Ranking]:
    """Return every revision of the outer query's ranking."""
    return Ranking.objects.filter(comparison=OuterRef("comparison"), annotator=OuterRef("annotator"))


# Completion id, text, turns (None: one turn), name of the source, sampling parameters
Item = tuple[int, str, Turns | None, str, dict[str, Any]]


def _items(comparison_ids: list[int]) -> dict[int, list[Item]]:
    """Return the items of each comparison, in order of position."""
    items: dict[int, list[Item]] = {comparison_id: [] for comparison_id in comparison_ids}
    ordered = ComparisonItem.objects.filter(comparison_id__in=items).order_by("comparison_id", "position")
    fields = ordered.values_list(
        *("comparison_id", "completion_id", "completion__text", "completion__turns"),
        *("completion__source__name", "completion__sampling"),
    )
    for comparison_id, *item in fields:
        items[comparison_id].append(tuple(item))
    return items


def _row(row: Row, items: list[Item] | None, reliability: Mapping[int, float] | None) -> Row:
    annotator_pk = row.pop("annotator_pk")
    row["annotator"] = pseudonym(annotator_pk)
    standing = row.pop("standing")
    if standing != Ranking.Standing.COUNTS:
        return retraction(row, standing)
    assert items is not None
    ids, texts, turns, sources, sampling = zip(*items, strict=True)
    if "created_at" in row:  # with details
        row |= {"created_at": row["created_at"].isoformat(timespec="microseconds"), "sampling": list(sampling)}
    return {
        **row,
        "completions": list(texts),
        **({"turns": list(turns)} if any(turns) else {}),
        "completion_ids": list(ids),
        "sources": list(sources),
        "weight": _weight(row["reason"], annotator_pk, reliability),
        "reliability": reliability.get(annotator_pk) if reliability is not None else None,
    }


def _weight(reason: str, annotator_pk: int, reliability: Mapping[int, float] | None) -> float:
    """Return the weight of a ranking; an annotator without an estimate has the prior's."""
    # An adjudication weighs 1: the reviewer has seen the rankings of the others.
    if reliability is None or reason == Lease.Reason.ADJUDICATION:
        return 1.0
    return weight_of(reliability.get(annotator_pk, PRIOR))
