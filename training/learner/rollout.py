"""A batch of episodes: sampled from the policy, scored by every model, shared among the processes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.learner.advantages import generalized_advantages, token_rewards, whiten
from training.learner.config import PpoConfig
from training.learner.data import Prompt, decode_completion, share
from training.learner.losses import kl_k1
from training.learner.models import Episodes, by_episode, computing_in, score_states, score_tokens
from training.learner.processes import Processes
from training.learner.rewards import Answer
from training.learner.sampler import Drawing, sample


class Actors(NamedTuple):
    """Who takes part."""

    policy: PreTrainedModel
    reference: PreTrainedModel
    critic: Any
    reward: Callable[[Sequence[Answer]], Tensor]
    tokenizer: Any
    drawing: Drawing


class Rollout(NamedTuple):
    """N episodes, the same on every process. The lists hold a tensor an episode, of its completion's tokens."""

    episodes: Episodes
    ended: list[bool]
    scores: Tensor  # [N], the rewards without KL
    policy: list[Tensor]  # log-probabilities under the policy that wrote them
    reference: list[Tensor]  # and under the reference
    values: list[Tensor]  # of the states that the tokens were decided in; empty without a critic

    def lengths(self) -> Tensor:
        """[N], tokens of each completion."""
        return torch.tensor([len(completion) for completion in self.episodes.completions])

    def divergences(self) -> Tensor:
        """[N]: log π(y|x) − log π_ref(y|x), whose mean is the KL divergence in nats a completion."""
        return torch.stack([kl_k1(*pair).sum() for pair in zip(self.policy, self.reference, strict=True)])


class Targets(NamedTuple):
    """What the updates aim at: a tensor an episode, of its completion's tokens."""

    advantages: list[Tensor]
    returns: list[Tensor]


@torch.no_grad()
def write_episodes(
    writer: PreTrainedModel,
    actors: Actors,
    prompts: Sequence[Prompt],
    numbers: Sequence[int],
    settings: PpoConfig,
    processes: Processes,
) -> tuple[Episodes, list[Answer]]:
    """Completions of the prompts, by `writer`; the same on every process."""
    mine = share(range(len(prompts)), processes.rank, processes.count)
    with computing_in(settings.dtype):
        own = sample(
            writer, [prompts[i].tokens for i in mine], [numbers[i] for i in mine], actors.drawing, len(mine) or 1
        )
    written = processes.gather([(completion.tokens, completion.ended) for completion in own])
    answers = [
        Answer(prompt.row, prompt.tokens, tokens, decode_completion(actors.tokenizer, tokens), ended)
        for prompt, (tokens, ended) in zip(prompts, written, strict=True)
    ]
    return Episodes([prompt.tokens for prompt in prompts], [answer.completion for answer in answers]), answers


@torch.no_grad()
def score_episodes(
    actors: Actors, episodes: Episodes, answers: Sequence[Answer], settings: PpoConfig, processes: Processes
) -> Rollout:
    """What every model says of the episodes.

    Policy and reference see the same passes, so that while they are equal their log-probabilities are equal bit by bit.
    """
    mine = list(share(range(len(answers)), processes.rank, processes.count))
    own = episodes.select(mine)

    def log_probs(model: PreTrainedModel) -> list[Tensor]:
        return by_episode(
            lambda part: score_tokens(model, part, settings.temperature).log_probs, own, settings.micro_batch_tokens
        )

    with computing_in(settings.dtype):
        rows = [log_probs(actors.policy), log_probs(actors.reference)]
        rows.append(by_episode(lambda part: score_states(actors.critic, part), own, settings.micro_batch_tokens))
    scores = actors.reward([answers[i] for i in mine]).tolist()
    together = processes.gather(list(zip(scores, *rows, strict=True)))
    all_scores, policy, reference, values = (list(column) for column in zip(*together, strict=True))
    ended = [answer.ended for answer in answers]
    return Rollout(episodes, ended, torch.tensor(all_scores), policy, reference, values)


def targets_of(rollout: Rollout, kl_coefficient: float, settings: PpoConfig) -> Targets:
    """Advantages, whitened over the batch's completion tokens, and returns (of advantages that are not)."""
    lengths = rollout.lengths()
    kl = kl_k1(torch.cat(rollout.policy), torch.cat(rollout.reference))
    rewards = token_rewards(rollout.scores, kl, lengths, kl_coefficient)
    if settings.whiten_rewards:
        rewards = whiten(rewards, keep_mean=True)
    values = torch.cat(rollout.values)
    advantages, returns = generalized_advantages(rewards, values, lengths, settings.gamma, settings.gae_lambda)
    sizes = lengths.tolist()
    return Targets(list(whiten(advantages).split(sizes)), list(returns.split(sizes)))
