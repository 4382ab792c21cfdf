"""The stored disagreement of a comparison agrees with its rankings, whatever happens to them."""

import random
from collections import defaultdict
from itertools import combinations
from uuid import uuid4

import pytest

from feedback.actions import rankings, review_undo, reviews
from feedback.errors import Conflict
from feedback.models import Comparison, Ranking
from feedback.quality import agreement
from tests.factories import adjudicate, membership, person, rank_next
from tests.feedback.review.outcomes import counters
from tests.lengths import length

pytestmark = pytest.mark.django_db


def assert_disagreement_is_kept(comparisons):
    """Check all comparisons with two queries; return them as they are stored now."""
    live = Ranking.objects.filter(comparison__in=comparisons, is_live=True).exclude(reason="adjudication")
    rankings = defaultdict(list)
    for comparison_id, ranks in live.values_list("comparison_id", "ranks"):
        rankings[comparison_id].append(ranks)
    stored = list(Comparison.objects.filter(pk__in=[each.pk for each in comparisons]).order_by("pk"))
    for kept in stored:
        assert kept.disagreement == pytest.approx(brute_force(rankings[kept.pk]))
    return stored


def brute_force(rankings):
    same = all_ = 0
    for one, other in combinations(rankings, 2):
        counts = agreement.count_equal_preferences(one, other)
        same, all_ = same + counts[0], all_ + counts[1]
    return (all_ - same) / all_ if all_ else 0


@pytest.mark.slow
def test_the_stored_disagreement_is_right_after_every_kind_of_change(project, rita, work):
    generator = random.Random(11)
    members = [membership(person(project, f"p{index}", "annotator"), project) for index in range(4)]
    comparisons = work(6, size=4, wanted_rankings=4)
    decisions = []
    for step in range(length(full=150, short=80)):
        act = generator.choice(["rank", "rank", "revise", "discard", "return", "adjudicate", "undo", "undo"])
        member = generator.choice(members)
        live = list(Ranking.objects.filter(is_live=True, annotator=member.user))
        ranks = [generator.randint(1, 4) for _ in range(4)]
        if act == "rank":
            rank_next(member, ranks)
        elif act == "adjudicate":
            disputed = [each for each in comparisons if each.ranking_count and each.adjudicated_at is None]
            decisions += [adjudicate(rita, each, ranks).review_id for each in disputed[:1]]
        elif act == "revise" and live:
            rankings.revise_ranking(member, generator.choice(live).pk, ranks, idempotency_key=uuid4(), seconds=1.0)
        elif act in ("discard", "return") and live:
            decide = reviews.discard if act == "discard" else reviews.return_ranking
            try:
                decisions.append(decide(rita, generator.choice(live).pk, reason="x").pk)
            except Conflict:  # returning what is overruled
                continue
        elif act == "undo" and decisions:
            try:
                review_undo.undo(rita, decisions.pop(generator.randrange(len(decisions))))
            except Conflict:
                continue
        comparisons = assert_disagreement_is_kept(comparisons)
        if step % 10 == 9:
            for comparison in comparisons:
                counters(comparison)
    assert any(comparison.disagreement > 0 for comparison in comparisons)
