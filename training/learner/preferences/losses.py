"""Losses of rankings: Bradley–Terry and its extensions to ties and orders, as pure functions of tensors.

A ranking of K completions is a weak order. Its likelihood is one of two:

* that of its K(K−1)/2 pairs, each with an equal share of the ranking's weight (InstructGPT, Ouyang et al. 2022, §3.5),
  under a *tie model*: Bradley–Terry (1952) alone, Rao–Kupper (1967) or Davidson (1970);
* that of a sequence of choices, best first (Plackett 1975, Luce 1959), for strict orders only.

Both tie models have one parameter, `tie_logit`: the log-odds that two equally good completions are called a tie. It
means the same in both and is unbounded. With t = sigmoid(tie_logit), Rao–Kupper's θ is (1+t)/(1−t) and Davidson's ν is
2t/(1−t). At tie_logit = −inf, so θ = 1 and ν = 0, both are exactly Bradley–Terry.

All computations are in log space. Scores are in nats: a difference of d means odds of exp(d).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

LOG_4 = math.log(4.0)
LOG_2 = math.log(2.0)


class Outcomes(NamedTuple):
    """Log-probabilities of the three outcomes of a pair; each has the shape of the score difference."""

    win: Tensor
    tie: Tensor
    loss: Tensor


class Pairs(NamedTuple):
    """The P pairs of some rankings, as indices into one vector of scores.

    In a tie, `better` and `worse` are in the order of the ranking's completions and have no meaning.
    """

    better: Tensor  # int64 [P]
    worse: Tensor  # int64 [P]
    tied: Tensor  # bool [P]
    weight: Tensor  # float [P], the ranking's weight divided by its number of pairs
    margin: Tensor  # float [P], nats; 0 for ties
    ranking: Tensor  # int64 [P], index of the ranking it comes from


def bradley_terry(difference: Tensor, tie_logit: Tensor) -> Outcomes:
    """Return P(i over j) = sigmoid(s_i − s_j); a tie is half a win and half a loss (Bradley & Terry 1952).

    This is the cross-entropy with the label ½. `tie` is then not a log-probability (the other two sum to one), and
    `tie_logit` is not used.
    """
    win, loss = logsigmoid(difference), logsigmoid(-difference)
    return Outcomes(win, (win + loss) / 2, loss)


def rao_kupper(difference: Tensor, tie_logit: Tensor) -> Outcomes:
    """Return outcomes by Rao & Kupper 1967: a tie if the perceived difference is below the threshold log θ.

    With π = exp(s): P(i over j) = π_i / (π_i + θπ_j), P(tie) = (θ²−1)·P(i over j)·P(j over i), θ = (1+t)/(1−t) ≥ 1.
    """
    log_t, log_not_t = logsigmoid(tie_logit), logsigmoid(-tie_logit)
    threshold = torch.log1p(tie_logit.sigmoid()) - log_not_t
    win, loss = logsigmoid(difference - threshold), logsigmoid(-difference - threshold)
    return Outcomes(win, win + loss + LOG_4 + log_t - 2 * log_not_t, loss)


def davidson(difference: Tensor, tie_logit: Tensor) -> Outcomes:
    """Return outcomes by Davidson 1970: P(tie) is proportional to the geometric mean of both strengths.

    With π = exp(s): P(i over j) : P(tie) : P(j over i) = π_i : ν·sqrt(π_i·π_j) : π_j,  ν = 2t/(1−t) ≥ 0.
    """
    win, loss = logsigmoid(difference), logsigmoid(-difference)
    # sqrt(π_i·π_j)/(π_i + π_j) = sqrt(sigmoid(d)·sigmoid(−d)), so this is the log-odds of a tie against a decision.
    tie_odds = LOG_2 + tie_logit + (win + loss) / 2
    decided = logsigmoid(-tie_odds)
    return Outcomes(win + decided, logsigmoid(tie_odds), loss + decided)


TIE_MODELS: dict[str, Callable[[Tensor, Tensor], Outcomes]] = {
    "bradley_terry": bradley_terry,
    "rao_kupper": rao_kupper,
    "davidson": davidson,
}


def tie_logit_of_share(tied_share: float) -> float:
    """Return the tie_logit at which equally good completions tie with probability `tied_share` (in [0, 1))."""
    return math.log(tied_share) - math.log1p(-tied_share) if tied_share > 0 else -math.inf


def pairs_of_rankings(
    rankings: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    weights: Sequence[float],
    margins: Sequence[float],
    ties: bool = True,
) -> Pairs:
    """Return all pairs of all rankings; the pairs of a ranking share its weight equally.

    rankings: ranks (1 is best, equal ranks tie). positions: index of each completion's score. margins: nats that are
    subtracted from the score difference of a ranking's pairs (Llama 2, Touvron et al. 2023, eq. 2). Without `ties`,
    tied pairs are left out and the strict ones share the weight; a ranking of ties alone then has no pairs.
    """
    by_ranking = [_pairs_of_one(ranks, places, ties) for ranks, places in zip(rankings, positions, strict=True)]
    flat = [pair for pairs in by_ranking for pair in pairs]
    ranking = torch.tensor([number for number, pairs in enumerate(by_ranking) for _ in pairs], dtype=torch.int64)
    tied = torch.tensor([pair[2] for pair in flat], dtype=torch.bool)
    share = torch.tensor([w / max(len(pairs), 1) for w, pairs in zip(weights, by_ranking, strict=True)])
    return Pairs(
        better=torch.tensor([pair[0] for pair in flat], dtype=torch.int64),
        worse=torch.tensor([pair[1] for pair in flat], dtype=torch.int64),
        tied=tied,
        weight=share.float()[ranking],
        margin=torch.tensor(margins, dtype=torch.float32)[ranking].masked_fill(tied, 0.0),
        ranking=ranking,
    )


def _pairs_of_one(ranks: Sequence[int], places: Sequence[int], ties: bool) -> list[tuple[int, int, bool]]:
    """Return (better, worse, tied) by place, in the ranking's order."""
    pairs = []
    for i in range(len(ranks)):
        for j in range(i + 1, len(ranks)):
            if ranks[i] == ranks[j]:
                if ties:
                    pairs.append((places[i], places[j], True))
            elif ranks[i] < ranks[j]:
                pairs.append((places[i], places[j], False))
            else:
                pairs.append((places[j], places[i], False))
    return pairs


