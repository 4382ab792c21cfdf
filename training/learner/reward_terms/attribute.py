"""The reward term attribute."""

from training.learner.reward_terms import Scorer, TermContext, reward_model_term


@reward_model_term
def attribute(context: TermContext, of: str) -> Scorer:
    """Return the rating of the attribute `of` that the reward model predicts, with mean 0 and deviation 1 as its score.

    Raises BadInput if the reward model has no such attribute.
    """
    return context.attribute_scorer(of)
