"""The state of a comparison and its rankings, for the review tests."""

from feedback.export import ranking_record
from feedback.models import Comparison, Membership, Project, Ranking


def last_revision(member: Membership) -> Ranking | None:
    """Return the last revision of the member's ranking, whatever its standing."""
    return Ranking.objects.filter(annotator=member.user_id).order_by("-id").first()


def counters(comparison: Comparison) -> tuple[int, int, int]:
    """Return (wanted rankings, live rankings, open slots), checked against the rows that they count."""
    comparison.refresh_from_db()
    live = comparison.rankings.filter(is_live=True).count()
    held = comparison.leases.filter(lapsed_at__isnull=True).count()
    assert comparison.ranking_count == live
    if comparison.adjudicated_at is None:
        assert comparison.open_slots == comparison.wanted_rankings - live - held
    else:
        assert (comparison.open_slots, held) == (0, 0)
    return comparison.wanted_rankings, comparison.ranking_count, comparison.open_slots


def preferences(project: Project) -> list[tuple[str, list[int]]]:
    """Return (annotator id, ranks) of the rankings that make preferences."""
    return sorted((row["annotator"], row["ranks"]) for row in ranking_record.rankings(project))


def preference(member: Membership, ranks: list[int]) -> tuple[str, list[int]]:
    return (ranking_record.pseudonym(member.user_id), ranks)
