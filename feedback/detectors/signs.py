"""Signs that somebody does not read what they rank: pure functions of what one annotator said.

Each gives a number, whether it is beyond what chance explains, and a sentence for managers. None of them proves
anything alone: they say whose work to look at.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from django.db.models import Q, QuerySet

from feedback.models import Project, Ranking

FALSE_ALARM = 0.001  # of one test, and of one run of the sequential test
MISSED = 0.05  # random clickers that one run of the sequential test clears
RANDOM = 0.5  # how often one agrees by clicking at random
FAST = 3.0  # robust standard deviations below the project's log seconds
NORMAL_MAD = 1.4826  # a normal distribution's standard deviation, in median absolute deviations


@dataclass(frozen=True)
class Sign:
    """What was measured, on how many rankings."""

    value: float | None
    rankings: int
    is_flagged: bool
    sentence: str


def position_bias(shown_ranks: Iterable[Sequence[int]]) -> Sign:
    """Does what is shown first win too often, or too seldom? `shown_ranks` are rankings in the order of display.

    Of rankings with one best completion among K, the first place should win 1/K of them. The score test of a sum of
    independent Bernoulli trials with these chances; two-sided, by the normal approximation.
    """
    wins = expected = variance = 0.0
    count = 0
    for ranks in shown_ranks:
        if ranks.count(1) != 1:
            continue
        chance = 1 / len(ranks)
        wins += ranks[0] == 1
        expected += chance
        variance += chance * (1 - chance)
        count += 1
    if not count:
        return Sign(None, 0, False, "There is no ranking with a single best completion yet.")
    p = math.erfc(abs(wins - expected) / math.sqrt(2 * variance))
    share = wins / count
    sentence = f"What is shown first wins {share:.0%} of {count} rankings; {expected / count:.0%} is chance."
    return Sign(share, count, p < FALSE_ALARM, sentence)


def speed(seconds: Sequence[float], everyone: Sequence[float]) -> Sign:
    """Is this annotator's median time far below what is usual in the project?

    Log seconds, since times are skewed; the spread is the median absolute deviation of everyone's, which outliers do
    not move (Leys et al. 2013, Journal of Experimental Social Psychology 49).
    """
    if len(seconds) < 10 or len(everyone) < 30:
        return Sign(None, len(seconds), False, "There are too few rankings to judge the speed.")
    logs = [math.log(max(each, 0.1)) for each in everyone]
    usual = median(logs)
    spread = NORMAL_MAD * median(abs(each - usual) for each in logs)
    own = median(math.log(max(each, 0.1)) for each in seconds)
    sentence = f"Takes {math.exp(own):.1f} s in the median; {math.exp(usual):.1f} s is usual here."
    is_fast = spread > 0 and (usual - own) / spread > FAST
    return Sign(math.exp(own), len(seconds), is_fast, sentence)


def random_clicker(agreed: Iterable[bool], honest: float) -> Sign:
    """Wald's sequential test of «agrees by chance» against «agrees as others do» (Wald 1945, Sequential Tests).

    `agreed`, in the order of time: whether the annotator preferred what others (or gold) prefer, one pair a
    comparison, so that the answers are independent; `honest` is how often people do, above one half. Flagged as soon
    as the likelihood ratio passes (1 − β)/α, with α the chance of a false alarm and β of a miss; cleared at β/(1 − α),
    after which the test runs again, so that one who grows careless is found too. The stated rate is that of one run,
    which clears a careful annotator (honest = 0.73) in about 27 comparisons: one false alarm in some 27,000 of them.
    """
    if not RANDOM < honest < 1:
        return Sign(None, 0, False, "People agree too little here to tell chance from care.")
    flag, clear = math.log((1 - MISSED) / FALSE_ALARM), math.log(MISSED / (1 - FALSE_ALARM))
    ratio, count, same = 0.0, 0, 0
    for count, each in enumerate(agreed, start=1):
        same += each
        ratio += math.log(RANDOM / honest) if each else math.log(RANDOM / (1 - honest))
        if ratio >= flag:
            sentence = f"After {count} comparisons this looks like chance: {same} agree with others."
            return Sign(same / count, count, True, sentence)
        if ratio <= clear:
            ratio = 0.0
    if not count:
        return Sign(None, 0, False, "Nothing of this was ranked by others or is gold.")
    return Sign(same / count, count, False, f"{same} of {count} comparisons agree with others.")


def position_biases(project: Project) -> dict[int, Sign]:
    """By user id, of the project's live rankings."""
    shown: dict[int, list[list[int]]] = {}
    rows = _live(project).values_list("annotator_id", "ranks", "display_order")
    for annotator_id, ranks, order in rows.iterator(chunk_size=2000):
        shown.setdefault(annotator_id, []).append([ranks[position] for position in order])
    return {each: position_bias(ranks) for each, ranks in sorted(shown.items())}


def speeds(project: Project) -> dict[int, Sign]:
    """By user id, of the project's live rankings."""
    seconds: dict[int, list[float]] = {}
    for annotator_id, taken in _live(project).values_list("annotator_id", "seconds").iterator(chunk_size=2000):
        seconds.setdefault(annotator_id, []).append(taken)
    everyone = [each for own in seconds.values() for each in own]
    return {each: speed(own, everyone) for each, own in sorted(seconds.items())}


def random_clickers(project: Project, honest: float = 0.73) -> dict[int, Sign]:
    """By user id: each against gold, or else against the first other person who ranked the same comparison.

    0.73 is how often two careful annotators agree (InstructGPT: 73 to 77 %).
    """
    comparable = Q(comparison__ranking_count__gte=2) | Q(comparison__gold_ranks__isnull=False)
    rows = _live(project).filter(comparable).order_by("created_at", "id")
    fields = rows.values_list("comparison_id", "annotator_id", "ranks", "comparison__gold_ranks")
    said: dict[int, list[tuple[int, list[int]]]] = {}
    own: dict[int, list[bool]] = {}
    for comparison_id, annotator_id, ranks, gold_ranks in fields.iterator(chunk_size=2000):
        before = said.setdefault(comparison_id, [])
        others = gold_ranks or next((given for other, given in before if other != annotator_id), None)
        if others is not None and (agrees := first_common_preference(ranks, others)) is not None:
            own.setdefault(annotator_id, []).append(agrees)
            if gold_ranks is None:
                own.setdefault(before[0][0], []).append(agrees)
        before.append((annotator_id, ranks))
    return {each: random_clicker(agreed, honest) for each, agreed in sorted(own.items())}


def first_common_preference(one: Sequence[int], other: Sequence[int]) -> bool | None:
    """Whether two rankings agree on the first pair that both decide; None when there is no such pair."""
    for i in range(len(one)):
        for j in range(i + 1, len(one)):
            product = (one[i] - one[j]) * (other[i] - other[j])
            if product:
                return product > 0
    return None


def _live(project: Project) -> QuerySet[Ranking]:
    return Ranking.objects.live_in(project)
