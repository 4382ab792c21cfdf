"""demonstrations.jsonl: what people wrote to be imitated, up to the start of the round."""

from collections.abc import Iterator
from typing import Any

from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.export.demonstrations import demonstrations, imitable
from feedback.models import Project
from training.models import Round
from training.rounds.inputs import needs, rows
from training.rounds.recipes.description import DEMONSTRATIONS, Job, Recipe, Sections


@rows(DEMONSTRATIONS)
def demonstration_rows(round_: Round, job: Job, counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield the demonstrations and count them. Later ones are left out: they would change a resumed round."""
    counts["demonstrations"] = 0
    for row in demonstrations(round_.project, until=round_.created_at):
        counts["demonstrations"] += 1
        yield row


@needs(DEMONSTRATIONS)
def check_demonstrations(project: Project, recipe: Recipe, settings: Sections) -> None:
    """Raise Invalid if there is no demonstration."""
    if not imitable(project).exists():
        raise Invalid(_("There are no demonstrations to imitate yet: write or import some first."))
