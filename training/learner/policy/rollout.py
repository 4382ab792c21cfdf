"""Rollout: a batch of sampled episodes (see dialogues.py), with log-probs, values and rewards.

Every process samples and scores its share; afterwards all processes hold the same batch.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.learner.environments import Environment
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
    values_after,
)
from training.learner.policy.advantages import (
    advantages_of_ended,
    generalized_advantages,
    token_rewards,
    turn_rewards,
    whiten,
)
from training.learner.policy.losses import kl_k1
from training.learner.reward_terms import Answer
from training.learner.rewards.reward_function import Reward, Scoring
from training.learner.runtime.config import PpoConfig
from training.learner.runtime.jobdir import BadInput
from training.learner.runtime.optimization import check_finite
from training.learner.runtime.processes import Processes
from training.learner.sampling.sampler import SamplingParams
from training.learner.text.demonstrations import Example
from training.learner.text.messages import Prompt, share, shuffled


class TrainingContext(NamedTuple):
    """Settings, processes and models of a ppo run; nothing in it changes but the models' weights."""

    settings: PpoConfig
    processes: Processes
    policy: PreTrainedModel
    reference: PreTrainedModel
    critic: Any  # None if the algorithm needs none
    scoring: Scoring | None  # the reward model and its tokenizer; None without a reward model
    reward: Reward
    new_environment: Callable[[], Environment]  # of one episode
    tokenizer: Any
    params: SamplingParams
    micro_batches: MicroBatches  # attention slots of a forward pass
    sampling_rows: MicroBatches  # completions decoded together
    demonstrations: Sequence[Example] = ()  # imitated beside the reward, with ptx_coefficient

    @property
    def shares_prompts(self) -> bool:
        """True if the passes of all models compute the prompt of several completions once."""
        models = [self.policy, self.reference] + ([self.critic] if is_separate_critic(self.critic) else [])
        return all(map(shares_prompts, models))

    @property
    def critic_of_passes(self) -> Any:
        """The critic whose values are computed in passes over episodes; None for a critic on the reward model.

        The states of that one are stored in the rollout instead.
        """
        return None if isinstance(self.critic, RewardTrunkCritic) else self.critic


class FirstPass(NamedTuple):
    """Outputs for the first minibatch with their autograd graph, so that the first update needs no forward pass."""

    indices: list[int]  # of the batch's episodes, in the order of the pass
    outputs: TokenOutputs


class Rollout(NamedTuple):
    """N scored episodes. Each list of tensors holds one tensor per episode, with a value per completion token."""

    episodes: Episodes
    finished: list[bool]  # whether the last turn has its EOS token
    scores: Tensor  # [N], the rewards without KL: reward terms, and the environment's rewards of all turns
    policy: list[Tensor]  # log-probs under the policy that sampled them
    reference: list[Tensor]  # log-probs under the reference
    values: list[Tensor]  # of the state before each token; zeros without a critic
    first_pass: list[FirstPass]  # at most one, of this process; its user pops it, so that its memory is freed
    states: dict[int, Tensor]  # [n, E] by episode, of a critic on the reward model's trunk; this process's episodes
    final_values: Tensor  # [N], of the state after a truncated episode; 0 for one that ended, or without a critic

    def lengths(self) -> Tensor:
        """Return the number of tokens of each episode that the policy wrote, [N]."""
        return torch.tensor(self.episodes.policy_lengths())

    def divergences(self) -> Tensor:
        """Return log π(y|x) − log π_ref(y|x), [N]; the mean is the KL divergence in nats per completion."""
        return torch.stack([kl_k1(*pair).sum() for pair in zip(self.policy, self.reference, strict=True)])


class Targets(NamedTuple):
    """Targets of the updates: one tensor per episode, with a value per completion token."""

    advantages: list[Tensor]
    returns: list[Tensor]  # for the critic; zeros without one
    is_estimated: list[bool]  # by episode; False: it has no advantage, and its zeros are no part of the policy loss


