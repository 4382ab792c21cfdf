"""Agreement, gold pass rates and quality checks of a project, over all of its live rankings, computed once and stored.

All pages and API answers about quality read the same snapshot, so they cannot contradict each other. A snapshot is
current until the record grows: each ranking, revision and reviewer's decision adds a row to it. If the record has at
most MAX_COUNTED_BY_READER rows, the reader of an outdated snapshot computes a new one. Readers of a longer record get
the last snapshot at once, with its time (`as_of`), and the worker computes a new one (`refresh`).
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from time import monotonic
from typing import Any

from django.db import connection
from django.utils import timezone

from feedback.models import Project, QualitySnapshot, Ranking
from feedback.quality import agreement, checks
from feedback.quality.agreement import Agreement, Estimate
from feedback.quality.checks import CheckResult, CheckResults
from feedback.quality.ranking_rows import read_rankings
from feedback.queue import gold
from feedback.reports.estimate_encoder import EstimateEncoder

MAX_COUNTED_BY_READER = 10_000  # rows of the record: 0.4 s of CPU
MAX_WORKER_SHARE = 0.05  # of the worker's time for the snapshots of one project

# This is one statement, because two would miss rankings that get their sequence number in between.
RECORD_LENGTH = """
    SELECT (SELECT coalesce(max(sequence), 0) FROM feedback_ranking WHERE project_id = %(project)s)
        + (SELECT count(*) FROM feedback_ranking WHERE project_id = %(project)s AND sequence IS NULL)
"""


@dataclass(frozen=True)
class Quality:
    """The quality of the rankings of a project."""

    agreement: Agreement
    gold: dict[int, Estimate]  # pass rates by user id
    checks: dict[int, CheckResults]  # by user id, of everybody with a live ranking
    as_of: datetime
    is_current: bool  # the record has not changed since `as_of`


def get_quality(project: Project, *, by_two: bool = False) -> Quality:
    """Return the quality of a project's work; it is current unless the record is long.

    by_two: include the agreement of every two annotators, which is empty otherwise. The first reader of a long record
    waits until the first snapshot is computed.
    """
    now, length = timezone.now(), record_length(project)
    snapshots = QualitySnapshot.objects.filter(project=project)
    snapshot = (snapshots if by_two else snapshots.defer("by_two")).first()
    is_current = snapshot is not None and _is_current(snapshot, project, length)
    if snapshot is None or (not is_current and length <= MAX_COUNTED_BY_READER):
        snapshot, is_current = take_snapshot(project), True
    return _decode(snapshot, now if is_current else snapshot.counted_at, is_current, by_two)


def take_snapshot(project: Project) -> QualitySnapshot:
    """Compute a project's quality and store it."""
    began, now = monotonic(), timezone.now()
    # The length is read first. A ranking that arrives meanwhile then makes the snapshot outdated; otherwise the
    # snapshot would count as current without that ranking.
    inputs = {"record_length": record_length(project), "qualification_percent": project.qualification_percent}
    rankings = read_rankings(Ranking.objects.live_in(project).order_by("created_at", "id"))
    measured = agreement.measure_rankings(rankings)
    results = checks.check_rankings(rankings, project.qualification_percent / 100)
    encoded = _encode(measured, gold.pass_rates(project), results)
    values = {**inputs, **encoded, "counted_at": now, "seconds": monotonic() - began}
    snapshot = QualitySnapshot(project=project, **values)
    QualitySnapshot.objects.bulk_create(
        [snapshot], update_conflicts=True, update_fields=list(values), unique_fields=["project"]
    )
    return snapshot


def refresh() -> int:
    """Replace the outdated snapshots of long records, which readers do not replace. Return the number of projects."""
    return sum(_refresh(project) for project in Project.objects.all())


def record_length(project: Project) -> int:
    """Return how many rankings the record has, all revisions included; it never decreases. Reads two indexes only."""
    with connection.cursor() as cursor:
        cursor.execute(RECORD_LENGTH, {"project": project.pk})
        return cursor.fetchone()[0]


def _refresh(project: Project) -> bool:
    length = record_length(project)
    if length <= MAX_COUNTED_BY_READER:
        return False
    snapshot = QualitySnapshot.objects.filter(project=project).defer("content", "by_two").first()
    if snapshot is not None:
        pause = timedelta(seconds=snapshot.seconds / MAX_WORKER_SHARE)
        if _is_current(snapshot, project, length) or timezone.now() - snapshot.counted_at < pause:
            return False
    take_snapshot(project)
    return True


def _is_current(snapshot: QualitySnapshot, project: Project, length: int) -> bool:
    inputs = (snapshot.record_length, snapshot.qualification_percent)
    return inputs == (length, project.qualification_percent)


def _encode(
    measured: Agreement, pass_rates: dict[int, Estimate], results: dict[int, CheckResults]
) -> dict[str, dict[str, Any] | list[Any]]:
    """Return the two JSON columns of a snapshot, by name."""
    encoder = EstimateEncoder([])
    measures = encoder.encode_measures
    by_two = [[*two, measures(agreed)] for two, agreed in measured.by_two.items()]
    content = {
        "overall": measures(measured.overall),
        "by_annotator": [[user_id, measures(agreed)] for user_id, agreed in measured.by_annotator.items()],
        "by_week": [[monday.isoformat(), measures(agreed)] for monday, agreed in measured.by_week.items()],
        "gold": [[user_id, encoder.encode(rate)] for user_id, rate in pass_rates.items()],
        "signs": [[user_id, [encoder.encode(one) for one in vars(all_).values()]] for user_id, all_ in results.items()],
        "sentences": encoder.sentences,
    }
    return {"content": content, "by_two": by_two}


def _decode(snapshot: QualitySnapshot, as_of: datetime, is_current: bool, by_two: bool) -> Quality:
    content = snapshot.content
    encoder = EstimateEncoder(content["sentences"])
    measures = encoder.decode_measures
    measured = Agreement(
        measures(content["overall"]),
        {user_id: measures(agreed) for user_id, agreed in content["by_annotator"]},
        {(one, other): measures(agreed) for one, other, agreed in snapshot.by_two} if by_two else {},
        {date.fromisoformat(monday): measures(agreed) for monday, agreed in content["by_week"]},
    )
    return Quality(
        measured,
        {user_id: encoder.decode(Estimate, rate) for user_id, rate in content["gold"]},
        {
            user_id: CheckResults(*(encoder.decode(CheckResult, result) for result in results))
            for user_id, results in content["signs"]
        },
        as_of,
        is_current,
    )
