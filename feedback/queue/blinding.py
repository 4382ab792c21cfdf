"""Blinding of sources and gold: orders, numbers and draws that are keyed with a secret of the project.

The secret is `Project.blinding_key`, a random value in the database. So every web host and every restored backup
computes the same values, and a change of SECRET_KEY changes nothing that annotators see.
"""

import hmac
import math
import random

from feedback.models import Membership, Project

HALF_BITS = 26  # of a comparison's number: 52 bits in all, which JavaScript and JSON readers keep exactly
HALF = 1 << HALF_BITS
ROUNDS = 10


def display_order(project: Project, comparison_id: int, annotator_id: int, size: int) -> list[int]:
    """Return positions 0 … size − 1 in an order that is fixed for this annotator and comparison."""
    order = list(range(size))
    random.Random(_digest(project, "order", comparison_id, annotator_id)).shuffle(order)
    return order


def gold_before(project: Project, annotator_id: int, comparison_id: int) -> int:
    """Return how many gold comparisons come before this one in the annotator's work.

    The number is geometric, P(n ≥ k) = p^k with p the share of gold, as if a coin were tossed before each comparison.
    It is fixed for this annotator and comparison: if it were drawn again for each request, a repeated request would
    reveal gold.
    """
    share = project.gold_percent / 100
    if share == 0:
        return 0
    digest = _digest(project, "gold", annotator_id, comparison_id)
    uniform = (int.from_bytes(digest[:8]) + 1) / 2**64  # in (0, 1]
    return int(math.log(uniform) / math.log(share))


def is_trial_first(project: Project, annotator_id: int, of_trial: int, comparison_id: int) -> bool:
    """Return whether the annotator gets the comparison `of_trial` before the other one.

    The probability is the share of the open trial. It is drawn once for this annotator and these two comparisons: if it
    were drawn again for each request, an annotator who gives a comparison back and asks again would get two of them in
    turn, and learn from how often which one belongs to a trial.
    """
    digest = _digest(project, "trial", annotator_id, of_trial, comparison_id)
    return 100 * int.from_bytes(digest[:8]) < project.trial_percent * 2**64


def comparison_number(membership: Membership, comparison_id: int) -> int:
    """Return the number of a comparison on the pages of this member.

    Reviewers and managers see its id, which exports and review pages contain. Annotators get a keyed permutation of
    the ids, a Feistel network (Luby and Rackoff, 1988) with HMAC-SHA-256 as its round function. The ids themselves
    would reveal gold, because gold is imported together and has neighbouring ids.
    """
    if membership.may_review:
        return comparison_id
    left, right = divmod(comparison_id, HALF)
    for step in range(ROUNDS):
        left, right = right, left ^ _round(membership.project, step, right)
    return left * HALF + right


def comparison_id(membership: Membership, number: int) -> int:
    """Invert `comparison_number`. A number that the member never got gives some id."""
    if membership.may_review:
        return number
    left, right = divmod(number % HALF**2, HALF)
    for step in reversed(range(ROUNDS)):
        left, right = right ^ _round(membership.project, step, left), left
    return left * HALF + right


def _round(project: Project, step: int, half: int) -> int:
    return int.from_bytes(_digest(project, "number", step, half)[:4]) % HALF


def _digest(project: Project, purpose: str, *parts: int) -> bytes:
    message = ":".join([purpose, *(str(part) for part in parts)])
    return hmac.digest(project.blinding_key.bytes, message.encode(), "sha256")
