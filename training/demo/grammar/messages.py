"""Messages of customers: a name, an issue and a tone."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from training.demo.grammar.vocabulary import Tone, vocabulary


@dataclass(frozen=True)
class Message:
    """Message of a customer and its attributes. `name` is empty if the customer gives none."""

    text: str
    issue: str
    product: str
    name: str
    tone: str


def message(seed: int, index: int) -> Message:
    """Return the message number `index` of a seed, always the same one."""
    random = Random(f"message/{seed}/{index}")
    words = vocabulary()
    issue = random.choice(list(words.issues.values()))
    tone = random.choice(words.tones)
    product = random.choice(issue.products)
    other = random.choice([word for word in words.products if word != product])
    core = words.fill(random.choice(issue.messages), random, product=product, wrong=other)
    name = random.choice(words.names) if random.random() < 0.75 else ""
    text = words.fill(_around(core, tone, bool(name), random), random, name=name)
    return Message(text, issue.name, product if product in core else "", name, tone.name)


def _around(core: str, tone: Tone, named: bool, random: Random) -> str:
    """Add an optional opening and closing to the core, and a signature if the customer has a name."""
    opening = [random.choice(tone.openings)] if random.random() < 0.6 else []
    closing = [random.choice(tone.closings)] if random.random() < 0.45 else []
    if not named:
        return " ".join([*opening, core, *closing])
    return " ".join([*opening, core, *closing]) + "\n\n" + random.choice(tone.signatures)


def messages(seed: int, count: int) -> Iterator[Message]:
    """Yield `count` messages with different texts."""
    seen: set[str] = set()
    index = 0
    while len(seen) < count:
        candidate = message(seed, index)
        index += 1
        if candidate.text not in seen:
            seen.add(candidate.text)
            yield candidate
