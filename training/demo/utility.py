"""The hidden utility: how good a reply to a customer's message is, from the two texts alone.

A rubric in points. Each rule gives or takes a few, and their sum in whole points, as people give marks, is the utility;
people never see it, and no model is trained on it. The simulated annotators judge by it, and it measures what training
really brought, so it must not be fooled by what fools a reward model: a sentence that is not one earns nothing,
whatever words it holds, and saying a thing twice costs more than saying it once earned.

The grammar's own replies are its idea of fluent text. Other English keeps its order under all other rules and loses up
to the points of `FLUENCY`.
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

FLUENCY = 3.0  # points that a reply loses when none of its word triples was ever heard
SENTENCE_WORDS = 5  # a shorter sentence may say nothing without being idle
WELL_KNOWN = 0.6  # share of heard word triples from which a sentence is one, whatever its words


@dataclass(frozen=True)
class Grade:
    """Points by rule."""

    topic: float  # −2 … 2: speaks of the message's issue, not of another
    step: float  # 0 … 2: a clear next step
    manners: float  # −4 … 1: courtesy, rudeness
    name: float  # −0.5 … 0.25: addresses the customer by the right name, or by a wrong one
    product: float  # −0.5 … 0.25: mentions the right product, or a wrong one
    length: float  # −2 … 0
    focus: float  # −3 … 0: sentences that say nothing, or nothing to do with it
    repetition: float  # −4 … 0
    form: float  # −1.5 … 0: how it begins and ends
    fluency: float  # −FLUENCY … 0

    @property
    def total(self) -> float:
        return float(math.floor(sum(astuple(self)) + 0.5))


class Sentence(NamedTuple):
    """A sentence in lower case with its products, names and days masked, and whether it is one at all."""

    text: str
    topic: str  # the issue it speaks of, or ""
    sound: bool


def utility(message: str, reply: str) -> float:
    """Points of a reply, in whole ones: about −10 (insulting salad) to 6 (nothing to wish for)."""
    return grade(message, reply).total


def grade(message: str, reply: str) -> Grade:
    """The points of each rule."""
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
        fluency=-FLUENCY * (1.0 - _heard(_split(_masked(reply)))),
    )


def issue_of(message: str) -> str:
    """What a message is about: the issue with most different cues in it; "" when there is none."""
    return _most_cues(_masked(message), "")


# --- the rules --------------------------------------------------------------------------------------------------------


def _topic(sentences: list[Sentence], issue: str) -> float:
    right = any(sentence.sound and sentence.topic == issue != "" for sentence in sentences)
    wrong = sum(sentence.topic not in ("", issue) for sentence in sentences)
    return 2.0 * right - min(2.0, 1.0 * wrong)


def _step(sentences: list[Sentence], issue: str) -> float:
    fitting = [sentence.text for sentence in sentences if sentence.sound and sentence.topic in ("", issue)]
    if any(_is_clear_step(text) for text in fitting):
        return 2.0
    return 0.25 if any(_says(text, "evasion") and _says(text, "promise") for text in fitting) else 0.0


def _is_clear_step(text: str) -> bool:
    if _says(text, "evasion"):
        return False
    return _says(text, "request") or (_says(text, "promise") and _says(text, "time"))


def _manners(sentences: list[Sentence]) -> float:
    rude = sum(_says(sentence.text, "rude") for sentence in sentences)
    courteous = any(sentence.sound and _says(sentence.text, "courtesy") for sentence in sentences)
    return 1.0 * courteous - min(4.0, 2.0 * rude) - 1.0 * (courteous and rude > 0)


def _mention(meant: set[str], said: set[str]) -> float:
    if said - meant:
        return -0.5
    return 0.25 if said else 0.0


def _length(reply: str) -> float:
    words = len(reply.split())
    if words < 12:
        return -0.5 if words >= 8 else -1.0
    return -min(2.0, max(0.0, (words - 42) / 12))


def _is_idle(sentence: Sentence) -> bool:
    """A commonplace, or a real sentence's worth of words without a cue of any kind."""
    if sentence.topic or "‹product›" in sentence.text:
        return False
    if _says(sentence.text, "commonplace"):
        return True
    heeded = any(_says(sentence.text, kind) for kind in ("courtesy", "rude", "evasion", "greeting"))
    return len(sentence.text.split()) >= SENTENCE_WORDS and not heeded and not _is_clear_step(sentence.text)


