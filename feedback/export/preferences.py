"""Rankings and preferences going out, in the order of the record.

Every committed ranking gets a place in its project's record, `sequence`, from the first reader that sees it. A reader
that has read up to a sequence therefore never misses a ranking that was committed late: it comes with a later number.
Rows are read in pages by sequence, so a slow client holds no transaction open and memory stays flat.

A ranking is known by its `comparison_id` and `annotator`. To follow a project by cursor, forget all lines of the same
two that have a lower `revision` than the line at hand, and then keep this one, unless it says `retracted`: such a line
has nothing to learn from, and comes only to readers who may have an earlier one. It says why:

    discarded   by a reviewer
    returned    by a reviewer, to its annotator, who may answer with a further revision
    overruled   by a reviewer's own ranking of the comparison, which is the only one that counts there
    tied        (`trl` alone) the revision prefers nothing, which pairs cannot say
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from django.db import connection, transaction
from django.db.models import Exists, F, Max, OuterRef, Q, QuerySet

from feedback.models import ComparisonItem, Demonstration, Lease, Project, Ranking, Skip
from feedback.models.reliability import PRIOR, weight_of

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
    project: Project,
    after: int = 0,
    until: int | None = None,
    *,
    split: str | None = None,
    still_counting: bool = False,
    reliability: Mapping[int, float] | None = None,
    details: bool = False,
) -> Iterator[dict[str, Any]]:
    """The rankings with `after` < sequence ≤ `until`, as they stood at `until`, in order of sequence.

    Of a ranking revised up to `until` only its last revision comes. An incremental reader may therefore see a later
    revision of what it has already read: a row with `revision` > 1 replaces the earlier one of the same
    `comparison_id` and `annotator`, and may be retracted: `ranking_id, sequence, revision, comparison_id, prompt_id,
    split, annotator, retracted`. `until` is now (`sequence_cutoff`) unless given. `split` keeps one split only.
    `still_counting` leaves out what reviewers have taken out since `until`: a round learns from none of it.
    `reliability` (by user id, from `feedback.quality.reliability`) gives each row its weight; without it all weigh 1.

    Each row: `ranking_id, sequence, revision, comparison_id, prompt_id, split, messages, completions, completion_ids,
    sources, ranks (1 = best, equal = tie; aligned with completions), display_order, annotator (a pseudonym), weight,
    reliability (of the annotator, or null), strength, flags, ratings, spans, seconds, reason` (why the queue asked for
    it), all ready for JSON. `ratings` are lists by attribute, aligned with completions; `spans` mark the characters
    `start` … `end` − 1 of `completions[completion]` good or bad.

    `details` adds what no learner needs: `external_id` (or null), `references` and `metadata` of the prompt, `sampling`
    (settings, aligned with completions), `comment` and `created_at` (ISO 8601) of the ranking.
    """
    until = sequence_cutoff(project) if until is None else until
    chosen = counting(project, until) if still_counting else _worth_telling(project, after, until)
    if split is not None:
        chosen = chosen.filter(comparison__prompt__split=split)
    names, joined = (_PLAIN + _SAID, _JOINED | _OF_PROMPT) if details else (_PLAIN, _JOINED)
    while page := list(chosen.filter(sequence__gt=after).values(*names, **joined)[:PAGE]):
        items = _items([row["comparison_id"] for row in page if row["standing"] == Ranking.Standing.COUNTS])
        for row in page:
            yield _ranking(row, items.get(row["comparison_id"]), reliability, details)
        after = page[-1]["sequence"]


def preferences(
    project: Project,
    after: int = 0,
    until: int | None = None,
    *,
    split: str | None = None,
    reliability: Mapping[int, float] | None = None,
) -> Iterator[dict[str, Any]]:
    """The same rankings as pairs, in TRL's conversational preference format.

    Each row: `prompt` (messages), `chosen` and `rejected` (each `[{"role": "assistant", "content": …}]`), for filters
    `ranking_id, prompt_id, external_id ("": none), split, annotator, comparison_id, revision, created_at,
    chosen_source, rejected_source, strength (0: none was given)`, and `weight`. No column is ever null. A ranking of K
    completions gives up to K·(K − 1)/2 rows, the best completions first; ties give none, since the format cannot say
    them, and neither do revised rankings. Retracted rows are those of `rankings`, and have no pair.
    """
    for ranking in rankings(project, after, until, split=split, reliability=reliability, details=True):
        if "retracted" in ranking:
            yield ranking
            continue
        pairs = list(_pairs(ranking["ranks"]))
        if not pairs and after and ranking["revision"] > 1:
            yield _retraction(ranking, "tied")
        for better, worse in pairs:
            yield _preference(ranking, better, worse)


def detailed_rankings(
    project: Project,
    after: int = 0,
    until: int | None = None,
    *,
    split: str | None = None,
    reliability: Mapping[int, float] | None = None,
) -> Iterator[dict[str, Any]]:
    """The rankings with `details`."""
    return rankings(project, after, until, split=split, reliability=reliability, details=True)


def table(
    project: Project,
    after: int = 0,
    until: int | None = None,
    *,
    split: str | None = None,
    reliability: Mapping[int, float] | None = None,
) -> Iterator[dict[str, Any]]:
    """The detailed rankings in columns whose types are those of the first row, as Arrow and `load_dataset` need it.

    What has no fixed shape is JSON in a text: `flags_json, ratings_json, spans_json, references_json, metadata_json`,
    and `sampling_json` (texts aligned with completions). `strength` is 0 where none was given, `external_id` is ""
    where there is none, `reliability` is the prior's where it is not estimated, and `retracted` is "" unless it is so.
    """
    for row in detailed_rankings(project, after, until, split=split, reliability=reliability):
        filled = _EMPTY | row
        shown = {name: filled.pop(name) for name in (*_KNOWN_BY, "retracted")}
        shown |= {f"{name}_json": json.dumps(filled.pop(name), ensure_ascii=False) for name in _FREE}
        shown["sampling_json"] = [json.dumps(each, ensure_ascii=False) for each in filled.pop("sampling")]
        empty = {"strength": 0, "external_id": "", "reliability": PRIOR}
        yield shown | {name: empty.get(name) if value is None else value for name, value in filled.items()}


def _pairs(ranks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Places of (better, worse), the best first."""
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    return ((better, worse) for better, worse in combinations(order, 2) if ranks[better] < ranks[worse])


