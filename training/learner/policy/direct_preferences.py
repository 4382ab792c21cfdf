"""Implicit rewards of a policy on comparisons, their loss and its gradient, and log-probs of the reference.

All completions of a comparison are in one packed pass, which computes their prompt once. Of a dialogue, the log-prob is
that of all turns of the policy; the user's turns in between are read and not learned.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from training.learner.models.generic_forward import shares_prompts
from training.learner.models.loading import computing_in
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packed_attention import unshared
from training.learner.models.packing import Episodes, PromptGroup, as_episodes
from training.learner.models.slot_budget import attention_slots, batches_within
from training.learner.models.token_outputs import completion_log_probs
from training.learner.policy.divergence import log_probs_of
from training.learner.preferences.calibration import hits
from training.learner.preferences.direct_losses import davidson_luce, ipo_losses, smoothed_pair_losses
from training.learner.preferences.losses import Pairs
from training.learner.preferences.passes import total_weight
from training.learner.preferences.ranking_data import Comparison, pairs_of_comparisons
from training.learner.preferences.ranking_loss import TieParameter, on_device
from training.learner.runtime.config.dpo import DpoConfig
from training.learner.runtime.processes import Processes
from training.learner.text.messages import TurnSpan, share


class DirectContext(NamedTuple):
    """Settings, processes and models of a dpo run; nothing in it changes but the weights of policy and tie."""

    settings: DpoConfig
    processes: Processes
    policy: Any
    reference: Any  # None if nothing needs it
    tie: TieParameter
    micro_batches: MicroBatches  # attention slots of a forward pass

    @property
    def learning(self) -> list[nn.Parameter]:
        return [*self.policy.parameters(), *self.tie.parameters()]

    def clear_gradients(self) -> None:
        for parameter in self.learning:
            parameter.grad = None


# A completion under its prompt: both as tokens, and the spans of the policy's turns.
Identity = tuple[tuple[int, ...], tuple[int, ...], tuple[TurnSpan, ...]]


def identities(groups: Sequence[PromptGroup]) -> list[Identity]:
    """Return the completions of the groups, end to end, each with its prompt."""
    return [
        (group.prompt, completion, spans)
        for group in groups
        for completion, spans in zip(group.completions, group.spans, strict=True)
    ]


def episodes_of(groups: Sequence[PromptGroup]) -> Episodes:
    """Return the completions of the groups, end to end, as episodes; of dialogues only the policy's tokens count."""
    rows = identities(groups)
    return as_episodes([prompt for prompt, _, _ in rows], [text for _, text, _ in rows], [spans for *_, spans in rows])


def log_probs_of_groups(context: DirectContext, model: Any, groups: Sequence[PromptGroup]) -> Tensor:
    """Return log π(y|x) of all completions of the groups, end to end, [N]; every process computes a share of groups."""
    mine = share(groups, context.processes.rank, context.processes.count)
    rows = iter(log_probs_of(model, episodes_of(mine), 1.0, context.settings.dtype, context.micro_batches))
    totals = [[float(next(rows).double().sum()) for _ in group.completions] for group in mine]
    return torch.tensor([total for group in context.processes.gather(totals) for total in group])


class ReferenceLogProbs:
    """log π_ref(y|x) of all completions: computed when first used, then kept, also in saved states."""

    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        self._place: dict[Identity, int] = {}
        for one in identities([comparison.group for comparison in comparisons]):
            self._place.setdefault(one, len(self._place))
        self._values = torch.full((len(self._place),), torch.nan)

    def _places(self, groups: Sequence[PromptGroup]) -> Tensor:
        return torch.tensor([self._place[one] for one in identities(groups)], dtype=torch.int64)

    def of(self, groups: Sequence[PromptGroup]) -> Tensor:
        """Return the log-probs of all completions of the groups, end to end, [N]. `compute` must have had them."""
        return self._values[self._places(groups)]

    def compute(self, context: DirectContext, groups: Sequence[PromptGroup]) -> None:
        """Compute the log-probs of these groups that are not known. All processes must call it."""
        unknown = [group for group in groups if bool(self.of([group]).isnan().any())]
        if unknown:
            self._values[self._places(unknown)] = log_probs_of_groups(context, context.reference, unknown)

    def state_dict(self) -> dict[str, Tensor]:
        return {"values": self._values}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if state["values"].shape != self._values.shape:
            raise ValueError("the saved state belongs to other rankings")
        self._values = state["values"]


