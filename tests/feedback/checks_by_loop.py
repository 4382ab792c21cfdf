"""The quality checks as plain loops over rankings, slow and easy to read: the reference for the vectorised ones."""

import math
from collections import Counter, defaultdict
from itertools import combinations
from statistics import median

from feedback.quality.checks import CheckResult, CheckResults
from feedback.quality.checks import results as messages
from feedback.quality.checks.sequential_tests import ALTERNATIVE_ODDS


def check_rankings(rows, gold_pass_mark):
    careful = min(max(gold_pass_mark, 0.6), 0.95)
    clickers, failures, speeds = random_clickers(rows, careful), gold_failures(rows, careful), speed(rows)
    displayed = defaultdict(list)
    for row in rows:
        displayed[row.annotator_id].append([row.ranks[position] for position in row.display_order])
    return {
        who: CheckResults(clickers[who], failures[who], position_bias(displayed[who]), speeds[who])
        for who in sorted(displayed)
    }


def random_clickers(rows, careful):
    everyone, results = {row.annotator_id for row in rows}, {}
    while True:
        flagged = {who for who, result in results.items() if result.is_flagged}
        by_annotator = answers(rows, careful, flagged)
        results |= {who: chance_agreement(by_annotator[who]) for who in everyone - flagged}
        if not any(results[who].is_flagged for who in everyone - flagged):
            return results


def gold_failures(rows, careful):
    to_gold = {row.annotator_id: [] for row in rows}
    for who, _, is_same in compared(row for row in rows if row.gold_ranks is not None):
        to_gold[who].append((is_same, careful))
    return {who: chance_agreement(answers) for who, answers in to_gold.items()}


def answers(rows, careful, flagged):
    pairs = list(compared(rows, flagged))
    agreement, by_annotator = PeerAgreement(pairs), defaultdict(list)
    for who, partner, is_same in pairs:
        least = careful
        if partner is not None:
            least = 0.5 + 0.75 * (agreement.of(partner, without=who) - 0.5)
        by_annotator[who].append((is_same, min(least, 0.95)))
    return by_annotator


def compared(rows, flagged=frozenset()):
    """Yield (annotator, partner or None for gold, whether they prefer the same)."""
    earlier = defaultdict(list)
    for row in rows:
        if row.gold_ranks is not None:
            if (pair := first_preference(row.gold_ranks)) is not None:
                yield row.annotator_id, None, row.ranks[pair[0]] < row.ranks[pair[1]]
        elif row.reason != "disagreement" and row.annotator_id not in flagged:
            others = earlier[row.comparison_id]
            is_same = first_common_preference(row.ranks, others[0].ranks) if others else None
            if is_same is not None:
                yield row.annotator_id, others[0].annotator_id, is_same
                if len(others) == 1:
                    yield others[0].annotator_id, row.annotator_id, is_same
            others.append(row)


class PeerAgreement:
    """Agreement of an annotator with the others, one of them left out."""

    def __init__(self, pairs):
        self.all, self.of_one = [0, 0], defaultdict(lambda: [0, 0])
        self.between, self.against = defaultdict(lambda: [0, 0]), defaultdict(lambda: [0, 0])
        for who, partner, is_same in pairs:
            if partner is not None:
                for count in (self.all, self.of_one[who], self.between[who, partner], self.against[partner]):
                    count[0] += is_same
                    count[1] += 1

    def of(self, partner, without):
        usual = shrunk(minus(minus(self.all, self.of_one[without]), self.against[without]), 0.5)
        return shrunk(minus(self.of_one[partner], self.between[partner, without]), usual)


def minus(count, part):
    return [count[0] - part[0], count[1] - part[1]]


def shrunk(count, prior):
    return (count[0] + 20 * prior) / (count[1] + 20)


def first_preference(ranks):
    for i, j in combinations(range(len(ranks)), 2):
        if ranks[i] != ranks[j]:
            return (i, j) if ranks[i] < ranks[j] else (j, i)
    return None


def first_common_preference(one, other):
    for i, j in combinations(range(len(one)), 2):
        if product := (one[i] - one[j]) * (other[i] - other[j]):
            return product > 0
    return None


def first_passage(wealth):
    return next((step for step, value in enumerate(wealth, start=1) if value >= 100), None)


def chance_agreement(answers):
    informative = [answer for answer in answers if answer[1] > 0.5]
    after = first_passage(guessing_wealth(informative))
    used = informative[:after]
    if not used:
        return CheckResult(None, 0, False, messages.NOTHING_TO_COMPARE)
    same = sum(is_same for is_same, _ in used)
    template = messages.AGREES if after is None else messages.LIKE_CHANCE
    return CheckResult(same / len(used), len(used), after is not None, template, {"same": same}, after)


def guessing_wealth(answers):
    started = 0.0
    for step, (is_right, probability) in enumerate(answers, start=1):
        started = (started + 1 / (step * (step + 1))) * 0.5 / (probability if is_right else 1 - probability)
        yield started + 1 / (step + 1)


def position_bias(displayed_ranks):
    wins = [(ranks[0] == 1, len(ranks)) for ranks in displayed_ranks if ranks.count(1) == 1]
    if not wins:
        return CheckResult(None, 0, False, messages.NO_SINGLE_BEST)
    after = first_passage(first_place_wealth(wins))
    chance = sum(1 / size for _, size in wins) / len(wins)
    share = sum(is_win for is_win, _ in wins) / len(wins)
    return CheckResult(share, len(wins), after is not None, messages.FIRST_WINS, {"chance": chance}, after)


def first_place_wealth(wins):
    stakes = [1 / len(ALTERNATIVE_ODDS)] * len(ALTERNATIVE_ODDS)
    for is_win, size in wins:
        stakes = [
            stake * size * (odds if is_win else 1.0) / (odds + size - 1)
            for stake, odds in zip(stakes, ALTERNATIVE_ODDS, strict=True)
        ]
        yield sum(stakes)


def speed(rows):
    by_size, by_annotator, counted = defaultdict(list), defaultdict(list), Counter()
    for row in rows:
        size, log = len(row.ranks), math.log(max(row.seconds, 0.1))
        by_annotator[row.annotator_id].append((size, log))
        counted[row.annotator_id, size] += 1
        if counted[row.annotator_id, size] <= 200:
            by_size[size].append(log)
    usual = {size: median(logs) for size, logs in by_size.items()}
    spread = {size: 1.4826 * median(abs(log - usual[size]) for log in logs) for size, logs in by_size.items()}
    return {who: speed_of(own, len(rows) - len(own), usual, spread) for who, own in by_annotator.items()}


def speed_of(own, others, usual, spread):
    if len(own) < 10 or others < 30:
        return CheckResult(None, len(own), False, messages.TOO_FEW)
    ahead = [(usual[size] - log) / spread[size] if spread[size] else 0.0 for size, log in own]
    numbers = {"usual": math.exp(median(usual[size] for size, _ in own))}
    seconds = math.exp(median(log for _, log in own))
    return CheckResult(seconds, len(own), median(ahead) > 3.0, messages.MEDIAN_TIME, numbers)
