"""Forward passes over completions: policy log-probs and entropy, critic values at the state before each token.

Three kinds of critic:

- A separate model (InstructGPT, Ouyang et al. 2022, appendix C.4).
- A head on the policy's trunk, computed in the policy's pass (Ziegler et al. 2019, §2.1).
- A head on the reward model's trunk, which is frozen. Its states of an episode are the same in all updates, so they are
  computed once, in the pass that scores the episode; an update of this critic is a linear regression on stored states.
"""

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.learner.models.generic_forward import generic_logits_and_states, path_of
from training.learner.models.gradient_checkpointing import has_checkpoints
from training.learner.models.heads import value_head
from training.learner.models.log_probs import TokenScores, token_scores
from training.learner.models.logits import linear_head, logits_at, logits_reader
from training.learner.models.packed_attention import PackedBatch, forward_packed
from training.learner.models.packing import Episodes, pack_episodes
from training.learner.models.partial_forward import states_at
from training.learner.models.reward_model import RewardModel, Scores

DIVERGENCE_LOGITS = 1 << 22  # logits of each model that `token_divergences` compares at a time, 16 MiB


class PolicyTrunkCritic(nn.Module):
    """Critic that is a head on the policy's trunk. Its values are 0 at first."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.score = nn.Linear(policy.config.get_text_config().hidden_size, 1).to(policy.device)
        for parameter in self.score.parameters():
            nn.init.zeros_(parameter)


class RewardTrunkCritic(nn.Module):
    """Critic that is a head on the reward model's frozen trunk. Its values are the normalised scores at first."""

    def __init__(self, reward_model: RewardModel) -> None:
        super().__init__()
        self._reward_model = [reward_model]  # in a list, so that its parameters are not part of this module
        self.score = value_head(reward_model.head, reward_model.network.config)

    @property
    def trunk(self) -> Any:
        """The model that holds the trunk."""
        return self._reward_model[0].network

    def read(self, episodes: Episodes) -> tuple[Tensor, Scores]:
        """Return the states [C, E] before completion tokens, and the normalised scores of the N episodes."""
        (model,) = self._reward_model
        batch = pack_episodes(episodes, model.network.device)
        states = states_at(model.network, batch, torch.cat([batch.decisions, batch.last]))
        decided, last = states.split([len(batch.decisions), len(batch.last)])
        return decided, model.scores(last)

    def values(self, states: Tensor) -> Tensor:
        """Return values [C] of states [C, E]; always in float32, like scores."""
        with torch.autocast(states.device.type, enabled=False):
            return cast(Tensor, self.score(states.float())[:, 0])


def is_separate_critic(critic: Any) -> bool:
    """Return whether the critic is a model with forward passes of its own."""
    return critic is not None and not isinstance(critic, PolicyTrunkCritic | RewardTrunkCritic)


class TokenOutputs(NamedTuple):
    """Outputs for completion tokens, all completions end to end; float32."""

    log_probs: Tensor  # [C], nats
    entropy: Tensor  # [C], nats, of the distribution that the token was sampled from; zeros if not requested
    values: Tensor  # [C], of the state before the token; zeros without a critic


def compute_token_outputs(
    policy: Any, critic: Any, episodes: Episodes, temperature: float = 1.0, with_entropy: bool = False
) -> TokenOutputs:
    """Return log-probs and entropy under softmax(logits / temperature), and values.

    critic: a separate model, a PolicyTrunkCritic on this policy, or None.
    """
    batch = pack_episodes(episodes, policy.device)
    if isinstance(critic, PolicyTrunkCritic):
        scores, states = scores_and_states_at(policy, batch, batch.decisions, batch.decided, temperature, with_entropy)
        return TokenOutputs(*scores, critic.score(states)[:, 0].float())
    scores = scores_at(policy, batch, batch.decisions, batch.decided, temperature, with_entropy)
    if critic is None:
        return TokenOutputs(*scores, torch.zeros_like(scores.log_probs))
    return TokenOutputs(*scores, critic.score(states_at(critic, batch, batch.decisions))[:, 0].float())


