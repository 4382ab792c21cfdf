"""Hidden utility: a score of a reply to a customer's message, computed from the two texts alone.

It is a rubric: each rule adds or subtracts points, and the utility is their sum, rounded. Annotators never see it, and
no model is trained on it. Simulated annotators rank by it, and it measures the effect of training. Therefore it must
resist reward hacking: text that is not a sentence earns nothing, whatever words it contains, and a repetition costs
more than the sentence earned.

Fluent text is text like the grammar's replies. Other English is ordered by the other rules in the same way, but loses
up to `FLUENCY` points.
"""

import itertools
import math
import re
import tomllib
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from training.demo.grammar import vocabulary

FLUENCY = 3.0  # points that a reply loses if none of its word triples is known
SENTENCE_WORDS = 5  # shorter sentences without a cue are not idle
MIN_KNOWN = 0.6  # a text with at least this share of known word triples is a sentence


@dataclass(frozen=True)
class Grade:
    """Points of each rule."""

    topic: float  # −2 … 2: about the message's issue, not another one
    step: float  # 0 … 2: a clear next step
    manners: float  # −4 … 1: courtesy or rudeness
    name: float  # −0.5 … 0.25: the right name of the customer, or a wrong one
    product: float  # −0.5 … 0.25: the right product, or a wrong one
    length: float  # −2 … 0
    focus: float  # −3 … 0: idle sentences
    repetition: float  # −4 … 0
    form: float  # −1.5 … 0: capital at the beginning, mark at the end
    fluency: float  # −FLUENCY … 0

    @property
    def total(self) -> float:
        """Return the sum, rounded to whole points."""
        return float(math.floor(sum(astuple(self)) + 0.5))


class Sentence(NamedTuple):
    """Piece of text in lower case with products, names and days masked."""

    text: str
    topic: str  # the issue it is about, or ""
    is_sentence: bool


def utility(message: str, reply: str) -> float:
    """Return the whole points of a reply, from about −10 (insulting word salad) to 6 (perfect)."""
    return grade(message, reply).total


def grade(message: str, reply: str) -> Grade:
    """Return the points of each rule."""
    issue = issue_of(message)
    sentences = [_sentence(text, issue) for text in _split(_masked(reply))]
    return Grade(
        topic=_topic(sentences, issue),
        step=_step(sentences, issue),
        manners=_manners(sentences),
        name=_mention(_names(message), _addressed(reply)),
        product=_mention(_products(message), _products(reply)),
        length=_length(reply),
        focus=max(-3.0, -1.0 * sum(_is_idle(sentence) for sentence in sentences)),
        repetition=_repetition(reply),
        form=_form(reply),
        fluency=-FLUENCY * (1.0 - _known_share(_split(_masked(reply)))),
    )


def issue_of(message: str) -> str:
    """Return the issue with the most different cues in a message; "" if there is no cue."""
    return _most_cues(_masked(message), "")


# --- the rules --------------------------------------------------------------------------------------------------------


def _topic(sentences: list[Sentence], issue: str) -> float:
    right = any(sentence.is_sentence and sentence.topic == issue != "" for sentence in sentences)
    wrong = sum(sentence.topic not in ("", issue) for sentence in sentences)
    return 2.0 * right - min(2.0, 1.0 * wrong)


def _step(sentences: list[Sentence], issue: str) -> float:
    fitting = [sentence.text for sentence in sentences if sentence.is_sentence and sentence.topic in ("", issue)]
    if any(_is_clear_step(text) for text in fitting):
        return 2.0
    return 0.25 if any(_says(text, "evasion") and _says(text, "promise") for text in fitting) else 0.0


def _is_clear_step(text: str) -> bool:
    if _says(text, "evasion"):
        return False
    return _says(text, "request") or (_says(text, "promise") and _says(text, "time"))


def _manners(sentences: list[Sentence]) -> float:
    rude = sum(_says(sentence.text, "rude") for sentence in sentences)
    courteous = any(sentence.is_sentence and _says(sentence.text, "courtesy") for sentence in sentences)
    return 1.0 * courteous - min(4.0, 2.0 * rude) - 1.0 * (courteous and rude > 0)


def _mention(expected: set[str], mentioned: set[str]) -> float:
    if mentioned - expected:
        return -0.5
    return 0.25 if mentioned else 0.0


def _length(reply: str) -> float:
    words = len(reply.split())
    if words < 12:
        return -0.5 if words >= 8 else -1.0
    return -min(2.0, max(0.0, (words - 42) / 12))


def _is_idle(sentence: Sentence) -> bool:
    """Return whether a sentence is a commonplace, or has at least `SENTENCE_WORDS` words and no cue."""
    if sentence.topic or "⟨product⟩" in sentence.text:
        return False
    if _says(sentence.text, "commonplace"):
        return True
    has_cue = any(_says(sentence.text, kind) for kind in ("courtesy", "rude", "evasion", "greeting"))
    return len(sentence.text.split()) >= SENTENCE_WORDS and not has_cue and not _is_clear_step(sentence.text)


def _repetition(reply: str) -> float:
    """Return −2 points per tenth of words that end a repeated word triple or repeat the word before."""
    words = _words(reply)
    if len(words) < 2:
        return 0.0
    triples = list(zip(words, words[1:], words[2:], strict=False))
    repeated = len(triples) - len(set(triples)) + sum(a == b for a, b in itertools.pairwise(words))
    return -min(4.0, 20.0 * repeated / len(words))


