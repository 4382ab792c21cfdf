"""Skips: comparisons that annotators decided not to rank, and their reasons."""

from collections.abc import Iterator

from feedback.export.ranking_record import PAGE_SIZE, Row, pseudonym
from feedback.models import Project, Skip


def skips(project: Project) -> Iterator[Row]:
    """Yield the skips in the order of time, without those of gold.

    Each row: `comparison_id, prompt_id, external_id, split, annotator, reason, created_at`.
    """
    stored = Skip.objects.filter(comparison__project=project, comparison__gold_ranks__isnull=True).order_by("pk")
    fields = stored.values_list(
        "comparison_id",
        "comparison__prompt_id",
        "comparison__prompt__external_id",
        "comparison__prompt__split",
        "annotator_id",
        "reason",
        "created_at",
    )
    for comparison_id, prompt_id, external_id, split, annotator, reason, created_at in fields.iterator(
        chunk_size=PAGE_SIZE
    ):
        yield {
            "comparison_id": comparison_id,
            "prompt_id": prompt_id,
            "external_id": external_id or "",
            "split": split,
            "annotator": pseudonym(annotator),
            "reason": reason,
            "created_at": created_at.isoformat(timespec="microseconds"),
        }