def implicit_rewards(
    log_probs: Tensor, groups: Sequence[PromptGroup], reference: ReferenceLogProbs, settings: DpoConfig
) -> Tensor:
    """Return the implicit rewards [N] of all completions of the groups; see `preferences.direct_losses`."""
    if settings.needs_reference:
        return settings.beta * (log_probs - reference.of(groups).to(log_probs.device))
    return settings.beta * log_probs / torch.tensor(episodes_of(groups).policy_lengths(), device=log_probs.device)


def preference_loss(rewards: Tensor, comparisons: Sequence[Comparison], settings: DpoConfig, tie: Tensor) -> Tensor:
    """Return Σ weight · loss over rankings, of their pairs or of their orders. tie: the tie parameter's logit."""
    if settings.loss == "plackett_luce":
        parts = [
            (davidson_luce(rewards[places], ranks, tie) * weights).sum()
            for weights, places, ranks in weak_orders(comparisons, rewards.device)
        ]
        return torch.stack(parts).sum()
    pairs = pairs_of(comparisons, settings, rewards.device)
    if settings.loss == "ipo":
        losses = ipo_losses(rewards, pairs, settings.beta, settings.label_smoothing)
    else:
        tie_model = "bradley_terry" if settings.tie_model == "none" else settings.tie_model
        losses = smoothed_pair_losses(rewards, pairs, tie_model, tie, settings.label_smoothing)
    return (losses * pairs.weight).sum()


def pairs_of(comparisons: Sequence[Comparison], settings: DpoConfig, device: Any) -> Pairs:
    """Return the pairs of the rankings, with their margins."""
    pairs = on_device(pairs_of_comparisons(comparisons, settings.learns_ties, settings.margin), device)
    if settings.loss != "simpo":
        return pairs
    return pairs._replace(margin=(pairs.margin + settings.simpo_margin).masked_fill(pairs.tied, 0.0))


def weak_orders(comparisons: Sequence[Comparison], device: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return rankings by their number of completions: weights [R], indices of completions, best first, and ranks."""
    by_size: dict[int, list[tuple[float, list[int], list[int]]]] = defaultdict(list)
    first = 0
    for comparison in comparisons:
        for ranking in comparison.rankings:
            order = sorted(zip(ranking.ranks, ranking.places, strict=True))
            places = [first + place for _, place in order]
            by_size[len(order)].append((ranking.weight, places, [rank for rank, _ in order]))
        first += len(comparison.group.completions)
    return [
        tuple(torch.tensor(column, device=device) for column in zip(*rows, strict=True))  # type: ignore[misc]
        for rows in by_size.values()
    ]


def accumulate_gradients(
    context: DirectContext, batch: Sequence[Comparison], reference: ReferenceLogProbs
) -> dict[str, float]:
    """Add up the gradient of the batch's mean loss per ranking over all processes, and return its metrics.

    Metrics: loss in nats, accuracy and mean margin of implicit rewards over strict pairs.
    """
    weight = total_weight(batch)
    ordered = sorted(batch, key=lambda comparison: comparison.group.tokens)
    mine = share(ordered, context.processes.rank, context.processes.count)
    sizes = [comparison.group.sizes for comparison in mine]
    items = [[size if shares_prompts(context.policy) else unshared(size)] for size in sizes]

    def pass_over(budget: int) -> Tensor:
        sums = torch.zeros(4, dtype=torch.float64)
        for indices in batches_within(items, budget):
            part = [mine[i] for i in indices]
            groups = [comparison.group for comparison in part]
            with computing_in(context.settings.dtype):
                log_probs = completion_log_probs(context.policy, episodes_of(groups))
            rewards = implicit_rewards(log_probs, groups, reference, context.settings)
            loss = preference_loss(rewards, part, context.settings, context.tie.logit)
            (loss / weight).backward()
            sums += torch.tensor([float(loss.detach()), *pair_sums(rewards.detach().cpu(), part)], dtype=torch.float64)
        return sums

    slots = [attention_slots(item) for item in items]
    sums = context.micro_batches.attempt(slots, pass_over, undo=context.clear_gradients)
    context.processes.sum_gradients(context.learning)
    loss, right, margin, strict = (context.processes.sum_of(number) for number in sums.tolist())
    if not strict:
        return {"loss": loss / weight}
    return {"loss": loss / weight, "accuracy": right / strict, "reward_margin": margin / strict}


def pair_sums(rewards: Tensor, comparisons: Sequence[Comparison]) -> tuple[float, float, int]:
    """Return sums over strict pairs: hits, margins r_w − r_l, and their number."""
    pairs = pairs_of_comparisons(comparisons, ties=False)
    differences = rewards[pairs.better] - rewards[pairs.worse]
    return float(hits(differences).sum()), float(differences.sum()), len(differences)
