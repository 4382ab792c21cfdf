"""What models say of completion tokens: a policy their log-probabilities, a critic values of where they were decided.

A critic is a model of its own (InstructGPT, Ouyang et al. 2022, appendix C.4); or a head on the policy's trunk, since
one pass then says both (Ziegler et al. 2019, §2.1); or a head on the reward model's trunk, which does not learn. What
such a trunk makes of an episode stays the same in all updates, so it is read once, in the pass that scores the episode,
and the updates of that critic are a linear regression on states at hand.
"""

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.learner.models.episodes import Episodes, lay_out
from training.learner.models.generic_forward import logits_and_states_of_rows, path_of
from training.learner.models.loading import value_head
from training.learner.models.log_probs import TokenScores, token_scores
from training.learner.models.lora import Role
from training.learner.models.packed_attention import Row, forward_flat
from training.learner.models.partial_forward import is_known, states_at
from training.learner.models.reward_model import RewardModel


class ValueHead(nn.Module):
    """A critic on a policy's trunk. Its values are 0 at first."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.score = nn.Linear(policy.config.get_text_config().hidden_size, 1).to(policy.device)
        for parameter in self.score.parameters():
            nn.init.zeros_(parameter)


class RewardHead(nn.Module):
    """A critic on a reward model's trunk, which stays as it is. Its values are the normalised scores at first."""

    def __init__(self, reward_model: RewardModel) -> None:
        super().__init__()
        self._reward_model = [reward_model]  # in a list, so that it is no part of this module
        self.score = value_head(reward_model.head, reward_model.network.config)

    @property
    def trunk(self) -> Any:
        """The model that it is a head on."""
        return self._reward_model[0].network

    def read(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """The states [C, E] that completion tokens were decided in, and the normalised scores [N] of the episodes."""
        (model,) = self._reward_model
        batch = lay_out(episodes, model.network.device)
        states = states_at(model.network, batch, torch.cat([batch.decisions, batch.last]))
        decided, last = states.split([len(batch.decisions), len(batch.last)])
        return decided, model.normalised(model.raw_scores(last))

    def values(self, states: Tensor) -> Tensor:
        """[C] float32 from states [C, E]. Like scores they are computed in float32 always."""
        with torch.autocast(states.device.type, enabled=False):
            return cast(Tensor, self.score(states.float())[:, 0])


def has_own_passes(critic: Any) -> bool:
    """Whether the critic is a model, and neither a head on another's trunk nor none."""
    return critic is not None and not isinstance(critic, ValueHead | RewardHead)


class Assessment(NamedTuple):
    """Of every completion token, all completions end to end; float32."""

    log_probs: Tensor  # [C], nats
    entropy: Tensor  # [C], nats, of the distribution the token was drawn from; zeros if not asked for
    values: Tensor  # [C], of the state it was decided in; without a critic zeros


def assess(
    policy: Any, critic: Any, episodes: Episodes, temperature: float = 1.0, with_entropy: bool = False
) -> Assessment:
    """What a policy says under softmax(logits / temperature), and a critic: a model, a ValueHead on it, or None."""
    batch = lay_out(episodes, policy.device)
    if isinstance(critic, ValueHead):
        scores, states = scores_and_states_at(policy, batch, batch.decisions, batch.decided, temperature, with_entropy)
        return Assessment(*scores, critic.score(states)[:, 0].float())
    scores = scores_at(policy, batch, batch.decisions, batch.decided, temperature, with_entropy)
    if critic is None:
        return Assessment(*scores, torch.zeros_like(scores.log_probs))
    return Assessment(*scores, critic.score(states_at(critic, batch, batch.decisions))[:, 0].float())


def score_tokens(policy: Any, episodes: Episodes, temperature: float = 1.0, with_entropy: bool = False) -> TokenScores:
    """Log-probabilities of completion tokens under softmax(logits / temperature). Entropy is zeros if not asked for."""
    return TokenScores(*assess(policy, None, episodes, temperature, with_entropy)[:2])


def score_states(critic: Any, episodes: Episodes) -> Tensor:
    """[C] float32: the values of a critic that is a model of its own."""
    batch = lay_out(episodes, critic.device)
    return cast(Tensor, critic.score(states_at(critic, batch, batch.decisions))[:, 0].float())


def scores_at(
    policy: Any, batch: Row, places: Tensor, tokens: Tensor, temperature: float = 1.0, with_entropy: bool = False
) -> TokenScores:
    """Of tokens [C] after these places [C] of the batch's row."""
    head = plain_head(policy)
    if head is not None:
        return token_scores(states_at(policy, batch, places), head, tokens, temperature, with_entropy)
    return scores_of(logits_at(policy, batch, places), tokens, temperature, with_entropy)


def scores_and_states_at(
    policy: Any, batch: Row, places: Tensor, tokens: Tensor, temperature: float, with_entropy: bool
) -> tuple[TokenScores, Tensor]:
    """The same, and the last hidden states [C, E] at the places."""
    head = plain_head(policy)
    if head is not None:
        states = states_at(policy, batch, places)
        return token_scores(states, head, tokens, temperature, with_entropy), states
    path = path_of(policy)
    if path.scoring != "packed":
        logits, states = logits_and_states_of_rows(policy, batch, places, path.scoring)
        return scores_of(logits, tokens, temperature, with_entropy), states
    output = forward_flat(policy, batch, logits_to_keep=places, output_hidden_states=True)
    return scores_of(output.logits[0], tokens, temperature, with_entropy), output.hidden_states[-1][0, places]


def scores_of(logits: Tensor, tokens: Tensor, temperature: float, with_entropy: bool) -> TokenScores:
    """Of tokens [C] by logits [C, V], by the formulas."""
    logits = logits.float() / temperature
    log_probs = -F.cross_entropy(logits, tokens, reduction="none")
    if not with_entropy:
        return TokenScores(log_probs, torch.zeros_like(log_probs))
    return TokenScores(log_probs, logits.logsumexp(-1) - (logits.softmax(-1) * logits).sum(-1))


def logits_at(policy: Any, batch: Row, places: Tensor) -> Tensor:
    """[C, V]: the policy's logits at these places [C] of the batch's row."""
    path = path_of(policy)
    if path.scoring != "packed":
        return logits_and_states_of_rows(policy, batch, places, path.scoring)[0]
    head = plain_head(policy)
    if head is None:
        return cast(Tensor, forward_flat(policy, batch, logits_to_keep=places).logits[0])
    return F.linear(states_at(policy, batch, places), head)


def plain_head(policy: Any) -> Tensor | None:
    """[V, E]: what makes logits of last hidden states, where that is all there is to it; else None."""
    model = policy.base.model if isinstance(policy, Role) else policy
    if path_of(policy).scoring != "packed" or not is_known(model.base_model):
        return None
    return cast(Tensor, model.lm_head.weight) if model.lm_head.bias is None else None