def prompts_of_step(prompts: Sequence[Prompt], step: int, settings: PpoConfig) -> tuple[list[Prompt], list[int]]:
    """Return the prompts of a step's episodes, equal ones together, and the numbers of the episodes since the start.

    Every pass over the prompts is shuffled again. The prompts of a step follow from its number, so a resumed run needs
    no saved position.
    """
    numbers = list(range((step - 1) * settings.batch_episodes, step * settings.batch_episodes))
    draws = [number // settings.completions_per_prompt for number in numbers]
    orders = {n: shuffled(len(prompts), settings.seed, n) for n in {draw // len(prompts) for draw in draws}}
    return [prompts[orders[draw // len(prompts)][draw % len(prompts)]] for draw in draws], numbers


@torch.no_grad()
def score_episodes(
    context: TrainingContext, episodes: Episodes, answers: Sequence[Answer], first_minibatch: Sequence[int] = ()
) -> Rollout:
    """Return the episodes with rewards, log-probs and values.

    first_minibatch: indices of the episodes whose pass may be kept with its graph, see FirstPass. Policy and reference
    compute the same passes, so that their log-probs are bitwise equal as long as their weights are.
    """
    mine = scored_indices(context.processes, len(answers))
    my_episodes = episodes.select(mine)
    early = [place for place, i in enumerate(mine) if i in set(first_minibatch)]
    policy, reference, values, kept = context.micro_batches.attempt(
        my_episodes.lengths(), lambda budget: model_outputs(context, my_episodes, early, budget)
    )
    trunk_outputs, scores_as_written = reward_trunk_outputs(context, my_episodes)
    values = [output.values for output in trunk_outputs] or values
    terms = context.reward([answers[i] for i in mine], scores_as_written)
    scores = (terms + environment_rewards(my_episodes)).tolist()

    final = final_values(context, my_episodes).tolist()

    gathered = context.processes.gather(list(zip(scores, policy, reference, values, final, strict=True)))
    scores, policy, reference, values, final = (list(column) for column in zip(*gathered, strict=True))
    return Rollout(
        episodes=episodes,
        finished=[answer.finished for answer in answers],
        scores=torch.tensor(scores),
        policy=policy,
        reference=reference,
        values=values,
        first_pass=[FirstPass([mine[place] for place in first.indices], first.outputs) for first in kept],
        states={i: output.states for i, output in zip(mine, trunk_outputs, strict=False)},
        final_values=torch.tensor(final),
    )


class RewardTrunkOutput(NamedTuple):
    """Outputs of a critic on the reward model's trunk for the n completion tokens of an episode."""

    states: Tensor  # [n, E], on the CPU: stored there until the updates
    values: Tensor  # [n]


def reward_trunk_outputs(context: TrainingContext, episodes: Episodes) -> tuple[list[RewardTrunkOutput], Tensor | None]:
    """Return the outputs of a critic on the reward model's trunk, and that model's rewards [N], see `pessimism`.

    With another critic return an empty list and None.
    """
    if not isinstance(context.critic, RewardTrunkCritic) or not episodes.prompts:
        return [], None
    critic, sizes = context.critic, episodes.policy_lengths()

    def pass_over(budget: int) -> tuple[list[RewardTrunkOutput], Tensor]:
        outputs: dict[int, RewardTrunkOutput] = {}
        scores = torch.empty(len(sizes))
        for part in within_budget(episodes, budget, shares_prompts(critic.trunk)):
            with computing_in(context.settings.dtype):
                states, part_scores = critic.read(episodes.select(part))
            scores[part] = part_scores.lower_bound(context.settings.pessimism).cpu()
            columns = (column.cpu().split([sizes[i] for i in part]) for column in (states, critic.values(states)))
            outputs.update(zip(part, map(RewardTrunkOutput, *columns), strict=True))
        return [outputs[i] for i in range(len(sizes))], scores

    return context.micro_batches.attempt(episodes.lengths(), pass_over)


def final_values(context: TrainingContext, episodes: Episodes) -> Tensor:
    """Return the value [N] of the state that each truncated episode ends in; 0 for the others, or without a critic."""
    values = torch.zeros(len(episodes.prompts))
    truncated = [i for i, is_truncated in enumerate(episodes.truncated()) if is_truncated]
    if context.critic is None or not truncated:
        return values
    ends = Episodes(
        [episodes.prompts[i] for i in truncated],
        [[*episodes.completions[i], *((episodes.unanswered or [])[i] or [])] for i in truncated],
    )

    def pass_over(budget: int) -> list[float]:
        passes: dict[int, float] = {}
        for part in within_budget(ends, budget, context.shares_prompts):
            with computing_in(context.settings.dtype):
                outputs = values_after(context.policy, context.critic, ends.select(part))
            passes.update(zip(part, outputs.tolist(), strict=True))
        return [passes[i] for i in range(len(truncated))]

    values[truncated] = torch.tensor(context.micro_batches.attempt(ends.lengths(), pass_over))
    return values


def environment_rewards(episodes: Episodes) -> Tensor:
    """Return the sum of the environment's rewards of each episode, [N]; zeros for episodes of one turn."""
    if episodes.turns is None:
        return torch.zeros(len(episodes.prompts))
    return torch.tensor([math.fsum(turn.reward for turn in turns) for turns in episodes.turns])


def scored_indices(processes: Processes, count: int) -> list[int]:
    """Return the indices of the batch's episodes that this process scores."""
    return list(share(range(count), processes.rank, processes.count))


def model_outputs(
    context: TrainingContext, episodes: Episodes, early: Sequence[int], budget: int
) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[FirstPass]]:
    """Return log-probs of policy and reference, and values: one tensor per episode.

    Episodes at the indices `early` get passes of their own. If one pass holds them all and its graph fits the budget,
    it is returned too.
    """
    if not episodes.prompts:  # more processes than episodes
        return [], [], [], []
    late = sorted(set(range(len(episodes.prompts))) - set(early))
    parts = [[indices[i] for i in part] for indices in (early, late) if indices
             for part in within_budget(episodes.select(indices), budget, context.shares_prompts)]  # fmt: skip
    kept = None
    if early and fits_one_pass(context, episodes.select(early), budget):
        kept = compute_first_pass(context, episodes, parts[0])
    first = None if kept is None else [values.detach() for values in kept.outputs]
    critic = context.critic_of_passes
    policy, _, values = by_episode(lambda part: forward(context, context.policy, critic, part), episodes, parts, first)
    reference, *_ = by_episode(lambda part: forward(context, context.reference, None, part), episodes, parts)
    return policy, reference, values, [] if kept is None else [kept]


def forward(
    context: TrainingContext, policy: Any, critic: Any, episodes: Episodes, with_entropy: bool = False
) -> TokenOutputs:
    """Return the outputs of one forward pass over the episodes, in the dtype and at the temperature of the settings."""
    # One autocast context per pass: it caches converted weights, and those of a pass under no_grad have no graph.
    with computing_in(context.settings.dtype):
        return compute_token_outputs(policy, critic, episodes, context.settings.temperature, with_entropy)


def fits_one_pass(context: TrainingContext, episodes: Episodes, budget: int) -> bool:
    """Return whether the graphs of all passes over these episodes together fit the budget of one micro-batch."""
    passes = 1 + is_separate_critic(context.critic)
    return len(within_budget(episodes, max(budget // passes, 1), context.shares_prompts)) == 1


def compute_first_pass(context: TrainingContext, episodes: Episodes, part: list[int]) -> FirstPass:
    """Return the pass over a part of the episodes, with its autograd graph."""
    with torch.enable_grad():
        outputs = forward(context, context.policy, context.critic_of_passes, episodes.select(part), with_entropy=True)
    return FirstPass(part, outputs)


def check_rollout(rollout: Rollout, step: int) -> None:
    """Raise TrainingFailed for the first quantity that is not finite. All processes see the same values and end."""
    quantities = {
        "the reward": rollout.scores,
        "the policy's log-probability": torch.cat(rollout.policy),
        "the reference's log-probability": torch.cat(rollout.reference),
        "the value": torch.cat(rollout.values),
    }
    for name, values in quantities.items():
        not_finite = values[~values.isfinite()]
        if len(not_finite):
            check_finite(name, float(not_finite[0]), step)


def check_some_end(rollout: Rollout, settings: PpoConfig) -> None:
    """Raise BadInput if no episode of the first batch comes to its end, and the run needs ends.

    Reward terms score them. An algorithm without a critic learns from nothing else.
    """
    needs_critic = ALGORITHMS[settings.algorithm].needs_critic
    if all(rollout.episodes.truncated()) and (settings.rewards or not needs_critic):
        use = "which the reward terms score" if needs_critic else f"and {settings.algorithm} learns from no others"
        raise BadInput(
            f"none of the first {len(rollout.finished)} dialogues comes to its end, {use}: "
            "set fewer turns, or smaller max_prompt_tokens and max_completion_tokens, so that more of them fit into "
            "the models' positions"
        )


def completion_rewards(rollout: Rollout, kl_coefficient: float, settings: PpoConfig) -> Tensor:
    """Return the rewards [N]: each completion's score minus its KL penalty, if the KL is in the reward."""
    return rollout.scores - reward_coefficient(kl_coefficient, settings) * rollout.divergences()


def mean_reward_of_ended(rollout: Rollout, kl_coefficient: float, settings: PpoConfig) -> float | None:
    """Return the mean reward of the completions that came to their end, with the KL penalty; None if none did."""
    ended = ~torch.tensor(rollout.episodes.truncated())
    rewards = completion_rewards(rollout, kl_coefficient, settings)[ended]
    return float(rewards.mean()) if len(rewards) else None


def reward_coefficient(kl_coefficient: float, settings: PpoConfig) -> float:
    """Return the KL coefficient in the reward: 0 if the KL is in the loss."""
    return kl_coefficient if settings.kl_placement == "reward" else 0.0


def compute_targets(rollout: Rollout, kl_coefficient: float, baseline: float | None, settings: PpoConfig) -> Targets:
    """Return advantages by the algorithm of the settings.

    baseline: None before the first batch in which an episode ended, which uses its mean. A KL penalty in the reward is
    left out with a truncated episode's reward, so that nothing of it changes the policy.
    """
    algorithm = ALGORITHMS[settings.algorithm]
    if algorithm.advantages is None:
        return gae_targets(rollout, reward_coefficient(kl_coefficient, settings), settings)
    rewards, truncated = completion_rewards(rollout, kl_coefficient, settings), rollout.episodes.truncated()
    if baseline is None:
        baseline = mean_reward_of_ended(rollout, kl_coefficient, settings) or 0.0
    advantages, is_estimated = advantages_of_ended(
        algorithm, rewards, torch.tensor(truncated), settings.completions_per_prompt, baseline
    )
    rows = [advantage.expand(len(row)) for advantage, row in zip(advantages, rollout.policy, strict=True)]
    return Targets(rows, rollout.values, is_estimated.tolist())


def gae_targets(rollout: Rollout, kl_coefficient: float, settings: PpoConfig) -> Targets:
    """Return GAE advantages, whitened over the batch's tokens, and the returns before whitening.

    The tokens of an episode are the policy's, of all its turns: advantages run across turns. The reward terms score the
    end of an episode. A truncated one has not come to its end, whose value the critic estimates instead.
    """
    lengths = rollout.lengths()
    kl = kl_k1(torch.cat(rollout.policy), torch.cat(rollout.reference))
    earned = environment_rewards(rollout.episodes)
    truncated = torch.tensor(rollout.episodes.truncated())
    terms = (rollout.scores - earned).masked_fill(truncated, 0.0)
    rewards = token_rewards(terms, kl, lengths, kl_coefficient)
    if rollout.episodes.turns is not None:
        rewards += turn_rewards(rollout.episodes.turns)
    if settings.whiten_rewards:
        rewards = whiten(rewards, keep_mean=True)
    values = torch.cat(rollout.values)
    advantages, returns = generalized_advantages(
        rewards, values, lengths, settings.gamma, settings.gae_lambda, rollout.final_values
    )
    sizes = lengths.tolist()
    return Targets(list(whiten(advantages).split(sizes)), list(returns.split(sizes)), [True] * len(sizes))
