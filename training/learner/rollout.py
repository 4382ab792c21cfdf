"""A batch of episodes: sampled from the policy, scored by every model, the same on every process in the end."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.learner.advantages import ESTIMATORS, generalized_advantages, token_rewards, whiten
from training.learner.config import PpoConfig
from training.learner.data import Prompt, decode_completion, share, shuffled
from training.learner.episodes import Episodes, by_episode
from training.learner.losses import kl_k1
from training.learner.memory import MicroBatches
from training.learner.models import computing_in
from training.learner.optimization import check_finite
from training.learner.processes import Processes
from training.learner.rewards import Answer
from training.learner.sampler import Drawing, sample
from training.learner.scoring import assess


class Run(NamedTuple):
    """Who takes part, and by what rules."""

    settings: PpoConfig
    processes: Processes
    policy: PreTrainedModel
    reference: PreTrainedModel
    critic: Any  # None where advantages need none
    reward: Callable[[Sequence[Answer]], Tensor]
    tokenizer: Any
    drawing: Drawing
    micro_batches: MicroBatches  # of tokens, in passes over whole episodes
    sampling_rows: MicroBatches  # of completions written at once


class Rollout(NamedTuple):
    """N episodes. The lists hold a tensor an episode, of its completion's tokens."""

    episodes: Episodes
    ended: list[bool]
    scores: Tensor  # [N], the rewards without KL
    policy: list[Tensor]  # log-probabilities under the policy that wrote them
    reference: list[Tensor]  # and under the reference
    values: list[Tensor]  # of the states that the tokens were decided in; without a critic zeros

    def lengths(self) -> Tensor:
        """[N], tokens of each completion."""
        return torch.tensor([len(completion) for completion in self.episodes.completions])

    def divergences(self) -> Tensor:
        """[N]: log π(y|x) − log π_ref(y|x), whose mean is the KL divergence in nats a completion."""
        return torch.stack([kl_k1(*pair).sum() for pair in zip(self.policy, self.reference, strict=True)])


class Targets(NamedTuple):
    """What the updates aim at: a tensor an episode, of its completion's tokens."""

    advantages: list[Tensor]
    returns: list[Tensor]  # for the critic; without one zeros