def demonstrations(project: Project) -> Iterator[dict[str, Any]]:
    """What people wrote to be imitated, for fine-tuning: `messages, completion, prompt_id, split`."""
    written = Demonstration.objects.filter(completion__prompt__project=project).order_by("pk")
    fields = written.values_list(
        "completion__prompt__messages", "completion__text", "completion__prompt_id", "completion__prompt__split"
    )
    for messages, text, prompt_id, split in fields.iterator(chunk_size=PAGE):
        yield {"messages": messages, "completion": text, "prompt_id": prompt_id, "split": split}


def skips(project: Project) -> Iterator[dict[str, Any]]:
    """What annotators would not rank, and why: `comparison_id, prompt_id, external_id, split, annotator, reason,
    created_at`, in the order of time."""
    skipped = Skip.objects.filter(comparison__project=project, comparison__gold_ranks__isnull=True).order_by("pk")
    fields = skipped.values_list(
        "comparison_id",
        "comparison__prompt_id",
        "comparison__prompt__external_id",
        "comparison__prompt__split",
        "annotator_id",
        "reason",
        "created_at",
    )
    for comparison_id, prompt_id, external_id, split, annotator, reason, created_at in fields.iterator(chunk_size=PAGE):
        yield {
            "comparison_id": comparison_id,
            "prompt_id": prompt_id,
            "external_id": external_id or "",
            "split": split,
            "annotator": pseudonym(annotator),
            "reason": reason,
            "created_at": created_at.isoformat(timespec="microseconds"),
        }


FORMATS = {"rankings": detailed_rankings, "table": table, "trl": preferences}

_KNOWN_BY = ("ranking_id", "sequence", "revision", "comparison_id", "prompt_id", "split", "annotator")
_PLAIN = (
    *("sequence", "revision", "standing", "comparison_id", "ranks", "display_order"),
    *("strength", "flags", "ratings", "spans", "seconds", "reason"),
)
_SAID = ("comment", "created_at")
_OF_PROMPT = {
    "external_id": F("comparison__prompt__external_id"),
    "references": F("comparison__prompt__references"),
    "metadata": F("comparison__prompt__metadata"),
}
_FREE = ("flags", "ratings", "spans", "references", "metadata")  # their shape differs from row to row
_EMPTY: dict[str, Any] = {
    **{name: [] for name in ("messages", "completions", "completion_ids", "sources", "ranks", "display_order")},
    **{name: [] for name in ("flags", "spans", "references", "sampling")},
    **{name: {} for name in ("ratings", "metadata")},
    **dict.fromkeys(("external_id", "reason", "comment", "created_at", "retracted"), ""),
    "strength": 0,
    "seconds": 0.0,
    "weight": 0.0,
    "reliability": PRIOR,
}
_JOINED = {
    "ranking_id": F("pk"),
    "prompt_id": F("comparison__prompt_id"),
    "split": F("comparison__prompt__split"),
    "messages": F("comparison__prompt__messages"),
    "annotator_pk": F("annotator_id"),
}


