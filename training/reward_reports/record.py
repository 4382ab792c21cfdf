"""Storing of the report on a reward model, when its program has ended."""

import math
from collections.abc import Sequence
from pathlib import Path

from django.db import transaction

from feedback import imports
from feedback.models import Ranking
from feedback.quality.ratings.slices import read_prompts
from training.models import RewardReport, Round, SurprisingRanking
from training.reward_reports import held_out
from training.reward_reports.figures import figures_of
from training.reward_reports.held_out import Surprise
from training.rounds.lifecycle import Claim, check_claim

LISTED_SHARE = 0.25  # of the rankings with a surprise
MAX_LISTED = 5000


def record(claim: Claim, directory: Path) -> None:
    """Store the report of a finished job of the program reward, in place of an earlier one. Raise ClaimLost.

    The surprising rankings of the project's earlier reports are deleted. Nothing is stored for a job of an earlier
    version, which has not scored its rankings.
    """
    if not (directory / held_out.SCORED).is_file():
        return
    project = Round.objects.select_related("project").get(pk=claim.round_id).project
    read, surprises = held_out.read(directory)
    figures = figures_of(read, read_prompts(project, (row["prompt_id"] for row in read.rankings)))
    with transaction.atomic():
        check_claim(claim)
        imports.block_undo(project)  # would delete rankings of the list
        RewardReport.objects.filter(round=claim.round_id).delete()
        SurprisingRanking.objects.filter(report__round__project=project).delete()
        report = RewardReport.objects.create(round_id=claim.round_id, figures=figures, scored_rankings=len(surprises))
        SurprisingRanking.objects.bulk_create(_listed(report, surprises), batch_size=1000)


def _listed(report: RewardReport, surprises: Sequence[Surprise]) -> list[SurprisingRanking]:
    """Return the rows of the list: the highest surprises above 0, of rankings that are still there."""
    count = min(math.ceil(LISTED_SHARE * len(surprises)), MAX_LISTED)
    contradicted = [one for one in surprises if one.value > 0]
    ordered = sorted(contradicted, key=lambda one: (-one.value, one.ranking_id))[:count]
    wanted = Ranking.objects.filter(pk__in=[one.ranking_id for one in ordered])
    known = set(wanted.values_list("pk", flat=True))
    return [
        SurprisingRanking(report=report, ranking_id=one.ranking_id, place=place, surprise=one.value)
        for place, one in enumerate((one for one in ordered if one.ranking_id in known), 1)
    ]
