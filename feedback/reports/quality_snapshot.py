"""Agreement, gold pass rates and signs of careless work in a project, over all of its live rankings, counted once.

Every page and API answer about quality reads the same snapshot, so no two of them contradict each other. A snapshot is
current until the record grows: each ranking, revision and reviewer's decision is a further row of it. Whoever reads
then counts again, as long as the record has at most COUNTED_AT_ONCE rows. Of a longer one the reader gets the last
snapshot at once, with its time (`as_of`), and the worker counts again (`refresh`).
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from time import monotonic
from typing import Any

from django.db import connection
from django.utils import timezone, translation
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from feedback.models import Project, QualitySnapshot
from feedback.quality import agreement, checks
from feedback.quality.agreement import Agreed, Agreement, Estimate
from feedback.quality.checks import Sign, Signs
from feedback.queue import gold

COUNTED_AT_ONCE = 10_000  # rows of the record: 0.4 s of CPU
SHARE_OF_TIME = 0.05  # of the worker's time at most that counting one project takes

# One statement: of two, rankings numbered in between would be missed.
RECORD_LENGTH = """
    SELECT (SELECT coalesce(max(sequence), 0) FROM feedback_ranking WHERE project_id = %(project)s)
        + (SELECT count(*) FROM feedback_ranking WHERE project_id = %(project)s AND sequence IS NULL)
"""


@dataclass(frozen=True)
class Quality:
    """How well the people of a project rank."""

    agreement: Agreement
    gold: dict[int, Estimate]  # pass rates by user id
    signs: dict[int, Signs]  # by user id, of everybody with a live ranking
    as_of: datetime
    is_current: bool  # nothing was said or decided since `as_of`


def of(project: Project, *, by_two: bool = False) -> Quality:
    """Return the quality of a project's work, current unless its record is long.

    `by_two`: with the agreement of each two people, which is empty otherwise. The first reader of a long record waits
    until it is counted.
    """
    now, length = timezone.now(), record_length(project)
    snapshots = QualitySnapshot.objects.filter(project=project)
    snapshot = (snapshots if by_two else snapshots.defer("by_two")).first()
    is_current = snapshot is not None and _is_of(snapshot, project, length)
    if snapshot is None or (not is_current and length <= COUNTED_AT_ONCE):
        snapshot, is_current = count(project), True
    return _decoded(snapshot, now if is_current else snapshot.counted_at, is_current, by_two)


def count(project: Project) -> QualitySnapshot:
    """Count a project's quality and keep it. Takes about 7 s of CPU for 200,000 rankings."""
    began, now = monotonic(), timezone.now()
    # Read before anything is counted: what is said meanwhile makes the snapshot outdated, never the other way round.
    counted_from = {"record_length": record_length(project), "qualification_percent": project.qualification_percent}
    found = _encoded(agreement.measure(project), gold.pass_rates(project), checks.signs_of(project))
    values = {**counted_from, **found, "counted_at": now, "seconds": monotonic() - began}
    snapshot = QualitySnapshot(project=project, **values)
    QualitySnapshot.objects.bulk_create(
        [snapshot], update_conflicts=True, update_fields=list(values), unique_fields=["project"]
    )
    return snapshot


def refresh() -> int:
    """Count again what readers do not count themselves and has changed. Returns in how many projects."""
    return sum(_refresh(project) for project in Project.objects.all())


def record_length(project: Project) -> int:
    """Return how many rankings the record has, every revision counted, off two indexes: it never shrinks."""
    with connection.cursor() as cursor:
        cursor.execute(RECORD_LENGTH, {"project": project.pk})
        return cursor.fetchone()[0]


def _refresh(project: Project) -> bool:
    length = record_length(project)
    if length <= COUNTED_AT_ONCE:
        return False
    snapshot = QualitySnapshot.objects.filter(project=project).defer("content", "by_two").first()
    if snapshot is not None:
        rest = timedelta(seconds=snapshot.seconds / SHARE_OF_TIME)
        if _is_of(snapshot, project, length) or timezone.now() - snapshot.counted_at < rest:
            return False
    count(project)
    return True


def _is_of(snapshot: QualitySnapshot, project: Project, length: int) -> bool:
    counted_from = (snapshot.record_length, snapshot.qualification_percent)
    return counted_from == (length, project.qualification_percent)


class _Sentences:
    """Sentences by number. They are kept untranslated, so that each reader gets them in their own language."""

    def __init__(self, known: list[str]) -> None:
        self.known = known

    def number(self, told: str | Promise) -> int:
        with translation.override(None):
            source = str(told)
        if source not in self.known:
            self.known.append(source)
        return self.known.index(source)

    def pack(self, found: Estimate | Sign) -> list[Any]:
        return [self.number(value) if name == "told" else value for name, value in vars(found).items()]

    def pack_agreed(self, found: Agreed) -> list[list[Any]]:
        return [self.pack(found.pairwise), self.pack(found.alpha)]

    def unpack(self, kind: type[Any], packed: list[Any]) -> Any:
        values = dict(zip(kind.__dataclass_fields__, packed, strict=True))
        return kind(**values | {"told": gettext_lazy(self.known[values["told"]])})

    def unpack_agreed(self, packed: list[list[Any]]) -> Agreed:
        return Agreed(*(self.unpack(Estimate, each) for each in packed))


def _encoded(measured: Agreement, gold_rates: dict[int, Estimate], signs: dict[int, Signs]) -> dict[str, Any]:
    """The two JSON columns of a snapshot."""
    sentences = _Sentences([])
    by_two = [[*two, sentences.pack_agreed(agreed)] for two, agreed in measured.by_two.items()]
    content = {
        "overall": sentences.pack_agreed(measured.overall),
        "by_annotator": [[pk, sentences.pack_agreed(agreed)] for pk, agreed in measured.by_annotator.items()],
        "by_week": [[day.isoformat(), sentences.pack_agreed(agreed)] for day, agreed in measured.by_week.items()],
        "gold": [[pk, sentences.pack(rate)] for pk, rate in gold_rates.items()],
        "signs": [[pk, [sentences.pack(sign) for sign in vars(own).values()]] for pk, own in signs.items()],
        "sentences": sentences.known,
    }
    return {"content": content, "by_two": by_two}


def _decoded(snapshot: QualitySnapshot, as_of: datetime, is_current: bool, by_two: bool) -> Quality:
    content = snapshot.content
    sentences = _Sentences(content["sentences"])
    measured = Agreement(
        sentences.unpack_agreed(content["overall"]),
        {pk: sentences.unpack_agreed(agreed) for pk, agreed in content["by_annotator"]},
        {(one, other): sentences.unpack_agreed(agreed) for one, other, agreed in snapshot.by_two} if by_two else {},
        {date.fromisoformat(day): sentences.unpack_agreed(agreed) for day, agreed in content["by_week"]},
    )
    return Quality(
        measured,
        {pk: sentences.unpack(Estimate, rate) for pk, rate in content["gold"]},
        {pk: Signs(*(sentences.unpack(Sign, sign) for sign in own)) for pk, own in content["signs"]},
        as_of,
        is_current,
    )
