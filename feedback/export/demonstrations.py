"""Demonstrations for supervised fine-tuning."""

from collections.abc import Iterator
from datetime import datetime

from django.db.models import Exists, OuterRef

from feedback.export.ranking_record import PAGE_SIZE, Row
from feedback.models import Demonstration, Project, Ranking
from feedback.models.flags import trainable
from feedback.models.prompts import Demonstrations


def demonstrations(project: Project, until: datetime | None = None, *, include_flagged: bool = False) -> Iterator[Row]:
    """Yield the demonstrations as `prompt_id, split, messages, completion`, of an imported dialogue also `turns`.

    Of a dialogue that a person edited, the completion is the last turn, which that person wrote. The turns before it
    belong to the messages. Rows come in the order of storage.

    until: leave out demonstrations that were stored later, such as after the start of a round. Demonstrations that were
    withdrawn by their author or discarded by a reviewer are always left out, flagged ones unless `include_flagged`; see
    `imitable`.
    """
    stored = imitable(project, until, include_flagged=include_flagged).order_by("pk")
    fields = stored.values_list(
        "completion__prompt_id", "completion__prompt__split", "completion__prompt__messages", "completion__text",
        "completion__turns", "completion__author",
    )  # fmt: skip
    for prompt_id, split, messages, text, turns, author in fields.iterator(chunk_size=PAGE_SIZE):
        row = {"prompt_id": prompt_id, "split": split, "messages": messages, "completion": text}
        if turns is not None and author is not None:
            row |= {"messages": [*messages, *turns[:-1]], "completion": turns[-1]["content"]}
        elif turns is not None:
            row["turns"] = turns
        yield row


def imitable(project: Project, until: datetime | None = None, *, include_flagged: bool = False) -> Demonstrations:
    """Return the demonstrations to imitate, of those stored until a moment.

    One is flagged if its author has put a flag that means "not for training" on the comparison at which it was written.
    """
    counting = Demonstration.objects.counting_in(project)
    if until is not None:
        counting = counting.filter(created_at__lte=until)
    if include_flagged:
        return counting
    by_author = Ranking.objects.filter(
        comparison=OuterRef("comparison"), annotator=OuterRef("completion__author"), is_live=True
    )
    return counting.filter(~Exists(by_author.exclude(trainable(project))))
