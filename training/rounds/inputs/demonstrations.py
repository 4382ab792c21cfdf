"""demonstrations.jsonl: demonstrations that were stored before the start of the round."""

from collections.abc import Iterator
from typing import Any

from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.export.demonstrations import demonstrations, imitable
from feedback.models import Project, Prompt
from feedback.models.prompts import Demonstrations
from training.models import Round
from training.rounds.inputs import needs, rows
from training.rounds.recipes.description import DEMONSTRATIONS, Job, Recipe, Sections


@rows(DEMONSTRATIONS)
def demonstration_rows(round_: Round, job: Job, counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield the demonstrations and count them. Later ones are left out: they would change a resumed round."""
    counts |= {"demonstrations": 0, "held_out_demonstrations": 0}
    for row in demonstrations(round_.project, until=round_.created_at):
        counts["held_out_demonstrations" if row["split"] == Prompt.Split.HELD_OUT else "demonstrations"] += 1
        yield row


@needs(DEMONSTRATIONS)
def check_demonstrations(project: Project, recipe: Recipe, settings: Sections) -> None:
    """Raise Invalid if there is no demonstration to learn from."""
    if trainable_demonstrations(project).exists():
        return
    if imitable(project).exists():
        raise Invalid(
            _("All demonstrations answer held-out prompts, which are used for evaluation only: write or import others.")
        )
    raise Invalid(_("There are no demonstrations to imitate yet: write or import some first."))


def trainable_demonstrations(project: Project) -> Demonstrations:
    """Return the demonstrations that a round could learn from now. Those of held-out prompts only measure."""
    return imitable(project).filter(completion__prompt__split=Prompt.Split.TRAIN)
