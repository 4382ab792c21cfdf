"""What reviewers decide about others' rankings: adjudicate, return, discard, and undo each.

Nothing is edited or lost. A decision is a `Review`, and every ranking that it changes gets a further revision with
another standing, so that whoever reads the record by cursor learns of it.

    adjudicate  the reviewer ranks the comparison, and theirs is its only ranking that makes preferences. The others
                are overruled: they stay opinions, which agreement and signs are measured on (theirs, given with the
                others in view, is none). The comparison is settled: it wants no further ranking, who holds it loses
                the hold, and no more opinions are asked. Gold cannot be adjudicated: its answer is known.
    return      the ranking counts no more until its annotator has answered. They get the comparison again, with what
                they said and the reason, before new work; what they submit is the next revision. Their slot is held
                for a week, and then open to others.
    discard     the ranking leaves preferences, agreement and gold pass rates, and its slot opens, so that somebody
                else reaches the overlap. Its annotator is not offered the comparison again.
    undo        the rankings have the standing that they would have without the decision. Where others have taken the
                slot meanwhile, the comparison wants one ranking more, since both are good. Of many at once, those that
                were answered since stay as they are.

Locks: the reviewer's membership, leases, comparisons by id. Nothing waits for a lease while it holds another one.
"""

from feedback.review.cases import (
    Case,
    Neighbours,
    Opinion,
    beside,
    beside_in_work,
    case,
    decisions,
    disagreements,
    work_of,
)
from feedback.review.deciding import (
    Toll,
    adjudicate,
    discard,
    discard_since,
    return_ranking,
    toll_of_discarding,
)
from feedback.review.revisions import LONGEST_REASON
from feedback.review.undoing import undo

__all__ = [
    "LONGEST_REASON",
    "Case",
    "Neighbours",
    "Opinion",
    "Toll",
    "adjudicate",
    "beside",
    "beside_in_work",
    "case",
    "decisions",
    "disagreements",
    "discard",
    "discard_since",
    "return_ranking",
    "toll_of_discarding",
    "undo",
    "work_of",
]