def score_tokens(policy: Any, episodes: Episodes, temperature: float = 1.0, with_entropy: bool = False) -> TokenScores:
    """Return log-probs and entropy of completion tokens under softmax(logits / temperature)."""
    return TokenScores(*compute_token_outputs(policy, None, episodes, temperature, with_entropy)[:2])


def token_divergences(policy: Any, other: Any, episodes: Episodes, temperature: float = 1.0) -> Tensor:
    """Return KL(π‖q) of the distributions that completion tokens have under the policy and another model, [C] in nats.

    Some tokens at a time, since the logits of all could exceed the memory.
    """
    batch = pack_episodes(episodes, policy.device)
    readers = [logits_reader(model, batch, batch.decisions) for model in (policy, other)]
    rows = max(DIVERGENCE_LOGITS // policy.config.get_text_config().vocab_size, 1)
    divergences = []
    for start in range(0, len(batch.decisions), rows):
        ours, theirs = ((read(slice(start, start + rows)).float() / temperature).log_softmax(-1) for read in readers)
        divergences.append(F.kl_div(theirs, ours, reduction="none", log_target=True).sum(-1))
    return torch.cat(divergences)


def completion_log_probs(policy: Any, episodes: Episodes) -> Tensor:
    """Return log π(y|x) of the policy's tokens of every episode, [N] in nats, with the autograd graph."""
    log_probs = score_tokens(policy, episodes).log_probs
    return torch.stack([part.sum() for part in log_probs.split(episodes.policy_lengths())])


def critic_values(critic: Any, episodes: Episodes) -> Tensor:
    """Return the values [C] of a separate critic, float32."""
    batch = pack_episodes(episodes, critic.device)
    return cast(Tensor, critic.score(states_at(critic, batch, batch.decisions))[:, 0].float())


def values_after(policy: Any, critic: Any, episodes: Episodes) -> Tensor:
    """Return the critic's value [N] of the state after the last token of each episode, float32."""
    if isinstance(critic, RewardTrunkCritic):
        batch = pack_episodes(episodes, critic.trunk.device)
        return critic.values(states_at(critic.trunk, batch, batch.last))
    network = policy if isinstance(critic, PolicyTrunkCritic) else critic
    batch = pack_episodes(episodes, network.device)
    return cast(Tensor, critic.score(states_at(network, batch, batch.last))[:, 0].float())


def scores_at(
    policy: Any,
    batch: PackedBatch,
    indices: Tensor,
    tokens: Tensor,
    temperature: float = 1.0,
    with_entropy: bool = False,
) -> TokenScores:
    """Return the scores of tokens [C] that follow these indices [C] of the batch's row."""
    head = linear_head(policy)
    if head is not None:
        states = states_at(policy, batch, indices)
        return token_scores(states, head, tokens, temperature, with_entropy, not has_checkpoints(policy))
    return scores_from_logits(logits_at(policy, batch, indices), tokens, temperature, with_entropy)


def scores_and_states_at(
    policy: Any, batch: PackedBatch, indices: Tensor, tokens: Tensor, temperature: float, with_entropy: bool
) -> tuple[TokenScores, Tensor]:
    """Return the scores as `scores_at` does, and the last hidden states [C, E] at the indices."""
    head = linear_head(policy)
    if head is not None:
        states = states_at(policy, batch, indices)
        return token_scores(states, head, tokens, temperature, with_entropy, not has_checkpoints(policy)), states
    path = path_of(policy)
    if path.scoring != "packed":
        logits, states = generic_logits_and_states(policy, batch, indices, path.scoring)
        return scores_from_logits(logits, tokens, temperature, with_entropy), states
    output = forward_packed(policy, batch, logits_to_keep=indices, output_hidden_states=True)
    scores = scores_from_logits(output.logits[0], tokens, temperature, with_entropy)
    return scores, output.hidden_states[-1][0, indices]


def scores_from_logits(logits: Tensor, tokens: Tensor, temperature: float, with_entropy: bool) -> TokenScores:
    """Return the scores of tokens [C] under logits [C, V]."""
    logits = logits.float() / temperature
    log_probs = -F.cross_entropy(logits, tokens, reduction="none")
    if not with_entropy:
        return TokenScores(log_probs, torch.zeros_like(log_probs))
    return TokenScores(log_probs, logits.logsumexp(-1) - (logits.softmax(-1) * logits).sum(-1))
