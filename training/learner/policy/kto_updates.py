"""Log-ratios of labelled completions, the reference point of a batch, and the gradient of KTO's loss."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.learner.models.generic_forward import shares_prompts
from training.learner.models.loading import computing_in
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packing import Episodes, as_episodes, within_budget
from training.learner.models.token_outputs import completion_log_probs
from training.learner.policy.divergence import log_probs_of
from training.learner.preferences.kto_loss import LabelWeights, kto_losses, mismatched, separation
from training.learner.preferences.labels import LabelledCompletion, PromptLabels
from training.learner.runtime.config.kto import KtoConfig
from training.learner.runtime.processes import Processes
from training.learner.sampling.sampler import fewest_positions
from training.learner.text.messages import share


class Models(NamedTuple):
    """Policy, reference, and what their passes need."""

    policy: Any
    reference: Any
    settings: KtoConfig
    processes: Processes
    micro_batches: MicroBatches


class MismatchedPairs(NamedTuple):
    """Completions of a batch after another of its prompts (`mismatched`); their log-ratios give the reference point."""

    episodes: Episodes
    reference: Tensor  # [N], log π_ref of them


def identity(one: LabelledCompletion) -> tuple[Any, ...]:
    return one.prompt, one.completion, one.turns


def episodes_of(labelled: Sequence[LabelledCompletion]) -> Episodes:
    return as_episodes(
        [one.prompt for one in labelled], [one.completion for one in labelled], [one.spans for one in labelled]
    )


def total_log_probs(models: Models, model: Any, episodes: Episodes) -> list[float]:
    """Return log π(y|x) of the episodes under one of the models; every process computes its share."""
    mine = share(range(len(episodes.prompts)), models.processes.rank, models.processes.count)
    settings = models.settings
    rows = log_probs_of(model, episodes.select(mine), 1.0, settings.dtype, models.micro_batches)
    return models.processes.gather([float(row.double().sum()) for row in rows])


def reference_log_probs(models: Models, groups: Sequence[PromptLabels]) -> dict[Any, float]:
    """Return log π_ref of the labelled completions, by `identity`."""
    labelled = [one for group in groups for one in group]
    totals = total_log_probs(models, models.reference, episodes_of(labelled))
    return {identity(one): total for one, total in zip(labelled, totals, strict=True)}


def mismatched_pairs(models: Models, labelled: Sequence[LabelledCompletion]) -> MismatchedPairs:
    """Return the mismatched pairs of a batch, with their log-probs under the reference.

    A dialogue is paired only with prompts before which it fits into the models' positions.
    """
    positions = fewest_positions(models.policy, models.reference)

    def fits(i: int, j: int) -> bool:
        return positions is None or len(labelled[i].prompt) + len(labelled[j].completion) <= positions

    others = mismatched([one.prompt for one in labelled], fits)
    pairs = [
        labelled[j]._replace(prompt=one.prompt)
        for i, (one, j) in enumerate(zip(labelled, others, strict=True))
        if j != i
    ]
    episodes = episodes_of(pairs)
    return MismatchedPairs(episodes, torch.tensor(total_log_probs(models, models.reference, episodes)))


def estimate_reference_point(models: Models, pairs: MismatchedPairs) -> float:
    """Return ẑ0 = max(0, mean log-ratio of the mismatched pairs), nats; 0 if there are none."""
    if not pairs.episodes.prompts:
        return 0.0
    policy = torch.tensor(total_log_probs(models, models.policy, pairs.episodes))
    return max(0.0, float((policy - pairs.reference).mean()))


def accumulate_gradients(
    models: Models,
    batch: Sequence[LabelledCompletion],
    reference: Sequence[float],
    point: float,
    weights: LabelWeights,
) -> dict[str, float]:
    """Add up the gradient of the batch's mean loss per label over all processes; return its metrics.

    reference: log π_ref of the batch's completions. point: the reference point.
    """
    settings, processes, policy = models.settings, models.processes, models.policy
    total = sum(one.weight for one in batch)
    mine = list(share(range(len(batch)), processes.rank, processes.count))
    episodes = episodes_of([batch[i] for i in mine])

    def pass_over(budget: int) -> Tensor:
        sums = torch.zeros(3, dtype=torch.float64)
        for part in within_budget(episodes, budget, shares_prompts(policy)):
            ones = [batch[mine[i]] for i in part]
            desirable, undesirable = label_tensors(ones, policy.device)
            known = torch.tensor([reference[mine[i]] for i in part], device=policy.device)
            with computing_in(settings.dtype):
                log_ratios = completion_log_probs(policy, episodes.select(part)) - known
            loss = kto_losses(log_ratios, point, desirable, undesirable, weights, settings.beta).sum()
            (loss / total).backward()
            rewards = settings.beta * log_ratios.detach()
            sums += torch.stack([loss.detach(), (rewards * desirable).sum(), (rewards * undesirable).sum()]).cpu()
        return sums

    sums = models.micro_batches.attempt(episodes.lengths(), pass_over, undo=policy.zero_grad)
    processes.sum_gradients(policy.parameters())
    loss, *rewards = (processes.sum_of(number) for number in sums.tolist())
    counts = {"desirable": sum(one.desirable for one in batch), "undesirable": sum(one.undesirable for one in batch)}
    means = {f"{kind}_reward": reward / n for (kind, n), reward in zip(counts.items(), rewards, strict=True) if n}
    return {"loss": loss / total, "reference_point": point, **means}


def label_tensors(labelled: Sequence[LabelledCompletion], device: Any = "cpu") -> tuple[Tensor, Tensor]:
    """Return the weights of the desirable and of the undesirable labels, [N] each."""
    return (
        torch.tensor([one.desirable for one in labelled], device=device),
        torch.tensor([one.undesirable for one in labelled], device=device),
    )


@torch.no_grad()
def evaluate(
    models: Models,
    held_out: Sequence[LabelledCompletion],
    reference: Sequence[float],
    pairs: MismatchedPairs,
    weights: LabelWeights,
) -> dict[str, float]:
    """Return the mean loss per held-out label, and how well log-ratios separate both kinds (see `separation`)."""
    policy = torch.tensor(total_log_probs(models, models.policy, episodes_of(held_out)), dtype=torch.float64)
    log_ratios = policy - torch.tensor(reference, dtype=torch.float64)
    point = estimate_reference_point(models, pairs)
    desirable, undesirable = label_tensors(held_out)
    losses = kto_losses(log_ratios, point, desirable, undesirable, weights, models.settings.beta)
    metrics = {"held_out_loss": float(losses.sum()) / sum(one.weight for one in held_out)}
    separated = separation(log_ratios, desirable, undesirable)
    return metrics if separated is None else metrics | {"held_out_separation": separated}