def last_revisions(project: Project, until: int) -> QuerySet[Ranking]:
    """The last revision, as of `until`, of every ranking, gold and what was taken out included."""
    later = _same_ranking().filter(revision__gt=OuterRef("revision"), sequence__lte=until)
    return Ranking.objects.filter(~Exists(later), project=project, sequence__lte=until).order_by("sequence")


def _of_models(rankings: QuerySet[Ranking]) -> QuerySet[Ranking]:
    """Without gold, which tests people."""
    return rankings.filter(comparison__gold_ranks__isnull=True)


def counting(project: Project, until: int) -> QuerySet[Ranking]:
    """What there is to learn from as of `until`, less what reviewers have taken out between then and now."""
    counts_now = _same_ranking().filter(is_live=True, standing=Ranking.Standing.COUNTS)
    last = _of_models(last_revisions(project, until))
    return last.filter(Exists(counts_now), standing=Ranking.Standing.COUNTS)


def _same_ranking() -> QuerySet[Ranking]:
    """Every revision of the outer query's ranking."""
    return Ranking.objects.filter(comparison=OuterRef("comparison"), annotator=OuterRef("annotator"))


def _worth_telling(project: Project, after: int, until: int) -> QuerySet[Ranking]:
    """Without what was taken out before the reader could see it."""
    last = _of_models(last_revisions(project, until))
    counts = Q(standing=Ranking.Standing.COUNTS)
    return last.filter(counts | Exists(_same_ranking().filter(sequence__lte=after))) if after else last.filter(counts)


def _items(comparison_ids: list[int]) -> dict[int, list[tuple[int, str, str, dict[str, Any]]]]:
    """(completion id, text, source's name, sampling) by position, of each comparison."""
    items: dict[int, list[tuple[int, str, str, dict[str, Any]]]] = {each: [] for each in comparison_ids}
    found = ComparisonItem.objects.filter(comparison_id__in=items).order_by("comparison_id", "position")
    fields = found.values_list(
        "comparison_id", "completion_id", "completion__text", "completion__source__name", "completion__sampling"
    )
    for comparison_id, *item in fields:
        items[comparison_id].append(tuple(item))
    return items


def _ranking(
    row: dict[str, Any],
    items: list[tuple[int, str, str, dict[str, Any]]] | None,
    reliability: Mapping[int, float] | None,
    details: bool,
) -> dict[str, Any]:
    annotator_pk = row.pop("annotator_pk")
    row["annotator"] = pseudonym(annotator_pk)
    standing = row.pop("standing")
    if standing != Ranking.Standing.COUNTS:
        return _retraction(row, standing)
    assert items is not None
    ids, texts, sources, settings = zip(*items, strict=True)
    if details:
        row |= {"created_at": row["created_at"].isoformat(timespec="microseconds"), "sampling": list(settings)}
    return {
        **row,
        "completions": list(texts),
        "completion_ids": list(ids),
        "sources": list(sources),
        "weight": _weight(row["reason"], annotator_pk, reliability),
        "reliability": reliability.get(annotator_pk) if reliability is not None else None,
    }


def _weight(reason: str, annotator_pk: int, reliability: Mapping[int, float] | None) -> float:
    """By reliability if that is known; whoever is not in it has what is thought of somebody unknown."""
    if reliability is None or reason == Lease.Reason.ADJUDICATION:  # a reviewer has looked at it with others' rankings
        return 1.0
    return weight_of(reliability.get(annotator_pk, PRIOR))


def pseudonym(user_id: int) -> str:
    """What an annotator is called in files that leave the project: the same everywhere, and no name."""
    return f"annotator-{user_id}"


def _retraction(ranking: dict[str, Any], why: str) -> dict[str, Any]:
    return {**{key: ranking[key] for key in _KNOWN_BY}, "retracted": why}


def _preference(ranking: dict[str, Any], better: int, worse: int) -> dict[str, Any]:
    return {
        "prompt": ranking["messages"],
        "chosen": [{"role": "assistant", "content": ranking["completions"][better]}],
        "rejected": [{"role": "assistant", "content": ranking["completions"][worse]}],
        **{key: ranking[key] for key in _KNOWN_BY if key != "sequence"},
        "external_id": ranking["external_id"] or "",
        "chosen_source": ranking["sources"][better],
        "rejected_source": ranking["sources"][worse],
        "strength": ranking["strength"] or 0,
        "created_at": ranking["created_at"],
        "weight": ranking["weight"],
    }