def _form(reply: str) -> float:
    text = reply.strip()
    if not text:
        return -1.5
    ended = text[-1] in ".!?" or _says(text.splitlines()[-1].lower(), "signature")
    return -0.5 * (not text[0].isupper()) - 1.0 * (not ended)


# --- sentences --------------------------------------------------------------------------------------------------------


def _sentence(text: str, issue: str) -> Sentence:
    return Sentence(text, _most_cues(text, issue), _is_sentence(text))


def _is_sentence(text: str) -> bool:
    """Return whether a piece of text is a sentence: it has mostly known word triples, or many function words.

    Lists of keywords have few function words; in English about every second word is one.
    """
    words = _words(text)
    if _known_share([text]) >= MIN_KNOWN:
        return True
    if len(words) < 3 or len(set(words)) < 0.6 * len(words) or any(a == b for a, b in itertools.pairwise(words)):
        return False
    return sum(word in _lexicon().small_words for word in words) >= 0.35 * len(words) and text[-1:] in ".!?"


def _split(text: str) -> list[str]:
    """Split a text into sentences, at line breaks and after full stops."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]


def _words(text: str) -> list[str]:
    return re.findall(r"[\w⟨⟩'’-]+", text.lower())


def _known_share(sentences: Iterable[str]) -> float:
    """Return the share of word triples (with marks of begin and end) that occur in the grammar's replies."""
    counts = [_triple_counts(sentence) for sentence in sentences]
    total = sum(count for _, count in counts)
    return sum(known for known, _ in counts) / total if total else 0.0


@lru_cache(maxsize=2**16)
def _triple_counts(sentence: str) -> tuple[int, int]:
    """Return the numbers of known and of all word triples of a sentence."""
    triples = _triples(sentence)
    return sum(triple in _known_triples() for triple in triples), len(triples)


def _triples(sentence: str) -> list[tuple[str, str, str]]:
    words = ["^", *_words(sentence), "$"]
    return list(zip(words, words[1:], words[2:], strict=False))


# --- names, products, cues --------------------------------------------------------------------------------------------


@cache
def _masks() -> tuple[tuple[re.Pattern[str], str], ...]:
    words = vocabulary()
    groups = (((*words.products, "item"), "⟨product⟩"), (words.names, "⟨name⟩"), (words.days, "⟨day⟩"))
    return tuple((re.compile(rf"\b({'|'.join(map(re.escape, group))})\b"), mask) for group, mask in groups)


def _masked(text: str) -> str:
    for pattern, mask in _masks():
        text = pattern.sub(mask, text)
    return text.lower()


def _products(text: str) -> set[str]:
    return set(_masks()[0][0].findall(text)) - {"item"}


def _names(text: str) -> set[str]:
    return set(_masks()[1][0].findall(text))


def _addressed(reply: str) -> set[str]:
    """Return the names in the reply, and any other word that its greeting addresses the customer by."""
    greeting = re.match(r"\s*(?:Hello|Hi|Dear|Good day) ([^,.\n]{1,30}),", reply)
    called = {greeting[1]} - {"there", "customer"} if greeting else set()
    return called | _names(reply)


def _most_cues(text: str, preferred: str) -> str:
    """Return the issue with the most different cues in a masked text; of several the preferred one, else the first."""
    counts = _cue_counts(text)
    most = max(counts.values())
    if most == 0:
        return ""
    return preferred if counts.get(preferred) == most else max(counts, key=lambda issue: counts[issue])


# Masked sentences occur many times, so results are cached.
@lru_cache(maxsize=2**16)
def _cue_counts(text: str) -> dict[str, int]:
    return {issue: sum(bool(cue.search(text)) for cue in cues) for issue, cues in _lexicon().topics.items()}


@lru_cache(maxsize=2**16)
def _says(text: str, kind: str) -> bool:
    return any(cue.search(text) for cue in _lexicon().kinds[kind])


class Lexicon(NamedTuple):
    """Compiled content of lexicon.toml."""

    topics: dict[str, tuple[re.Pattern[str], ...]]
    kinds: dict[str, tuple[re.Pattern[str], ...]]  # courtesy, rude, promise, time, …
    small_words: frozenset[str]


@cache
def _lexicon() -> Lexicon:
    with open(Path(__file__).with_name("lexicon.toml"), "rb") as file:
        table = tomllib.load(file)
    return Lexicon(
        topics={issue: _compiled(cues) for issue, cues in table["topics"].items()},
        kinds={kind: _compiled(cues) for kind, cues in (table["manners"] | table["steps"]).items()},
        small_words=frozenset(table["words"]["small"]),
    )


def _compiled(cues: list[str]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(rf"(?<!\w)(?:{cue})(?!\w)") for cue in cues)


@cache
def _known_triples() -> frozenset[tuple[str, str, str]]:
    """Return the word triples of all sentences that the grammar can generate in replies."""
    words = vocabulary()
    phrases = [phrase for issue in words.issues.values() for phrase in (*issue.answers, *issue.steps)]
    phrases += [phrase for kind, row in words.reply.items() if kind not in ("when", "sizes") for phrase in row]
    filled = (phrase.replace("{when}", when) for phrase in phrases for when in words.reply["when"])
    return frozenset(triple for phrase in filled for part in _split(_slots_masked(phrase)) for triple in _triples(part))


def _slots_masked(phrase: str) -> str:
    for slot in ("product", "name", "day"):
        phrase = phrase.replace("{" + slot + "}", f"⟨{slot}⟩")
    return phrase.lower()
