"""Reading comprehension from the demo's grammar: a customer's message, a question about it, and its answer.

A reader needs the passage: names, products and problems are drawn independently of the question.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from training.demo.grammar.messages import Message, message
from training.demo.grammar.vocabulary import vocabulary

QUESTIONS = {
    "name": "Who wrote this message?",
    "product": "Which product is it about?",
    "issue": "What is the problem?",
}


@dataclass(frozen=True)
class Reading:
    """A passage, a question of a kind, the right answer, and wrong ones of the same kind."""

    passage: str
    question: str
    answer: str
    wrong: tuple[str, ...]

    @property
    def prompt(self) -> str:
        """The text of the prompt."""
        return f"{self.passage}\n\n{self.question}"


def readings(seed: int, count: int) -> Iterator[Reading]:
    """Yield `count` readings of messages that answer their question, always the same of a seed."""
    index = made = 0
    while made < count:
        asked, random = message(seed, index), Random(f"reading/{seed}/{index}")
        index += 1
        answers = answers_of(asked)
        kind = random.choice(list(QUESTIONS))
        if answers[kind]:
            made += 1
            wrong = tuple(other for other in candidates(kind) if other != answers[kind])
            yield Reading(asked.text, QUESTIONS[kind], answers[kind], wrong)


def logged_answer(reading: Reading, random: Random) -> str:
    """Return an answer as a log holds them: right, partly right, evasive or wrong."""
    return random.choices(
        (reading.answer, f"{random.choice(reading.wrong)} or {reading.answer}", "I do not know",
         random.choice(reading.wrong)),
        (0.4, 0.2, 0.15, 0.25),
    )[0]  # fmt: skip


def answers_of(asked: Message) -> dict[str, str]:
    """Return the answer to every kind of question; empty if the message does not contain it."""
    return {"name": asked.name, "product": asked.product, "issue": asked.issue.replace("_", " ")}


def candidates(kind: str) -> tuple[str, ...]:
    """Return all answers of a kind."""
    words = vocabulary()
    issues = tuple(name.replace("_", " ") for name in words.issues)
    return {"name": words.names, "product": words.products, "issue": issues}[kind]
