"""The provenance of a completion: its checkpoint, the round that made the checkpoint, and the reward model."""

from dataclasses import dataclass

from feedback.models import Completion
from training.models import Checkpoint, Round


@dataclass(frozen=True)
class Provenance:
    """The checkpoint and rounds of a completion. All are None for a completion of a person or of an import."""

    checkpoint: Checkpoint | None = None
    made_by: Round | None = None  # the round that made the checkpoint; None: it was imported
    reward_model_of: Round | None = None  # the round that trained the reward model of the checkpoint's training
    written_in: Round | None = None  # the round that wrote the completion


def provenance_of(completion: Completion) -> Provenance:
    """Return the provenance of a completion by its source."""
    checkpoints = Checkpoint.objects.select_related("source", "parent__source", "round", "files_deleted_by")
    checkpoint = checkpoints.filter(source=completion.source_id).first()
    if checkpoint is None:
        return Provenance()
    made_by = getattr(checkpoint, "round", None)
    return Provenance(checkpoint, made_by, _reward_model_of(checkpoint, made_by), _written_in(checkpoint, completion))


def _reward_model_of(checkpoint: Checkpoint, made_by: Round | None) -> Round | None:
    """Return the round that trained the reward model. Every round with a reward model trains its own."""
    return made_by if checkpoint.reward_model_path else None


def _written_in(checkpoint: Checkpoint, completion: Completion) -> Round | None:
    """Return the round that sampled the completion, whose number its sampling parameters have."""
    number = completion.sampling.get("round")
    if not isinstance(number, int) or isinstance(number, bool):
        return None
    return Round.objects.filter(project=checkpoint.project_id, number=number).first()
