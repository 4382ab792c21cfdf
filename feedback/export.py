"""Rankings and preferences going out, in the order of the record.

Every committed ranking gets a place in its project's record, `sequence`, from the first reader that sees it. A reader
that has read up to a sequence therefore never misses a ranking that was committed late: it comes with a later number.
Rows are read in pages by sequence, so a slow client holds no transaction open and memory stays flat.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from django.db import connection, transaction
from django.db.models import Exists, F, Max, OuterRef, QuerySet

from feedback.models import ComparisonItem, Demonstration, Project, Ranking

PAGE = 1000  # rankings read at a time

NUMBER_THE_NEW = """
    UPDATE feedback_ranking SET sequence = placed.place
    FROM (
        SELECT id, %(last)s + row_number() OVER (ORDER BY id) AS place
        FROM feedback_ranking WHERE project_id = %(project)s AND sequence IS NULL
    ) AS placed
    WHERE feedback_ranking.id = placed.id
"""


@transaction.atomic
def sequence_cutoff(project: Project) -> int:
    """Give each committed ranking its place in the project's record; return the last one, 0 when there is none.

    One reader at a time does it. A ranking that is committed later gets a later place, even if it began earlier.
    """
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    last = Ranking.objects.filter(project=project).aggregate(last=Max("sequence"))["last"] or 0
    with connection.cursor() as cursor:
        cursor.execute(NUMBER_THE_NEW, {"project": project.pk, "last": last})
        return last + cursor.rowcount


def rankings(
    project: Project, after: int = 0, until: int | None = None, *, split: str | None = None
) -> Iterator[dict[str, Any]]:
    """The rankings with `after` < sequence ≤ `until`, as they stood at `until`, in order of sequence.

    Of a ranking revised up to `until` only its last revision comes. An incremental reader may therefore see a later
    revision of what it has already read: a row with `revision` > 1 replaces the earlier one of the same
    `comparison_id` and `annotator`. `until` is now (`sequence_cutoff`) unless given. `split` keeps one split only.

    Each row: `ranking_id, sequence, revision, comparison_id, prompt_id, split, messages, completions, completion_ids,
    sources, ranks (1 = best, equal = tie; aligned with completions), display_order, annotator (a pseudonym), weight,
    strength, flags, ratings, spans, seconds, reason` (why the queue asked for it), all ready for JSON. `ratings` are
    lists by attribute, aligned with completions; `spans` mark the characters `start` … `end` − 1 of
    `completions[completion]` good or bad.
    """
    until = sequence_cutoff(project) if until is None else until
    chosen = _standing(project, until)
    if split is not None:
        chosen = chosen.filter(comparison__prompt__split=split)
    while page := list(chosen.filter(sequence__gt=after).values(*_PLAIN, **_JOINED)[:PAGE]):
        items = _items([row["comparison_id"] for row in page])
        for row in page:
            yield _ranking(row, items[row["comparison_id"]])
        after = page[-1]["sequence"]


def preferences(
    project: Project, after: int = 0, until: int | None = None, *, split: str | None = None
) -> Iterator[dict[str, Any]]:
    """The same rankings as pairs, in TRL's conversational preference format.

    Each row: `prompt` (messages), `chosen` and `rejected` (each `[{"role": "assistant", "content": …}]`), and for
    filters `ranking_id, prompt_id, split, annotator`. A ranking of K completions gives up to K·(K − 1)/2 rows, the
    best completions first; ties give none, since the format cannot say them, and neither do revised rankings.
    """
    for ranking in rankings(project, after, until, split=split):
        order = sorted(range(len(ranking["ranks"])), key=ranking["ranks"].__getitem__)
        for better, worse in combinations(order, 2):
            if ranking["ranks"][better] < ranking["ranks"][worse]:
                yield _preference(ranking, better, worse)


def demonstrations(project: Project) -> Iterator[dict[str, Any]]:
    """What people wrote to be imitated, for fine-tuning: `messages, completion, prompt_id, split`."""
    written = Demonstration.objects.filter(completion__prompt__project=project).order_by("pk")
    fields = written.values_list(
        "completion__prompt__messages", "completion__text", "completion__prompt_id", "completion__prompt__split"
    )
    for messages, text, prompt_id, split in fields.iterator(chunk_size=PAGE):
        yield {"messages": messages, "completion": text, "prompt_id": prompt_id, "split": split}


FORMATS = {"rankings": rankings, "trl": preferences}

_PLAIN = (
    *("sequence", "revision", "comparison_id", "ranks", "display_order"),
    *("strength", "flags", "ratings", "spans", "seconds", "reason"),
)
_JOINED = {
    "ranking_id": F("pk"),
    "prompt_id": F("comparison__prompt_id"),
    "split": F("comparison__prompt__split"),
    "messages": F("comparison__prompt__messages"),
    "annotator_pk": F("annotator_id"),
}


def _standing(project: Project, until: int) -> QuerySet[Ranking]:
    """The last revision, as of `until`, of each annotator's ranking of each comparison."""
    later = Ranking.objects.filter(
        comparison=OuterRef("comparison"),
        annotator=OuterRef("annotator"),
        revision__gt=OuterRef("revision"),
        sequence__lte=until,
    )
    said = Ranking.objects.filter(~Exists(later), project=project, sequence__lte=until)
    return said.filter(comparison__gold_ranks__isnull=True).order_by("sequence")  # gold tests people, not models


def _items(comparison_ids: list[int]) -> dict[int, list[tuple[int, str, str]]]:
    """(completion id, text, source's name) by position, of each comparison."""
    items: dict[int, list[tuple[int, str, str]]] = {each: [] for each in comparison_ids}
    found = ComparisonItem.objects.filter(comparison_id__in=items).order_by("comparison_id", "position")
    fields = found.values_list("comparison_id", "completion_id", "completion__text", "completion__source__name")
    for comparison_id, *item in fields:
        items[comparison_id].append(tuple(item))
    return items


def _ranking(row: dict[str, Any], items: list[tuple[int, str, str]]) -> dict[str, Any]:
    ids, texts, sources = zip(*items, strict=True)
    annotator = pseudonym(row.pop("annotator_pk"))
    return {
        **row,
        "annotator": annotator,
        "completions": list(texts),
        "completion_ids": list(ids),
        "sources": list(sources),
        "weight": 1.0,
    }


def pseudonym(user_id: int) -> str:
    """What an annotator is called in files that leave the project: the same everywhere, and no name."""
    return f"annotator-{user_id}"


def _preference(ranking: dict[str, Any], better: int, worse: int) -> dict[str, Any]:
    return {
        "prompt": ranking["messages"],
        "chosen": [{"role": "assistant", "content": ranking["completions"][better]}],
        "rejected": [{"role": "assistant", "content": ranking["completions"][worse]}],
        **{key: ranking[key] for key in ("ranking_id", "prompt_id", "split", "annotator")},
    }
