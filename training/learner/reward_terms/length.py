"""The reward term length."""

from typing import Annotated

from training.learner.reward_terms import Scorer, TermContext, term


@term
def length(context: TermContext, target: Annotated[float, {"above": 0}]) -> Scorer:
    """Return −|tokens − target| / target: 0 at `target` tokens, −1 for an empty text."""
    return lambda answers: [-abs(context.count_tokens(answer.text) - target) / target for answer in answers]
