"""Store rankings that came with a file, by imported people.

They are rows of the same table as rankings of members, with the reason `imported`: triggers keep the comparison's
disagreement, and the first reader of the record numbers them after their commit. A ranking takes no slot of the
comparison: `wanted_rankings` grows with it, so people are asked as before, and nobody is asked for a comparison that
exists only for the sake of its imported rankings.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from django.utils import timezone
from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.imports import bulk
from feedback.imports.comparisons import Plan
from feedback.imports.maps.draft import RowJudgement
from feedback.models import Comparison, ComparisonItem, Import, Lease, Project, Ranking
from feedback.queue import blinding

NAMESPACE = UUID("6f4cf0c1-1f9b-4f50-9d6a-3c1d7d2f7c55")  # of the idempotency keys
COLUMNS = (
    "project_id", "comparison_id", "annotator_id", "size", "ranks", "display_order", "seconds", "comment", "strength",
    "flags", "ratings", "spans", "reason", "idempotency_key", "revision", "is_live", "created_at", "made_by_import_id",
)  # fmt: skip
# The rankings leave the slots of a comparison that was there before as they are.
COUNT = """
    UPDATE feedback_comparison SET
        ranking_count = ranking_count + counted.more, wanted_rankings = wanted_rankings + counted.more
    FROM unnest(%s::bigint[], %s::int[]) AS counted (comparison_id, more) WHERE id = counted.comparison_id"""


@dataclass(frozen=True)
class ImportedRanking:
    """A judgement of a stored comparison."""

    comparison_id: int
    annotator_id: int
    digests: list[str]  # of the completions, in the order of the judgement
    judgement: RowJudgement


def store(project: Project, record: Import, rankings: Sequence[ImportedRanking], planned: Plan) -> list[bool | Invalid]:
    """Store rankings; return for each whether it is new (True) or there already (False), or why it is refused.

    The new comparisons of the plan are stored, too. One without a ranking is stored with a slot.
    """
    positions = {
        comparison.pk: {text.digest: position for position, text in enumerate(texts)}
        for comparison, texts in zip(planned.new, planned.texts, strict=True)
    }
    older = {ranking.comparison_id for ranking in rankings} - positions.keys()
    last: dict[tuple[int, int], tuple[int, str, list[int]]] = {}
    if older:
        # In the order of their ids, as everybody locks them.
        list(Comparison.objects.filter(pk__in=older).order_by("pk").select_for_update(no_key=True).values_list("pk"))
        positions |= _positions(older)
        last = _last_revisions(older, {ranking.annotator_id for ranking in rankings})
    results: list[bool | Invalid] = []
    rows: list[tuple[Any, ...]] = []
    for ranking in rankings:
        places = [positions[ranking.comparison_id][digest] for digest in ranking.digests]
        fields = _by_position(project, ranking, places)
        key = (ranking.comparison_id, ranking.annotator_id)
        revision, standing, ranks = last.get(key, (0, Ranking.Standing.WITHDRAWN, []))
        if standing != Ranking.Standing.WITHDRAWN:
            results.append(False if ranks == fields["ranks"] else _other_order())
            continue
        last[key] = (revision + 1, Ranking.Standing.COUNTS, fields["ranks"])
        results.append(True)
        rows.append(_row(project, record, ranking, fields, revision + 1))
    more = Counter(row[COLUMNS.index("comparison_id")] for row in rows)
    for comparison in planned.new:
        if count := more.pop(comparison.pk, 0):  # it exists for the sake of its rankings: nobody is asked for one
            comparison.ranking_count = comparison.wanted_rankings = count
            comparison.open_slots = 0
    planned.write()
    bulk.copy("feedback_ranking", COLUMNS, rows)
    if more:
        bulk.execute(COUNT, [bulk.as_array(more), bulk.as_array(more.values())])
    return results


def key_of(comparison_id: int, annotator_id: int, revision: int) -> UUID:
    """Return the idempotency key of an imported ranking: the same for the same ranking."""
    return uuid5(NAMESPACE, f"{comparison_id}:{annotator_id}:{revision}")


def _other_order() -> Invalid:
    return Invalid(
        _("The same person has ranked the same completions already, in another order: a ranking is never overwritten.")
    )


def _positions(comparisons: set[int]) -> dict[int, dict[str, int]]:
    """Return the positions of the texts of each comparison, by digest."""
    positions: dict[int, dict[str, int]] = {pk: {} for pk in comparisons}
    items = ComparisonItem.objects.filter(comparison__in=comparisons)
    for comparison_id, digest, position in items.values_list("comparison_id", "digest", "position"):
        positions[comparison_id][digest] = position
    return positions


def _last_revisions(comparisons: set[int], annotators: set[int]) -> dict[tuple[int, int], tuple[int, str, list[int]]]:
    """Return number, standing and ranks of the last revision by comparison and annotator."""
    rows = Ranking.objects.filter(comparison__in=comparisons, annotator__in=annotators).order_by("revision")
    fields = rows.values_list("comparison_id", "annotator_id", "revision", "standing", "ranks")
    return {
        (comparison, annotator): (revision, standing, ranks)
        for comparison, annotator, revision, standing, ranks in fields
    }


def _by_position(project: Project, ranking: ImportedRanking, places: list[int]) -> dict[str, Any]:
    """Return what refers to completions by their positions; `places` are those of the row's completions."""
    judgement, size = ranking.judgement, len(places)
    row_of = {position: index for index, position in enumerate(places)}
    spans = [span | {"completion": places[span["completion"]]} for span in judgement.spans]
    if judgement.display_order is None:
        # Unknown. A fixed order, such as the better one first, would look like an annotator's bias to one side.
        order = blinding.display_order(project, ranking.comparison_id, ranking.annotator_id, size)
    else:
        order = [places[index] for index in judgement.display_order]
    return {
        "size": size,
        "ranks": [judgement.ranks[row_of[position]] for position in range(size)],
        "display_order": order,
        "ratings": {
            name: [rated[row_of[position]] for position in range(size)] for name, rated in judgement.ratings.items()
        },
        "spans": sorted(spans, key=lambda span: (span["completion"], span["start"])),
    }


def _row(
    project: Project, record: Import, ranking: ImportedRanking, fields: dict[str, Any], revision: int
) -> tuple[Any, ...]:
    judgement = ranking.judgement
    values = {
        "project_id": project.pk,
        "comparison_id": ranking.comparison_id,
        "annotator_id": ranking.annotator_id,
        "size": fields["size"],
        "ranks": bulk.as_array(fields["ranks"]),
        "display_order": bulk.as_array(fields["display_order"]),
        "ratings": json.dumps(fields["ratings"]) if fields["ratings"] else "{}",
        "spans": json.dumps(fields["spans"]) if fields["spans"] else "[]",
        "seconds": judgement.seconds,
        "comment": judgement.comment,
        "strength": judgement.strength,
        "flags": judgement.flags or "{}",
        "reason": str(Lease.Reason.IMPORTED),
        "idempotency_key": key_of(ranking.comparison_id, ranking.annotator_id, revision),
        "revision": revision,
        "is_live": True,
        "created_at": judgement.made_at or timezone.now(),
        "made_by_import_id": record.pk,
    }
    return tuple(values[name] for name in COLUMNS)
