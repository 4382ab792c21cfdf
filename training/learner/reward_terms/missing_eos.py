"""The reward term missing_eos."""

from training.learner.reward_terms import Scorer, TermContext, term


@term
def missing_eos(context: TermContext) -> Scorer:
    """Return −1 for a truncated completion, else 0. Unlike missing_eos_penalty it is clipped with the other terms."""
    return lambda answers: [float(answer.finished) - 1.0 for answer in answers]
