"""Take back the rankings and skips of an import."""

from collections import Counter
from dataclasses import dataclass

from django.db import connection

from feedback.models import Comparison, Import, Skip

# Rankings of the import that are the only revision of their annotator and comparison: nobody has decided about them.
ALONE = """
    SELECT ranking.id, ranking.comparison_id, ranking.sequence IS NULL AS is_unread
    FROM feedback_ranking AS ranking
    WHERE ranking.made_by_import_id = %(import)s AND ranking.is_live AND ranking.standing = 'counts'
        AND NOT EXISTS (
            SELECT FROM feedback_ranking AS later
            WHERE later.comparison_id = ranking.comparison_id AND later.annotator_id = ranking.annotator_id
                AND later.revision > ranking.revision)"""
# The withdrawal is a new revision, as that of an annotator. Unread rows of the same ranking stay with it.
WITHDRAW = """
    WITH ended AS (UPDATE feedback_ranking SET is_live = false WHERE id = ANY(%(ids)s))
    INSERT INTO feedback_ranking (project_id, comparison_id, annotator_id, size, ranks, display_order, seconds, comment,
        strength, flags, ratings, spans, reason, idempotency_key, revision, is_live, standing, created_at)
    SELECT project_id, comparison_id, annotator_id, size, ranks, display_order, seconds, comment, strength, flags,
        ratings, spans, reason, gen_random_uuid(), revision + 1, false, 'withdrawn', created_at
    FROM feedback_ranking WHERE id = ANY(%(ids)s) ORDER BY id"""
DELETE = "DELETE FROM feedback_ranking WHERE id = ANY(%s)"
# A comparison wants at least one ranking; one that existed for its imported rankings keeps no slot.
COUNT = """
    UPDATE feedback_comparison SET ranking_count = ranking_count - counted.fewer,
        wanted_rankings = greatest(1, wanted_rankings - counted.fewer),
        open_slots = least(open_slots, greatest(1, wanted_rankings - counted.fewer))
    FROM unnest(%s::bigint[], %s::int[]) AS counted (comparison_id, fewer) WHERE id = counted.comparison_id"""
REFRESH = """
    UPDATE feedback_comparison SET disagreement = accord_disagreement(id) WHERE id = ANY(%s) AND gold_ranks IS NULL"""


@dataclass(frozen=True)
class TakenBack:
    """Numbers of removed rows by kind, and of rankings that stay or are withdrawn by reason."""

    removed: dict[str, int]
    stayed: dict[str, int]


def take_back(record: Import) -> TakenBack:
    """Delete the import's rankings that no reader of the record has seen, withdraw the others, delete its skips.

    The caller holds the lock of the project, under which readers number rankings.
    """
    locked = Comparison.objects.filter(rankings__made_by_import=record).order_by("pk")
    ids = list(locked.values_list("pk", flat=True).distinct())
    list(Comparison.objects.filter(pk__in=ids).order_by("pk").select_for_update(no_key=True).values_list("pk"))
    with connection.cursor() as cursor:
        cursor.execute(ALONE, {"import": record.pk})
        rows = cursor.fetchall()
        unread = [pk for pk, _comparison, is_unread in rows if is_unread]
        read = [pk for pk, _comparison, is_unread in rows if not is_unread]
        cursor.execute(DELETE, [unread])
        cursor.execute(WITHDRAW, {"ids": read})
        fewer = Counter(comparison for _pk, comparison, _unread in rows)
        cursor.execute(COUNT, [list(fewer), list(fewer.values())])
        cursor.execute(REFRESH, [list(fewer)])
    skips, _by_model = Skip.objects.filter(made_by_import=record).delete()
    stay = record.counts.get("rankings", 0) - len(rows)
    return TakenBack({"rankings": len(unread), "skips": skips}, {"read": len(read), "reviewed": max(0, stay)})
