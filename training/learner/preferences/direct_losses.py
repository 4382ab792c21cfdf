"""Losses of direct preference learning: pure functions of implicit rewards, in nats.

The implicit reward of a completion is β·log(π(y|x) / π_ref(y|x)) (Rafailov et al. 2023, "Direct preference
optimization", equation 5; the term that depends on the prompt alone cancels in all losses here), for SimPO
β·log π(y|x) / |y| (Meng et al. 2024, equation 4). Ties:

- Pairs under dpo and simpo: the tie models of `preferences.losses`, with the implicit reward as score. Chen et al.
  2024, "On extending direct preference optimization to accommodate ties", derive DPO with Rao–Kupper and Davidson.
- ipo: a tie is a preference with probability ½, whose target is 0.
- Whole rankings: the Davidson–Luce model, which is Davidson's for pairs and Plackett–Luce's for strict orders.
"""

import torch
from torch import Tensor

from training.learner.preferences.losses import LOG_2, Pairs, pair_losses

EMPTY = -1e30  # log of a sum without terms; −inf would give NaN gradients in logaddexp


def smoothed_pair_losses(
    rewards: Tensor, pairs: Pairs, tie_model: str, tie_logit: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Return the loss of each pair, [P]: −log P(outcome), for DPO −log sigmoid(r_w − r_l) (Rafailov et al., eq. 7).

    With label_smoothing ε: (1 − ε)·loss + ε·loss of the flipped pair (Mitchell 2023, "A note on DPO with noisy
    preferences & relationship to IPO", equation 3). A tie is the same flipped.
    """
    losses = pair_losses(rewards, pairs, tie_model, tie_logit)
    if not label_smoothing:
        return losses
    flipped = pairs._replace(better=pairs.worse, worse=pairs.better, margin=-pairs.margin)
    return losses.lerp(pair_losses(rewards, flipped, tie_model, tie_logit), label_smoothing)


def ipo_losses(rewards: Tensor, pairs: Pairs, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Return (h − 1/(2β))² of each pair, [P], h the difference of log-ratios (Azar et al. 2023, equation 17; β: its τ).

    Equation 17 is the mean of (h − I/β)² over the two orders of a pair with I = 1 and 0, without a constant. So a tie,
    I = ½ in both, has the target 0, and a label that is wrong with probability ε mixes both squares.
    """
    h = (rewards[pairs.better] - rewards[pairs.worse]) / beta
    target = 1 / (2 * beta)
    strict = (h - target).square().lerp((h + target).square(), label_smoothing)
    return torch.where(pairs.tied, h.square(), strict)


def davidson_luce(ordered_rewards: Tensor, ranks: Tensor, tie_logit: Tensor) -> Tensor:
    """Return the negative log-likelihood of weak orders, nats per choice, [R]; see below.

    ordered_rewards: [R, K], best first. ranks: [R, K], their ranks in ascending order; equal ranks tie.

    A ranking is a sequence of choices among the completions that are left, best first; a choice C may have several
    completions, which are tied. P(C) ∝ δ_n·(Π_{i∈C} exp r_i)^(1/n), n = |C| (Firth, Kosmidis & Turner 2019,
    "Davidson–Luce model for multi-item choice with ties"). δ_1 = 1; we set δ_n = ν^(n−1) with Davidson's ν = 2t/(1−t),
    t = sigmoid(tie_logit), where the source has one parameter for every n. Without ties and ν = 0 this is the loss of
    Rafailov et al. 2023, appendix A.3, equation 20; for K = 2 it is Davidson's model.

    The sum over all choices of size n is an elementary symmetric polynomial, so K steps compute it for all K stages
    and all sizes, not 2^K. The result is divided by K − 1, so that a ranking's weight does not depend on K.
    """
    rows, count = ordered_rewards.shape
    sizes = torch.arange(1, count + 1, device=ordered_rewards.device)
    log_delta = ordered_rewards.new_zeros(count)
    if count > 1:
        log_nu = LOG_2 + tie_logit  # ν = 2t/(1−t) = 2·exp(tie_logit)
        log_delta = torch.cat([log_delta[:1], (sizes[1:] - 1) * log_nu])
    # sums[:, n − 1, j]: log of the sum over j of the completions so far of Π exp(r_i / n), from the worst one on.
    empty = torch.full((rows, count, count), EMPTY, device=ordered_rewards.device, dtype=ordered_rewards.dtype)
    sums = torch.cat([torch.zeros_like(empty[:, :, :1]), empty], 2)
    normalisers = []  # of the stage at which the completions from here on are left
    for place in reversed(range(count)):
        with_one_more = sums[:, :, :-1] + (ordered_rewards[:, place, None] / sizes)[:, :, None]
        sums = torch.cat([sums[:, :, :1], torch.logaddexp(sums[:, :, 1:], with_one_more)], 2)
        left = count - place
        all_of_size = torch.diagonal(sums[:, :, 1:], dim1=1, dim2=2)[:, :left]
        normalisers.append((all_of_size + log_delta[:left]).logsumexp(1))
    first = torch.cat([torch.ones_like(ranks[:, :1], dtype=torch.bool), ranks[:, 1:] != ranks[:, :-1]], 1)
    tied = (ranks[:, :, None] == ranks[:, None]).sum(2)  # size of each completion's choice
    # At tie_logit = −inf a tie has no likelihood; its gradient would be NaN even for strict orders.
    log_ties = log_delta[tied - 1] if bool((tied > 1).any()) else torch.zeros_like(ordered_rewards)
    choices = torch.stack(normalisers[::-1], 1) - log_ties
    return ((choices * first).sum(1) - (ordered_rewards / tied).sum(1)) / (count - 1)
