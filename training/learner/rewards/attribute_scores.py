"""Scores of answers by the attribute heads of a reward model, for the reward term attribute."""

from collections.abc import Sequence

from torch import Tensor

from training.learner.models.loading import computing_in
from training.learner.models.packing import PromptGroup
from training.learner.models.reward_model import attribute_predictions, load_reward_model
from training.learner.reward_terms import Answer, Scorer
from training.learner.rewards.reading import Scoring, max_lengths_of, token_reader
from training.learner.runtime.config import PpoConfig, Sampling
from training.learner.runtime.jobdir import BadInput
from training.learner.sampling.sampler import check_positions


class AttributeScores:
    """Scorers of attributes that share the forward pass over the same answers."""

    def __init__(self, settings: PpoConfig | Sampling, scoring: Scoring | None) -> None:
        """Keep the settings. scoring: their reward model; None: it is loaded when the first scorer needs it."""
        self.settings = settings
        self.scoring = scoring
        self.last: tuple[list[Answer], Tensor] | None = None

    def scorer(self, name: str) -> Scorer:
        """Return the scorer of an attribute. Raises BadInput, with the attributes there are, for an unknown one."""
        self.scoring = self.scoring or load_reward_model(self.settings.reward_model, self.settings.dtype)
        model, tokenizer = self.scoring
        heads = model.attributes
        if heads is None:
            raise BadInput(f"the reward model has no attribute {name!r}: it was trained without ratings")
        index, tokens = heads.index(name), token_reader(model, tokenizer, max_lengths_of(model, self.settings))

        def scorer(answers: Sequence[Answer]) -> Sequence[float]:
            if self.last is None or self.last[0] != list(answers):
                sequences = [tokens(answer) for answer in answers]
                check_positions(model.network, sequences, 0, "the reward model")
                groups = [PromptGroup((), (tuple(sequence),)) for sequence in sequences]
                with computing_in(self.settings.dtype):
                    predictions = attribute_predictions(model, groups, self.settings.micro_batch_tokens)
                self.last = list(answers), heads.normalised(predictions.to(heads.scale.device)).cpu()
            return self.last[1][:, index].tolist()

        return scorer
