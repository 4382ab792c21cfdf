"""A batch of episodes: sampled from the policy, scored by every model, the same on every process in the end."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.learner.estimators import ALGORITHMS
from training.learner.models.generic_forward import shares_prompts
from training.learner.models.loading import computing_in
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packing import Episodes, by_episode, within_budget
from training.learner.models.token_outputs import (
    RewardTrunkCritic,
    TokenOutputs,
    compute_token_outputs,
    is_separate_critic,
)
from training.learner.policy.advantages import generalized_advantages, token_rewards, whiten
from training.learner.policy.losses import kl_k1
from training.learner.reward_terms import Answer
from training.learner.rewards.reward_function import Reward, Scoring
from training.learner.runtime.config import PpoConfig
from training.learner.runtime.optimization import check_finite
from training.learner.runtime.processes import Processes
from training.learner.sampling.sampler import SamplingParams, sample
from training.learner.text.messages import Prompt, decode_completion, share, shuffled


class Run(NamedTuple):
    """Who takes part, and by what rules."""

    settings: PpoConfig
    processes: Processes
    policy: PreTrainedModel
    reference: PreTrainedModel
    critic: Any  # None where advantages need none
    scoring: Scoring | None  # the reward model, where one scores
    reward: Reward
    tokenizer: Any
    params: SamplingParams
    micro_batches: MicroBatches  # of tokens, in passes over whole episodes
    sampling_rows: MicroBatches  # of completions written at once

    @property
    def shares_prompts(self) -> bool:
        """Whether every model's passes compute a prompt once for all of its completions."""
        readers = [self.policy, self.reference] + ([self.critic] if is_separate_critic(self.critic) else [])
        return all(map(shares_prompts, readers))

    @property
    def critic_of_passes(self) -> Any:
        """The critic, where passes over episodes say its values; one on the reward model's trunk has read them once."""
        return None if isinstance(self.critic, RewardTrunkCritic) else self.critic


class FirstPass(NamedTuple):
    """What policy and critic said of the first minibatch, with the graph behind it: the updates begin with it."""

    indices: list[int]  # of the batch's episodes, in the order of the pass
    outputs: TokenOutputs


class Rollout(NamedTuple):
    """N episodes. The lists hold a tensor an episode, of its completion's tokens."""

    episodes: Episodes
    finished: list[bool]
    scores: Tensor  # [N], the rewards without KL
    policy: list[Tensor]  # log-probabilities under the policy that wrote them
    reference: list[Tensor]  # and under the reference
    values: list[Tensor]  # of the states that the tokens were decided in; without a critic zeros
    first_pass: list[FirstPass]  # this process's; at most one, taken out by who uses it so that its memory is freed
    states: dict[int, Tensor]  # [n, E], what a critic on the reward model's trunk reads of the episodes scored here

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
            [1] * len(mine), lambda rows: sample(writer, own_prompts, own_numbers, run.params, batch=rows)
        )
    written = run.processes.gather([(completion.tokens, completion.finished) for completion in own])
    answers = [
        Answer(prompt.row, prompt.tokens, tokens, decode_completion(run.tokenizer, tokens), finished)
        for prompt, (tokens, finished) in zip(prompts, written, strict=True)
    ]
    return Episodes([prompt.tokens for prompt in prompts], [answer.completion for answer in answers]), answers


@torch.no_grad()
def score_episodes(
    run: Run, episodes: Episodes, answers: Sequence[Answer], learned_first: Sequence[int] = ()
) -> Rollout:
    """What every model says of the episodes. learned_first: those of the first minibatch.

    Policy and reference see the same passes, so that while they are equal their log-probabilities are equal to the bit.
    """
    mine = scored_by(run.processes, len(answers))
    own, early = episodes.select(mine), [place for place, i in enumerate(mine) if i in set(learned_first)]
    policy, reference, values, kept = run.micro_batches.attempt(
        own.lengths(), lambda budget: token_columns(run, own, early, budget)
    )
    read, scores_as_written = read_by_reward_model(run, own)
    values = [reading.values for reading in read] or values
    scores = run.reward([answers[i] for i in mine], scores_as_written).tolist()
    together = run.processes.gather(list(zip(scores, policy, reference, values, strict=True)))
    columns = [list(column) for column in zip(*together, strict=True)]
    finished = [answer.finished for answer in answers]
    first_pass = [FirstPass([mine[place] for place in first.indices], first.outputs) for first in kept]
    scores, policy, reference, values = columns
    states = {i: reading.states for i, reading in zip(mine, read, strict=False)}
    return Rollout(episodes, finished, torch.tensor(scores), policy, reference, values, first_pass, states)


