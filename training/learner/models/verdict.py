"""Verdict on a model's folder: exact and fast, exact by the generic path, or refused with the reason."""

from training.learner.models.generic_forward import path_of
from training.learner.models.loading import load_policy
from training.learner.runtime.jobdir import BadInput


def verdict_on(folder: str) -> dict[str, str]:
    """Return the verdict on a language model's folder that `training.learner.check` prints."""
    try:
        model, _ = load_policy(folder)
    except BadInput as error:
        return {"verdict": "refused", "scoring": "", "decoding": "", "why": str(error)}
    return {"verdict": "fast" if path_of(model).is_fast else "generic"} | path_of(model)._asdict()
