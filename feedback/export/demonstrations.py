"""Demonstrations for supervised fine-tuning."""

from collections.abc import Iterator

from feedback.export.ranking_record import PAGE_SIZE, Row
from feedback.models import Demonstration, Project


def demonstrations(project: Project) -> Iterator[Row]:
    """Yield what people wrote to be imitated: `messages, completion, prompt_id, split`, in the order of storage."""
    stored = Demonstration.objects.filter(completion__prompt__project=project).order_by("pk")
    fields = stored.values_list(
        "completion__prompt__messages", "completion__text", "completion__prompt_id", "completion__prompt__split"
    )
    for messages, text, prompt_id, split in fields.iterator(chunk_size=PAGE_SIZE):
        yield {"messages": messages, "completion": text, "prompt_id": prompt_id, "split": split}
