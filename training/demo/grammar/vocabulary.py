"""Phrases of the demo's grammar, from `phrases.toml`."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Issue:
    """Kind of problem, with customers' messages, good answers and next steps."""

    name: str
    products: tuple[str, ...]
    messages: tuple[str, ...]
    answers: tuple[str, ...]
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Tone:
    """Tone of a customer: openings, closings and signatures."""

    name: str
    openings: tuple[str, ...]
    closings: tuple[str, ...]
    signatures: tuple[str, ...]


@dataclass(frozen=True)
class Vocabulary:
    """All phrases; `reply` maps a kind of sentence (greetings, rambles, …) to its phrases."""

    names: tuple[str, ...]
    days: tuple[str, ...]
    products: tuple[str, ...]
    tones: tuple[Tone, ...]
    issues: dict[str, Issue]
    reply: dict[str, tuple[str, ...]]

    def fill(self, phrase: str, random: Random, **slots: str) -> str:
        """Fill a phrase's slots; missing words are chosen at random."""
        phrase = phrase.replace("{when}", slots.get("when") or random.choice(self.reply["when"]))
        phrase = phrase.replace("{size}", random.choice(self.reply["sizes"]))
        phrase = phrase.replace("{day}", slots.get("day") or random.choice(self.days))
        for slot, words in slots.items():
            phrase = phrase.replace("{" + slot + "}", words)
        return phrase


@cache
def vocabulary() -> Vocabulary:
    """Read the phrases (once per process)."""
    with open(Path(__file__).with_name("phrases.toml"), "rb") as file:
        table = tomllib.load(file)
    products: dict[str, list[str]] = table["products"]
    issues = {name: _issue(name, row, products) for name, row in table["issues"].items()}
    return Vocabulary(
        names=tuple(table["names"]),
        days=tuple(table["days"]),
        products=tuple(word for kind in products.values() for word in kind),
        tones=tuple(_tone(name, row) for name, row in table["tones"].items()),
        issues=issues,
        reply={kind: tuple(phrases) for kind, phrases in table["reply"].items()},
    )


def _issue(name: str, row: dict[str, list[str]], products: dict[str, list[str]]) -> Issue:
    fitting = tuple(word for kind in row["products"] for word in products[kind])
    return Issue(name, fitting, tuple(row["messages"]), tuple(row["answers"]), tuple(row["steps"]))


def _tone(name: str, row: dict[str, list[str]]) -> Tone:
    return Tone(name, tuple(row["openings"]), tuple(row["closings"]), tuple(row["signatures"]))
