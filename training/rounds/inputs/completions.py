"""completions.jsonl: all completions of the project up to the start of the round, by any source."""

from collections.abc import Iterator
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet
from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.export.demonstrations import imitable
from feedback.models import Completion, Demonstration, Project, Prompt, Ranking
from feedback.models.flags import trainable
from training.models import Round
from training.rounds.inputs import needs, rows
from training.rounds.recipes.description import LOGGED_COMPLETIONS, Job, Recipe, Sections

PAGE_SIZE = 1000  # rows of one query


@rows(LOGGED_COMPLETIONS)
def logged_completions(round_: Round, job: Job, counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield the completions, oldest first, and count them. Later ones are left out: they would change a resumed round.

    If the reward compares with reference answers, only completions of prompts that have some.
    """
    counts |= {"completions": 0, "held_out_completions": 0}
    written = usable(round_.project).filter(created_at__lte=round_.created_at)
    stored = written.select_related("prompt").order_by("pk")
    if round_.compares_with_references:
        stored = stored.exclude(prompt__references=[])
    for completion in stored.iterator(chunk_size=PAGE_SIZE):
        prompt = completion.prompt
        counts["held_out_completions" if prompt.split == Prompt.Split.HELD_OUT else "completions"] += 1
        row = {
            "prompt_id": prompt.pk,
            "messages": prompt.messages,
            "split": prompt.split,
            "completion": completion.text,
            **({"turns": completion.turns} if completion.turns else {}),
            "finished": completion.sampling.get("ended", True),
            **({"truncated": True} if completion.sampling.get("truncated") else {}),
        }
        yield {**row, "references": prompt.references} if prompt.references else row


def usable(project: Project) -> QuerySet[Completion]:
    """Return the project's completions that may be learned from.

    Withdrawn, discarded and flagged demonstrations are left out. So are the completions of a comparison with a ranking
    whose flags mean "not for training".
    """
    left_out = Demonstration.objects.filter(completion=OuterRef("pk")).exclude(pk__in=imitable(project).values("pk"))
    flagged = Ranking.objects.filter(comparison__items__completion=OuterRef("pk"), is_live=True)
    return Completion.objects.filter(prompt__project=project).exclude(
        Exists(left_out) | Exists(flagged.exclude(trainable(project)))
    )


@needs(LOGGED_COMPLETIONS)
def check_completions(project: Project, recipe: Recipe, settings: Sections) -> None:
    """Raise Invalid if there is no completion of a training prompt that the reward terms can score."""
    stored = usable(project).filter(prompt__split=Prompt.Split.TRAIN)
    if not stored.exists():
        raise Invalid(_("There are no completions of training prompts to learn from yet: add or sample some first."))
    terms = recipe.comparing_terms(settings)
    if terms and not stored.exclude(prompt__references=[]).exists():
        raise Invalid(
            _('No training prompt has reference answers, which the reward term "%(term)s" needs: add some.')
            % {"term": terms[0]}
        )
