"""Replies of all qualities: traits are sampled, then written as text."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from training.demo.grammar.messages import Message, message
from training.demo.grammar.vocabulary import Issue, vocabulary

# Probability of each trait in replies of a careless and of a careful writer. A writer is between the two, so faults are
# correlated, but a good reply can have one and a bad reply can lack one.
CARELESS = {
    "topic": {"right": 0.5, "other": 0.1, "vague": 0.4},
    "tone": {"warm": 0.05, "plain": 0.35, "rude": 0.6},
    "step": {"clear": 0.1, "vague": 0.4, "none": 0.5},
    "length": {"normal": 0.45, "rambling": 0.4, "brief": 0.15},
    "name": {"right": 0.5, "none": 0.35, "wrong": 0.15},
    "product": {"right": 0.6, "none": 0.25, "wrong": 0.15},
}
CAREFUL = {
    "topic": {"right": 0.97, "other": 0.01, "vague": 0.02},
    "tone": {"warm": 0.85, "plain": 0.15, "rude": 0.0},
    "step": {"clear": 0.9, "vague": 0.08, "none": 0.02},
    "length": {"normal": 0.92, "rambling": 0.06, "brief": 0.02},
    "name": {"right": 0.9, "none": 0.09, "wrong": 0.01},
    "product": {"right": 0.9, "none": 0.09, "wrong": 0.01},
}


@dataclass(frozen=True)
class Traits:
    """Traits that make a reply good or bad. The fields are the keys of the tables, in the same order."""

    topic: str = "right"
    tone: str = "warm"
    step: str = "clear"
    length: str = "normal"
    name: str = "right"
    product: str = "right"


def draw_traits(random: Random) -> Traits:
    """Sample the traits of a reply: first the carefulness of its writer, then each trait independently."""
    care = random.betavariate(0.7, 0.7)  # in [0, 1], more often near an end than in the middle

    def draw(trait: str) -> str:
        careless, careful = CARELESS[trait], CAREFUL[trait]
        weights = [(1 - care) * careless[value] + care * careful[value] for value in careless]
        return random.choices(list(careless), weights)[0]

    return Traits(*(draw(trait) for trait in CARELESS))


def reply(to: Message, traits: Traits, random: Random) -> str:
    """Write one reply to a message with these traits."""
    greeting = _greeting(to, traits, random)
    body = [*_opening(traits, random), *_answer_and_step(to, traits, random)]
    return "\n\n".join([*greeting, " ".join(body), *_closing(traits, random)])


def demonstrations(seed: int, count: int) -> Iterator[tuple[Message, str]]:
    """Yield `count` messages, each with a reply of sampled traits."""
    for index in range(count):
        asked = message(seed, index)
        random = Random(f"reply/{seed}/{index}")
        yield asked, reply(asked, draw_traits(random), random)


def _greeting(to: Message, traits: Traits, random: Random) -> list[str]:
    words = vocabulary()
    if traits.length == "brief" or traits.name == "none" or (traits.tone == "rude" and random.random() < 0.5):
        return []
    if not to.name and (traits.name == "right" or random.random() < 0.5):
        return [random.choice(words.reply["greetings_without_name"])]
    name = to.name if traits.name == "right" else random.choice([name for name in words.names if name != to.name])
    return [random.choice(words.reply["greetings"]).replace("{name}", name)]


def _opening(traits: Traits, random: Random) -> list[str]:
    kind = {"warm": "courtesies", "rude": "rude_openings"}.get(traits.tone)
    return [random.choice(vocabulary().reply[kind])] if kind else []


def _answer_and_step(to: Message, traits: Traits, random: Random) -> list[str]:
    words = vocabulary()
    issue = words.issues[to.issue]
    if traits.topic == "other":
        issue = random.choice([other for other in words.issues.values() if other.name != to.issue])
    answer = random.choice(words.reply["vague_answers"] if traits.topic == "vague" else issue.answers)
    product = _product(to, traits, issue, random)
    body = [words.fill(answer, random, product=product)]
    rambles = random.sample(words.reply["rambles"], 2)[: random.choice((1, 1, 2))]
    if traits.length == "rambling":
        body += rambles
    if traits.step == "clear":
        body.append(words.fill(random.choice(issue.steps), random, product=product))
    elif traits.step == "vague":
        body.append(random.choice(words.reply["vague_steps"]))
    return body[-1:] if traits.length == "brief" else body


def _product(to: Message, traits: Traits, issue: Issue, random: Random) -> str:
    """Return the word for the product: the customer's, a general one, or a wrong one."""
    if traits.product == "right":
        return to.product or "item"
    if traits.product == "none":
        return "item"
    return random.choice([word for word in issue.products if word != to.product])


def _closing(traits: Traits, random: Random) -> list[str]:
    if traits.length == "brief" or random.random() < 0.45 or traits.tone == "plain":
        return []
    return [random.choice(vocabulary().reply["closings" if traits.tone == "warm" else "rude_closings"])]