def pair_losses(scores: Tensor, pairs: Pairs, tie_model: str, tie_logit: Tensor) -> Tensor:
    """Return the unweighted negative log-likelihood of each pair in nats, [P] or [P, H].

    scores: [N], or [N, H] for H heads at once. A constant added to all scores of a prompt changes nothing.
    """
    has_heads = scores.dim() > 1
    margin, tied = (pairs.margin[:, None], pairs.tied[:, None]) if has_heads else (pairs.margin, pairs.tied)
    difference = scores[pairs.better] - scores[pairs.worse] - margin
    outcome = TIE_MODELS[tie_model](difference, tie_logit)
    # At tie_logit = −inf the log-likelihood of a tie is −inf. Its gradient would be NaN even in elements that
    # torch.where does not select, so it is used only if there are ties.
    return -torch.where(tied, outcome.tie, outcome.win) if bool(pairs.tied.any()) else -outcome.win


def plackett_luce(ordered_scores: Tensor) -> Tensor:
    """Return the negative log-likelihood of strict orders, nats per choice, [...] (Plackett 1975; Luce 1959).

    ordered_scores: [..., K], best first. The result is −Σ_k (s_k − log Σ_{l≥k} exp s_l), divided by the K−1 choices, so
    that a ranking's weight does not depend on K. For K = 2 it is Bradley–Terry.
    """
    choices = ordered_scores.shape[-1] - 1
    remaining = torch.logcumsumexp(ordered_scores.flip(-1), dim=-1).flip(-1)
    return (remaining - ordered_scores).sum(-1) / choices
