"""Everybody's signs, from a project's rankings read once."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from feedback.models import Lease, Project, Ranking
from feedback.quality.checks.results import Answer, Sign, Timed, careless, position_bias, speed

TOLERATED = 0.75  # of what others' agreement is above chance: who reaches that much is careful enough
DOUBT = 20  # comparisons: what little is known is outweighed by
HONEST_ON_GOLD = (0.6, 0.95)  # limits of the share of gold preferences that a careful annotator shares


class Seen(NamedTuple):
    """A ranking, as far as signs go."""

    annotator_id: int
    comparison_id: int
    ranks: Sequence[int]
    display_order: Sequence[int]
    seconds: float
    reason: str
    gold_ranks: Sequence[int] | None


@dataclass(frozen=True)
class Signs:
    """One annotator's signs. Each is of its own kind, with its own chance of a false alarm."""

    random_clicker: Sign  # agreement with others and with gold, in the order of time
    gold_failure: Sign  # with gold alone
    position_bias: Sign
    speed: Sign

    @property
    def flagged(self) -> dict[str, Sign]:
        return {name: sign for name, sign in vars(self).items() if sign.is_flagged}


def signs_of(project: Project) -> dict[int, Signs]:
    """By user id, of everybody with a live ranking in the project: one query."""
    rows = Ranking.objects.live_in(project).order_by("created_at", "id")
    fields = ("annotator_id", "comparison_id", "ranks", "display_order", "seconds", "reason")
    seen = [Seen(*row) for row in rows.values_list(*fields, "comparison__gold_ranks").iterator(chunk_size=5000)]
    return signs(seen, project.qualification_percent / 100)


def signs(seen: Sequence[Seen], asked_of_gold: float) -> dict[int, Signs]:
    """Of rankings in the order of time. `asked_of_gold`: the share of gold preferences that the project asks for."""
    shown: dict[int, list[list[int]]] = defaultdict(list)
    for each in seen:
        shown[each.annotator_id].append([each.ranks[position] for position in each.display_order])
    honest = min(max(asked_of_gold, HONEST_ON_GOLD[0]), HONEST_ON_GOLD[1])
    clickers, failures = random_clickers(seen, honest), gold_failures(seen, honest)
    speeds = speed([Timed(each.annotator_id, len(each.ranks), each.seconds) for each in seen])
    return {who: Signs(clickers[who], failures[who], position_bias(shown[who]), speeds[who]) for who in sorted(shown)}


def random_clickers(seen: Sequence[Seen], honest_on_gold: float) -> dict[int, Sign]:
    """By annotator. Whoever is flagged is no measure of others: the rest are looked at again without them."""
    everyone = {each.annotator_id for each in seen}
    found: dict[int, Sign] = {}
    while True:
        flagged = frozenset(who for who, sign in found.items() if sign.is_flagged)
        every = answers(seen, honest_on_gold, flagged)
        found |= {who: careless(every[who]) for who in everyone - flagged}
        if not any(found[who].is_flagged for who in everyone - flagged):
            return found


def gold_failures(seen: Sequence[Seen], honest: float) -> dict[int, Sign]:
    """By annotator: of their answers to gold alone."""
    of_gold: dict[int, list[Answer]] = {each.annotator_id: [] for each in seen}
    for who, partner, is_same in meetings(each for each in seen if each.gold_ranks is not None):
        assert partner is None
        of_gold[who].append(Answer(is_same, honest))
    return {who: careless(found) for who, found in of_gold.items()}


class Met(NamedTuple):
    """What an annotator said of one pair of completions, beside what a partner did, or gold (no partner)."""

    who: int
    partner: int | None
    is_same: bool


def answers(
    seen: Iterable[Seen], honest_on_gold: float, flagged: frozenset[int] = frozenset()
) -> dict[int, list[Answer]]:
    """By annotator, in the order of time, to gold and to others who are not flagged.

    An honest person in k's place agrees with l as often as l's other partners do. The least that is asked of k is three
    quarters of what that is above chance. So whoever is paired with a clicker is not blamed for it, and of two people
    who only ever meet each other nobody is: nobody can know which of them it is.
    """
    met = list(meetings(seen, flagged))
    expected = _Expected(met)
    every: dict[int, list[Answer]] = defaultdict(list)
    for who, partner, is_same in met:
        least = honest_on_gold
        if partner is not None:
            least = 0.5 + TOLERATED * (expected.agreement(partner, without=who) - 0.5)
        every[who].append(Answer(is_same, min(least, HONEST_ON_GOLD[1])))
    return every


def meetings(seen: Iterable[Seen], flagged: frozenset[int] = frozenset()) -> Iterator[Met]:
    """One answer a person and comparison, so that a person's answers are independent: to gold, or else to the first
    other person who ranked it, whose own answer is to the second. Nobody is held against somebody who is flagged.

    Those who were asked because others disagreed are left out: agreeing with one side is no sign of care there.
    """
    before: dict[int, list[Seen]] = defaultdict(list)
    for each in seen:
        if each.gold_ranks is not None:
            if (pair := first_preference(each.gold_ranks)) is not None:
                yield Met(each.annotator_id, None, each.ranks[pair[0]] < each.ranks[pair[1]])
        elif each.reason != Lease.Reason.DISAGREEMENT and each.annotator_id not in flagged:
            others = before[each.comparison_id]
            is_same = first_common_preference(each.ranks, others[0].ranks) if others else None
            if is_same is not None:
                yield Met(each.annotator_id, others[0].annotator_id, is_same)
                if len(others) == 1:
                    yield Met(others[0].annotator_id, each.annotator_id, is_same)
            others.append(each)


class _Expected:
    """How often each annotator agrees with the others, leaving somebody out."""

    def __init__(self, met: Iterable[Met]) -> None:
        self.known: dict[tuple[int, int], float] = {}
        self.all = Counts()
        self.of: dict[int, Counts] = defaultdict(Counts)
        self.between: dict[tuple[int, int], Counts] = defaultdict(Counts)  # by who, with whom
        self.against: dict[int, Counts] = defaultdict(Counts)
        for who, partner, is_same in met:
            if partner is not None:
                for counts in (self.all, self.of[who], self.between[who, partner], self.against[partner]):
                    counts.add(is_same)

    def agreement(self, partner: int, without: int) -> float:
        """The partner's agreement with people other than `without`, drawn to everybody's as far as little is known."""
        if (partner, without) not in self.known:
            usual = (self.all - self.of[without] - self.against[without]).share(0.5)
            self.known[partner, without] = (self.of[partner] - self.between[partner, without]).share(usual)
        return self.known[partner, without]


@dataclass
class Counts:
    same: int = 0
    all: int = 0

    def add(self, is_same: bool) -> None:
        self.same, self.all = self.same + is_same, self.all + 1

    def __sub__(self, part: "Counts") -> "Counts":
        return Counts(self.same - part.same, self.all - part.all)

    def share(self, otherwise: float) -> float:
        return (self.same + DOUBT * otherwise) / (self.all + DOUBT)


def first_preference(ranks: Sequence[int]) -> tuple[int, int] | None:
    """(better, worse) of the first pair of positions that the ranking decides."""
    for i, j in combinations(range(len(ranks)), 2):
        if ranks[i] != ranks[j]:
            return (i, j) if ranks[i] < ranks[j] else (j, i)
    return None


def first_common_preference(one: Sequence[int], other: Sequence[int]) -> bool | None:
    """Whether two rankings agree on the first pair that both decide; None when there is no such pair."""
    for i, j in combinations(range(len(one)), 2):
        if product := (one[i] - one[j]) * (other[i] - other[j]):
            return product > 0
    return None