class Reading(NamedTuple):
    """What a critic on the reward model's trunk makes of an episode."""

    states: Tensor  # [n, E], on the CPU: they wait there for the updates
    values: Tensor  # [n]


def read_by_reward_model(run: Run, episodes: Episodes) -> tuple[list[Reading], Tensor | None]:
    """The readings by a critic on the reward model's trunk, and that model's scores [N]. Of others none, and None."""
    if not isinstance(run.critic, RewardTrunkCritic) or not episodes.prompts:
        return [], None
    critic, sizes = run.critic, [len(completion) for completion in episodes.completions]

    def pass_over(budget: int) -> tuple[list[Reading], Tensor]:
        readings: dict[int, Reading] = {}
        scores = torch.empty(len(sizes))
        for part in within_budget(episodes, budget, shares_prompts(critic.trunk)):
            with computing_in(run.settings.dtype):
                states, part_scores = critic.read(episodes.select(part))
            scores[part] = part_scores.cpu()
            columns = (column.cpu().split([sizes[i] for i in part]) for column in (states, critic.values(states)))
            readings.update(zip(part, map(Reading, *columns), strict=True))
        return [readings[i] for i in range(len(sizes))], scores

    return run.micro_batches.attempt(episodes.lengths(), pass_over)


def scored_by(processes: Processes, count: int) -> list[int]:
    """Which of a batch's episodes this process scores."""
    return list(share(range(count), processes.rank, processes.count))


def token_columns(
    run: Run, episodes: Episodes, early: Sequence[int], budget: int
) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[FirstPass]]:
    """Log-probabilities by the policy and by the reference, and values: a tensor an episode each.

    Early ones are in passes of their own; where that is one, and small enough, it is kept.
    """
    if not episodes.prompts:  # more processes than episodes
        return [], [], [], []
    late = sorted(set(range(len(episodes.prompts))) - set(early))
    parts = [[chosen[i] for i in part] for chosen in (early, late) if chosen
             for part in within_budget(episodes.select(chosen), budget, run.shares_prompts)]  # fmt: skip
    kept = first_pass_over(run, episodes, parts[0]) if early and is_small(run, episodes.select(early), budget) else None
    known = None if kept is None else [values.detach() for values in kept.outputs]
    critic = run.critic_of_passes
    policy, _, values = by_episode(lambda part: judged(run, run.policy, critic, part), episodes, parts, known)
    reference, *_ = by_episode(lambda part: judged(run, run.reference, None, part), episodes, parts)
    return policy, reference, values, [] if kept is None else [kept]


def judged(run: Run, policy: Any, critic: Any, episodes: Episodes, with_entropy: bool = False) -> TokenOutputs:
    # Autocast anew each time: it keeps converted weights, without graph where there is none.
    with computing_in(run.settings.dtype):
        return compute_token_outputs(policy, critic, episodes, run.settings.temperature, with_entropy)


def is_small(run: Run, episodes: Episodes, budget: int) -> bool:
    """Whether the graphs of all that passes over these episodes hold no more tokens than one micro-batch may."""
    passes = 1 + is_separate_critic(run.critic)
    return len(within_budget(episodes, max(budget // passes, 1), run.shares_prompts)) == 1


def first_pass_over(run: Run, episodes: Episodes, part: list[int]) -> FirstPass:
    with torch.enable_grad():
        return FirstPass(part, judged(run, run.policy, run.critic_of_passes, episodes.select(part), with_entropy=True))


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
    """Return advantages by the algorithm of the settings. baseline: None in the first batch, which uses its mean."""
    estimate = ALGORITHMS[settings.algorithm].advantages
    if estimate is None:
        return token_targets(rollout, reward_coefficient(kl_coefficient, settings), settings)
    rewards = completion_rewards(rollout, kl_coefficient, settings)
    baseline = float(rewards.mean()) if baseline is None else baseline
    advantages = estimate(rewards, settings.completions_per_prompt, baseline)
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
