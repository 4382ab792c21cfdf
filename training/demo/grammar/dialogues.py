"""Dialogues of two turns: a customer who does not name the order at first, and a support of all qualities.

The customer's second message contains the order's number. Good support asks for the number, then answers with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from training.demo.grammar.vocabulary import vocabulary

Turns = list[dict[str, str]]

ISSUES = ("late", "refund", "cancel")
OPENINGS = {
    "late": ("Where is my {product}?", "My {product} has not come yet.", "I am still waiting for my {product}."),
    "refund": ("Where is the refund for my {product}?", "I sent my {product} back and want my money."),
    "cancel": ("Please cancel my {product}.", "I do not want the {product} any more, please cancel it."),
}
GREETINGS = ("", "Hello. ", "Good morning. ", "Dear team! ")
CUSTOMER_ANSWERS = ("It is order {number}.", "The invoice is for order {number}.", "I am asking about order {number}.")
# The same word stands before the number in questions and answers, and there are few numbers: so a small model that is
# trained for a minute learns to repeat the number.
NUMBERS = range(120, 140)

# What the support can say. A promise lacks the number of the order.
ASKING = ("Could you tell me the order number, please?", "Which order is it, please?", "What is the order number?")
ANSWERS = {
    "late": ("You get order {number} {when}.", "The parcel of order {number} reaches you {when}."),
    "refund": ("The refund of order {number} is paid {when}.", "You get the money for order {number} {when}."),
    "cancel": ("I have cancelled order {number}.", "I will cancel order {number} {when}."),
}
PROMISES = {
    "late": ("Your parcel comes {when}.",),
    "refund": ("Your refund is paid {when}.",),
    "cancel": ("Your order is cancelled {when}.",),
}
WHEN = ("today", "tomorrow", "on Monday", "on Friday")
COURTESIES = ("I am sorry about that.", "Thank you for writing to us.", "Thank you.")
EVASIONS = ("These things take time.", "We will look into it.", "Please be patient.")
RUDE = ("That is your own problem.", "Read the terms before you write.", "Do not write again.")

# Probability of what a careless and a careful writer says in the first and in the second turn.
FIRST = {"ask": (0.15, 0.85), "promise": (0.3, 0.1), "evasion": (0.3, 0.05), "rude": (0.25, 0.0)}
SECOND = {
    "right": (0.5, 0.9),
    "wrong": (0.1, 0.02),
    "promise": (0.15, 0.07),
    "ask": (0.05, 0.01),
    "evasion": (0.08, 0.0),
    "rude": (0.12, 0.0),
}
COURTESY = (0.1, 0.7)


@dataclass(frozen=True)
class Request:
    """A customer's first message, what it is about, and the second message, with the number of the order."""

    text: str
    issue: str
    number: str
    answer: str


def requests(seed: int, count: int) -> Iterator[Request]:
    """Yield `count` requests with different texts, always the same of a seed."""
    seen: set[str] = set()
    index = 0
    while len(seen) < count:
        candidate = make_request(seed, index)
        index += 1
        if candidate.text not in seen:
            seen.add(candidate.text)
            yield candidate


def make_request(seed: int, index: int) -> Request:
    """Return the request number `index` of a seed."""
    random = Random(f"request/{seed}/{index}")
    issue, number = random.choice(ISSUES), str(random.choice(NUMBERS))
    opening = random.choice(OPENINGS[issue]).replace("{product}", random.choice(vocabulary().products))
    answer = random.choice(CUSTOMER_ANSWERS).replace("{number}", number)
    return Request(random.choice(GREETINGS) + opening, issue, number, answer)


def dialogue(request: Request, random: Random) -> Turns:
    """Write one dialogue after a request: the support, the customer's answer, and the support again."""
    care = random.betavariate(0.7, 0.7)  # in [0, 1], more often near an end than in the middle
    first, second = (_turn(request, _sample_kind(kinds, care, random), care, random) for kinds in (FIRST, SECOND))
    return [
        {"role": "assistant", "content": first},
        {"role": "user", "content": request.answer},
        {"role": "assistant", "content": second},
    ]


def _sample_kind(kinds: dict[str, tuple[float, float]], care: float, random: Random) -> str:
    return random.choices(list(kinds), [_interpolate(kinds[kind], care) for kind in kinds])[0]


def _interpolate(ends: tuple[float, float], care: float) -> float:
    careless, careful = ends
    return (1 - care) * careless + care * careful


def _turn(request: Request, kind: str, care: float, random: Random) -> str:
    courtesy = [random.choice(COURTESIES)] if random.random() < _interpolate(COURTESY, care) else []
    return " ".join([*courtesy, sentence(request, kind, random)])


def sentence(request: Request, kind: str, random: Random) -> str:
    """Write a sentence of a kind of FIRST or SECOND; "right" and "wrong" are answers with such a number."""
    phrases = {
        "ask": ASKING,
        "right": ANSWERS[request.issue],
        "wrong": ANSWERS[request.issue],
        "promise": PROMISES[request.issue],
        "evasion": EVASIONS,
        "rude": RUDE,
    }[kind]
    others = [str(number) for number in NUMBERS if str(number) != request.number]
    number = random.choice(others) if kind == "wrong" else request.number
    return random.choice(phrases).replace("{number}", number).replace("{when}", random.choice(WHEN))


def demonstrations(seed: int, count: int) -> Iterator[tuple[Turns, str]]:
    """Yield the messages before each turn of the support in `count` dialogues, and the turn."""
    for index in range(count):
        request = make_request(seed, index)
        messages = [{"role": "user", "content": request.text}]
        turns = dialogue(request, Random(f"dialogue/{seed}/{index}"))
        yield messages, turns[0]["content"]
        yield [*messages, *turns[:2]], turns[2]["content"]
