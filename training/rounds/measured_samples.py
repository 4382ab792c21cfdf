"""Samples that figures of a round are means of: reward, log-probs and KL of single completions."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from django.db import transaction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _

from feedback.errors import NotFound
from feedback.export.files import JSON_LINES, encoded
from feedback.export.responses import download
from feedback.reports.preference_export import etag_of
from training.learner.runtime.jobdir import MEASURED_SAMPLES, JobDirectory
from training.models import MeasuredSamples, Round
from training.rounds.lifecycle import Claim, check_claim

MAX_SAMPLES = 100_000  # of a job; the samples of a job with more are not stored


def record(claim: Claim, job: str, directory: Path) -> None:
    """Store the samples of a finished job, in place of earlier ones. Raise ClaimLost."""
    if not (directory / MEASURED_SAMPLES).is_file():
        return
    rows = list(islice(JobDirectory(directory, is_writer=False).rows(MEASURED_SAMPLES), MAX_SAMPLES + 1))
    if len(rows) > MAX_SAMPLES:
        return
    with transaction.atomic():
        check_claim(claim)
        MeasuredSamples.objects.filter(round=claim.round_id, job=job).delete()
        MeasuredSamples.objects.create(round_id=claim.round_id, job=job, rows=rows)


def as_response(request: HttpRequest, round_: Round) -> HttpResponseBase:
    """Answer with the samples of a round as JSON Lines. Raise NotFound if there are none."""
    stored = list(round_.measured_samples.values_list("pk", flat=True))
    if not stored:
        raise NotFound(_("This round has no measured samples."))
    content, name = encoded(measured_samples(round_), "jsonl", None), f"round-{round_.number}-measured-samples.jsonl"
    return download(request, content, round_.project, name, JSON_LINES, etag_of("measured-samples", *stored))


def measured_samples(round_: Round) -> Iterator[dict[str, Any]]:
    """Yield the stored samples of all jobs of the round."""
    for stored in round_.measured_samples.order_by("pk"):
        for row in stored.rows:
            yield {"job": stored.job, **row}
