"""Reports of the annotators' reliability, stored with the position in the record that they describe.

A report covers the record up to a sequence number (`until`), so its numbers do not depend on when it is made, and
anything that used it can be reproduced. `report_at` makes a missing report; `latest` and `stored_report_at` only read.
The model is in `crowd_bt`.
"""

from collections import Counter

from django.db import transaction
from django.db.models import Max
from django.utils.translation import gettext as _

from feedback.errors import NotFound
from feedback.export import ranking_record
from feedback.models import Project, Ranking, Reliability, ReliabilityReport
from feedback.models.rankings import WITHOUT_LEASE
from feedback.quality.ranking_rows import AGREEMENT_COLUMNS, RankingRow, read_rankings

MIN_NEW_RANKINGS = 20  # before the next report
MIN_GROWTH = 0.05  # of the record before the next report: all reports together cost as much as twenty of the last


def report_at(project: Project, until: int) -> ReliabilityReport:
    """Return the report of the record up to `until`; estimate and store it if there is none.

    The estimate takes seconds: do not call this in a web process or inside a transaction.
    """
    stored = ReliabilityReport.objects.filter(project=project, until=until).first()
    return stored or _estimate(project, until, rankings_until(project, until))


def latest(project: Project, until: int | None = None) -> ReliabilityReport | None:
    """Return the newest report, or the newest of the record up to a sequence."""
    reports = ReliabilityReport.objects.filter(project=project)
    if until is not None:
        reports = reports.filter(until__lte=until)
    return reports.order_by("-until").first()


def stored_report_at(project: Project, until: int) -> ReliabilityReport:
    """Return the stored report of the record up to exactly `until`. Raises NotFound if there is none."""
    stored = ReliabilityReport.objects.filter(project=project, until=until).first()
    if stored is None:
        raise NotFound(
            _("There is no reliability report as of %(until)s: leave this number out to get the latest report.")
            % {"until": until}
        )
    return stored


def values(report: ReliabilityReport) -> dict[int, float]:
    """Return the reliabilities by user id, as the exports take them."""
    return dict(report.annotators.values_list("annotator_id", "value"))


def refresh() -> int:
    """Make a report in each project whose record has grown enough since the last one. Return their number."""
    return sum(_refresh(project) for project in Project.objects.filter(archived_at__isnull=True))


def _refresh(project: Project) -> bool:
    last = ReliabilityReport.objects.filter(project=project).aggregate(last=Max("until"))["last"] or 0
    until = ranking_record.sequence_cutoff(project)
    is_due = until - last >= max(MIN_NEW_RANKINGS, MIN_GROWTH * last)
    if is_due:
        report_at(project, until)
    return is_due


def rankings_until(project: Project, until: int) -> list[RankingRow]:
    """Return the annotators' own rankings as of `until`, gold included.

    Rankings that an adjudication overruled are included, because they are independent judgements. Adjudications are
    not, because their reviewers have seen the other rankings. Discarded, returned and withdrawn rankings and pairs of
    demonstrations are left out, too.
    """
    standings = (Ranking.Standing.COUNTS, Ranking.Standing.OVERRULED)
    valid = ranking_record.last_revisions(project, until).filter(standing__in=standings)
    return read_rankings(valid.exclude(reason__in=WITHOUT_LEASE), AGREEMENT_COLUMNS)


def _estimate(project: Project, until: int, rankings: list[RankingRow]) -> ReliabilityReport:
    from feedback.quality.reliability import crowd_bt, votes  # imports numpy, which most processes never need

    votes_of_all = votes.votes_of(rankings)
    fit = crowd_bt.fit(votes_of_all)
    shared, gold = _counts(rankings)
    with transaction.atomic():
        report, is_new = ReliabilityReport.objects.get_or_create(
            project=project, until=until, defaults={"spread": fit.spread}
        )
        if is_new:  # otherwise another process was faster, with the same result
            estimates = zip(fit.reliability.tolist(), fit.low.tolist(), fit.high.tolist(), strict=True)
            Reliability.objects.bulk_create(
                Reliability(
                    report=report,
                    annotator_id=user_id,
                    value=value,
                    low=low,
                    high=high,
                    shared=shared[user_id],
                    gold=gold[user_id],
                )
                for user_id, (value, low, high) in zip(votes_of_all.annotators, estimates, strict=True)
            )
    return report


def _counts(rankings: list[RankingRow]) -> tuple[Counter[int], Counter[int]]:
    """Return the numbers of rankings of comparisons that others ranked too, and of gold, by user id."""
    annotators = Counter(row.comparison_id for row in rankings)
    gold = Counter(row.annotator_id for row in rankings if row.gold_ranks is not None)
    shared = (row for row in rankings if row.gold_ranks is None and annotators[row.comparison_id] > 1)
    return Counter(row.annotator_id for row in shared), gold