def _repetition(reply: str) -> float:
    """Two points for each tenth of the words that come in a triple said before, or right after themselves."""
    words = _words(reply)
    if len(words) < 2:
        return 0.0
    triples = list(zip(words, words[1:], words[2:], strict=False))
    again = len(triples) - len(set(triples)) + sum(a == b for a, b in itertools.pairwise(words))
    return -min(4.0, 20.0 * again / len(words))


def _form(reply: str) -> float:
    text = reply.strip()
    if not text:
        return -1.5
    ended = text[-1] in ".!?" or _says(text.splitlines()[-1].lower(), "signature")
    return -0.5 * (not text[0].isupper()) - 1.0 * (not ended)


# --- sentences --------------------------------------------------------------------------------------------------------


def _sentence(text: str, issue: str) -> Sentence:
    return Sentence(text, _most_cues(text, issue), _is_sound(text))


def _is_sound(text: str) -> bool:
    """Whether a piece of text is a sentence: mostly of word triples heard before, or else held together by small words.

    Keywords in a row have few small words; real English has about one in two.
    """
    words = _words(text)
    if _heard([text]) >= WELL_KNOWN:
        return True
    if len(words) < 3 or len(set(words)) < 0.6 * len(words) or any(a == b for a, b in itertools.pairwise(words)):
        return False
    return sum(word in _lexicon().small_words for word in words) >= 0.35 * len(words) and text[-1:] in ".!?"


def _split(text: str) -> list[str]:
    """Sentences, one a line or after a full stop."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]


def _words(text: str) -> list[str]:
    return re.findall(r"[\w‹›'’-]+", text.lower())


def _heard(sentences: Iterable[str]) -> float:
    """The share of word triples, begins and ends of sentences included, that the grammar's own replies hold."""
    counts = [_triple_counts(sentence) for sentence in sentences]
    total = sum(every for _, every in counts)
    return sum(known for known, _ in counts) / total if total else 0.0


@lru_cache(maxsize=2**16)
def _triple_counts(sentence: str) -> tuple[int, int]:
    """Word triples of a sentence: those heard before, and all."""
    triples = _triples(sentence)
    return sum(triple in _known_triples() for triple in triples), len(triples)


def _triples(sentence: str) -> list[tuple[str, str, str]]:
    words = ["^", *_words(sentence), "$"]
    return list(zip(words, words[1:], words[2:], strict=False))


# --- names, products, cues --------------------------------------------------------------------------------------------


@cache
def _masks() -> tuple[tuple[re.Pattern[str], str], ...]:
    words = vocabulary()
    groups = (((*words.products, "item"), "‹product›"), (words.names, "‹name›"), (words.days, "‹day›"))
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
    """Names in the reply, and whatever else its greeting calls the customer."""
    greeting = re.match(r"\s*(?:Hello|Hi|Dear|Good day) ([^,.\n]{1,30}),", reply)
    called = {greeting[1]} - {"there", "customer"} if greeting else set()
    return called | _names(reply)


def _most_cues(text: str, preferred: str) -> str:
    """The issue with most different cues in a masked text; in a draw the preferred one, else the first listed."""
    counts = _cue_counts(text)
    most = max(counts.values())
    if most == 0:
        return ""
    return preferred if counts.get(preferred) == most else max(counts, key=lambda issue: counts[issue])


# Masked sentences come again and again, so what is found in them is kept.
@lru_cache(maxsize=2**16)
def _cue_counts(text: str) -> dict[str, int]:
    return {issue: sum(bool(cue.search(text)) for cue in cues) for issue, cues in _lexicon().topics.items()}


@lru_cache(maxsize=2**16)
def _says(text: str, kind: str) -> bool:
    return any(cue.search(text) for cue in _lexicon().kinds[kind])


class Lexicon(NamedTuple):
    """lexicon.toml, compiled."""

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
    """Word triples of everything that the grammar lets a reply say."""
    words = vocabulary()
    said = [phrase for issue in words.issues.values() for phrase in (*issue.answers, *issue.steps)]
    said += [phrase for kind, phrases in words.reply.items() if kind not in ("when", "sizes") for phrase in phrases]
    filled = (phrase.replace("{when}", when) for phrase in said for when in words.reply["when"])
    return frozenset(triple for phrase in filled for part in _split(_slots_masked(phrase)) for triple in _triples(part))


def _slots_masked(phrase: str) -> str:
    for slot in ("product", "name", "day"):
        phrase = phrase.replace("{" + slot + "}", f"‹{slot}›")
    return phrase.lower()
