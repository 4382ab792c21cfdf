"""Agreement and gold pass rate of one annotator as they may see them: computed once per full batch, and stored.

The figures are a function of the rankings made before the end of the annotator's last full batch. So nothing that
happens later reveals to the annotator which of the later comparisons was gold. A reviewer's decision about an earlier
ranking is a row of that earlier time, and makes the stored figures outdated.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone

from feedback.export import ranking_record
from feedback.models import Membership, OwnQualitySnapshot, Ranking
from feedback.models.rankings import WITHOUT_LEASE
from feedback.quality import agreement
from feedback.quality.agreement import Estimate
from feedback.queue import gold
from feedback.reports.estimate_encoder import EstimateEncoder
from feedback.reports.progress import midnight

BATCH = 50  # rankings after which annotators see their quality again: smaller steps would reveal which are gold
MAX_MEMBERS_AT_ONCE = 20  # whom one run of the worker counts: about 0.5 s of CPU for 10,000 rankings


@dataclass(frozen=True)
class OwnQuality:
    """The quality of one annotator's full batches; `gold` is None without rankings of gold."""

    agreement: Estimate
    gold: Estimate | None


def get_own_quality(membership: Membership) -> OwnQuality | None:
    """Return the quality of the member's full batches before midnight; None if no batch is full."""
    until = _end_of_full_batches(membership)
    if until is None:
        return None
    snapshot = OwnQualitySnapshot.objects.filter(membership=membership).first()
    if snapshot is None or snapshot.until != until or _is_outdated(membership, snapshot):
        snapshot = _take_snapshot(membership, until)
    return _decode(snapshot)


def refresh() -> int:
    """Compute the quality of members not counted since midnight, so that their page need not. Return how many."""
    of_today = OwnQualitySnapshot.objects.filter(counted_at__gte=midnight())
    interested = Membership.objects.filter(project__annotators_see_quality=True, project__archived_at__isnull=True)
    waiting = interested.exclude(pk__in=of_today.values("membership")).select_related("project").order_by("pk")
    members = list(waiting[:MAX_MEMBERS_AT_ONCE])
    for membership in members:
        _take_snapshot(membership, _end_of_full_batches(membership))
    return len(members)


def _end_of_full_batches(membership: Membership) -> datetime | None:
    """Return when the last full batch of the person's rankings before midnight ended; None if no batch is full.

    If a figure changed with each ranking or revision, the annotator could find out whether that ranking was gold. So
    nothing that happens after the end of the batch changes the figures.
    """
    made = Ranking.objects.filter(project=membership.project, annotator=membership.user_id, revision=1)
    made = made.exclude(reason__in=WITHOUT_LEASE).filter(created_at__lt=midnight())
    in_full_batches = made.count() // BATCH * BATCH
    if not in_full_batches:
        return None
    last_at = made.order_by("created_at", "pk").values_list("created_at", flat=True)[in_full_batches - 1]
    return last_at + timedelta(microseconds=1)


def _is_outdated(membership: Membership, snapshot: OwnQualitySnapshot) -> bool:
    """Return whether the record got rows of the time before `until` since the snapshot was taken."""
    later = Q(sequence__gt=snapshot.sequence) | Q(sequence__isnull=True)
    return Ranking.objects.filter(later, project=membership.project_id, created_at__lt=snapshot.until).exists()


def _take_snapshot(membership: Membership, until: datetime | None) -> OwnQualitySnapshot:
    """Compute the figures and store them. `until` None: there are none today."""
    # The end of the record is read first. A row that is committed meanwhile then makes the snapshot outdated.
    values: dict[str, Any] = {
        "counted_at": timezone.now(),
        "sequence": ranking_record.sequence_cutoff(membership.project),
        "until": until,
        "content": {} if until is None else _encode(count_own_quality(membership, until)),
    }
    snapshot = OwnQualitySnapshot(membership=membership, **values)
    OwnQualitySnapshot.objects.bulk_create(
        [snapshot], update_conflicts=True, update_fields=list(values), unique_fields=["membership"]
    )
    return snapshot


def count_own_quality(membership: Membership, until: datetime) -> OwnQuality:
    """Return the figures over the rankings made before `until`, recounted."""
    project, user_id = membership.project, membership.user_id
    agreed = agreement.of_annotator(project, user_id, until=until).overall.pairwise
    return OwnQuality(agreed, gold.pass_rates(project, until=until, user_id=user_id).get(user_id))


def _encode(quality: OwnQuality) -> dict[str, Any]:
    encoder = EstimateEncoder([])
    estimates = {name: encoder.encode(value) for name, value in vars(quality).items() if value is not None}
    return {**estimates, "sentences": encoder.sentences}


def _decode(snapshot: OwnQualitySnapshot) -> OwnQuality:
    content = snapshot.content
    encoder = EstimateEncoder(content["sentences"])
    gold_rate = encoder.decode(Estimate, content["gold"]) if "gold" in content else None
    return OwnQuality(encoder.decode(Estimate, content["agreement"]), gold_rate)