def prompts_of_step(prompts: Sequence[Prompt], step: int, settings: PpoConfig) -> tuple[list[Prompt], list[int]]:
    """The prompts of a step's episodes, those of one prompt together, and the episodes' numbers since the start.

    Prompts come in passes over all of them, each in an order of its own: where a run is in them follows from the step.
    """
    numbers = list(range((step - 1) * settings.batch_episodes, step * settings.batch_episodes))
    draws = [number // settings.completions_per_prompt for number in numbers]
    orders = {n: shuffled(len(prompts), settings.seed, n) for n in {draw // len(prompts) for draw in draws}}
    return [prompts[orders[draw // len(prompts)][draw % len(prompts)]] for draw in draws], numbers


@torch.no_grad()
def write_episodes(
    run: Run, writer: PreTrainedModel, prompts: Sequence[Prompt], numbers: Sequence[int]
) -> tuple[Episodes, list[Answer]]:
    """Completions of the prompts, by `writer`."""
    mine = share(range(len(prompts)), run.processes.rank, run.processes.count)
    own_prompts, own_numbers = [prompts[i].tokens for i in mine], [numbers[i] for i in mine]
    with computing_in(run.settings.dtype):
        own = run.sampling_rows.attempt(
            [1] * len(mine), lambda rows: sample(writer, own_prompts, own_numbers, run.drawing, batch=rows)
        )
    written = run.processes.gather([(completion.tokens, completion.ended) for completion in own])
    answers = [
        Answer(prompt.row, prompt.tokens, tokens, decode_completion(run.tokenizer, tokens), ended)
        for prompt, (tokens, ended) in zip(prompts, written, strict=True)
    ]
    return Episodes([prompt.tokens for prompt in prompts], [answer.completion for answer in answers]), answers


@torch.no_grad()
def score_episodes(run: Run, episodes: Episodes, answers: Sequence[Answer]) -> Rollout:
    """What every model says of the episodes.

    Policy and reference see the same passes, so that while they are equal their log-probabilities are equal to the bit.
    """
    settings, processes = run.settings, run.processes
    mine = list(share(range(len(answers)), processes.rank, processes.count))
    own = episodes.select(mine)
    with computing_in(settings.dtype):
        policy, reference, values = run.micro_batches.attempt(
            own.lengths(), lambda budget: token_columns(run, own, budget)
        )
    scores = run.reward([answers[i] for i in mine]).tolist()
    together = processes.gather(list(zip(scores, policy, reference, values, strict=True)))
    columns = [list(column) for column in zip(*together, strict=True)]
    ended = [answer.ended for answer in answers]
    return Rollout(episodes, ended, torch.tensor(columns[0]), *columns[1:])


def token_columns(run: Run, episodes: Episodes, budget: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Log-probabilities by the policy and by the reference, and values: a tensor an episode each."""
    if not episodes.prompts:  # more processes than episodes
        return [], [], []
    temperature = run.settings.temperature
    policy, _, values = by_episode(lambda part: assess(run.policy, run.critic, part, temperature), episodes, budget)
    reference, *_ = by_episode(lambda part: assess(run.reference, None, part, temperature), episodes, budget)
    return policy, reference, values


def check_rollout(rollout: Rollout, step: int) -> None:
    """Raises TrainingFailed naming the first quantity that is not finite. Every process sees the same, and ends."""
    quantities = {
        "the reward": rollout.scores,
        "the policy's log-probability": torch.cat(rollout.policy),
        "the reference's log-probability": torch.cat(rollout.reference),
        "the value": torch.cat(rollout.values),
    }
    for name, values in quantities.items():
        odd = values[~values.isfinite()]
        if len(odd):
            check_finite(name, float(odd[0]), step)


def completion_rewards(rollout: Rollout, kl_coefficient: float, settings: PpoConfig) -> Tensor:
    """[N]: each completion's score less what its divergence costs, if that is in the reward and not in the loss."""
    return rollout.scores - reward_coefficient(kl_coefficient, settings) * rollout.divergences()


def reward_coefficient(kl_coefficient: float, settings: PpoConfig) -> float:
    """The KL coefficient, as far as it acts in the reward."""
    return kl_coefficient if settings.kl_placement == "reward" else 0.0


def targets_of(rollout: Rollout, kl_coefficient: float, baseline: float | None, settings: PpoConfig) -> Targets:
    """Advantages by the settings' algorithm. Without a baseline of earlier batches, reinforce's is its mean."""
    if settings.algorithm == "ppo":
        return token_targets(rollout, reward_coefficient(kl_coefficient, settings), settings)
    rewards = completion_rewards(rollout, kl_coefficient, settings)
    baseline = float(rewards.mean()) if baseline is None else baseline
    advantages = ESTIMATORS[settings.algorithm](rewards, settings.completions_per_prompt, baseline)
    rows = [advantage.expand(len(row)) for advantage, row in zip(advantages, rollout.policy, strict=True)]
    return Targets(rows, rollout.values)


def token_targets(rollout: Rollout, kl_coefficient: float, settings: PpoConfig) -> Targets:
    """GAE: advantages whitened over the batch's completion tokens, and the returns of those that are not whitened."""
    lengths = rollout.lengths()
    kl = kl_k1(torch.cat(rollout.policy), torch.cat(rollout.reference))
    rewards = token_rewards(rollout.scores, kl, lengths, kl_coefficient)
    if settings.whiten_rewards:
        rewards = whiten(rewards, keep_mean=True)
    values = torch.cat(rollout.values)
    advantages, returns = generalized_advantages(rewards, values, lengths, settings.gamma, settings.gae_lambda)
    sizes = lengths.tolist()
    return Targets(list(whiten(advantages).split(sizes)), list(returns.split(sizes)))
