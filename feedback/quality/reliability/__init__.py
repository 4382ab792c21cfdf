"""How far each annotator can be trusted: estimates, kept with the moment they are of.

A report is of the record up to a place in it (`until`, a sequence), so that it says the same whenever it is made, and
what used it can be made again: `of_moment` makes it if need be, `latest` only looks. The mathematics is in `crowd`.
"""

from collections import Counter

from django.db import transaction
from django.db.models import Max
from django.utils.translation import gettext as _

from feedback.errors import NotFound
from feedback.export import ranking_record
from feedback.models import Lease, Project, Ranking, Reliability, ReliabilityReport
from feedback.quality.reliability.judged import Judged

LEAST_NEW = 20  # rankings, for another report
GROWTH = 0.05  # of the record, for another report: so all reports together cost as much as twenty of the last


def of_moment(project: Project, until: int) -> ReliabilityReport:
    """The report of the record up to `until`, made and kept if nobody has asked before. Takes seconds, so not for a
    web process; outside of any transaction."""
    kept = ReliabilityReport.objects.filter(project=project, until=until).first()
    return kept or _keep(project, until, judged_until(project, until))


def latest(project: Project) -> ReliabilityReport | None:
    return ReliabilityReport.objects.filter(project=project).order_by("-until").first()


def as_of(project: Project, until: int) -> ReliabilityReport:
    """The kept report of that very moment. Raises NotFound."""
    kept = ReliabilityReport.objects.filter(project=project, until=until).first()
    if kept is None:
        raise NotFound(
            _("No reliability is kept as of %(until)s: ask for the latest, which says of when it is.")
            % {"until": until}
        )
    return kept


def values(report: ReliabilityReport) -> dict[int, float]:
    """By user id, as `export.rankings` takes them."""
    return dict(report.annotators.values_list("annotator_id", "value"))


def refresh() -> int:
    """Make a report in each project whose record has grown enough since the last. Returns how many."""
    return sum(_refresh(project) for project in Project.objects.filter(archived_at__isnull=True))


def _refresh(project: Project) -> bool:
    last = ReliabilityReport.objects.filter(project=project).aggregate(last=Max("until"))["last"] or 0
    until = ranking_record.sequence_cutoff(project)
    is_due = until - last >= max(LEAST_NEW, GROWTH * last)
    if is_due:
        of_moment(project, until)
    return is_due


def judged_until(project: Project, until: int) -> list[Judged]:
    """What people said up to then, gold included: what a reviewer overruled too, which is an opinion, but not what was
    discarded or returned, and not what reviewers decided themselves, who have seen the others' rankings."""
    standings = (Ranking.Standing.COUNTS, Ranking.Standing.OVERRULED)
    said = ranking_record.last_revisions(project, until).filter(standing__in=standings)
    rows = said.exclude(reason=Lease.Reason.ADJUDICATION)
    fields = rows.values_list("comparison_id", "annotator_id", "ranks", "comparison__gold_ranks")
    return [Judged(*row) for row in fields.iterator(chunk_size=5000)]


def _keep(project: Project, until: int, judged: list[Judged]) -> ReliabilityReport:
    from feedback.quality.reliability import crowd_bt, votes

    voted = votes.votes_of(judged)
    fitted = crowd_bt.fit(voted)
    shared, gold = _counts(judged)
    with transaction.atomic():
        report, is_new = ReliabilityReport.objects.get_or_create(
            project=project, until=until, defaults={"spread": fitted.spread}
        )
        if is_new:  # otherwise somebody else was as quick, with the same result
            intervals = zip(fitted.reliability.tolist(), fitted.low.tolist(), fitted.high.tolist(), strict=True)
            Reliability.objects.bulk_create(
                Reliability(
                    report=report, annotator_id=who, value=value, low=low, high=high, shared=shared[who], gold=gold[who]
                )
                for who, (value, low, high) in zip(voted.annotators, intervals, strict=True)
            )
    return report


def _counts(judged: list[Judged]) -> tuple[Counter[int], Counter[int]]:
    """By user id: comparisons that others ranked too, and gold."""
    people = Counter(each.comparison_id for each in judged)
    gold = Counter(each.annotator_id for each in judged if each.gold_ranks is not None)
    several = (each for each in judged if each.gold_ranks is None and people[each.comparison_id] > 1)
    return Counter(each.annotator_id for each in several), gold
