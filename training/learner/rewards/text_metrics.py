"""How near a text is to reference texts, from 0 to 1: what reinforcement learning on a metric maximises.

A maker, with its settings as arguments, gives a function of a text and its references (at least one). With several
references the nearest counts. A new metric is a function here with `@metric`, and its test.

`similarity` is chrF2 by sacrebleu (Popović 2015, «chrF: character n-gram F-score for automatic MT evaluation»): the
share of character 1- to 6-grams in common, recall weighing twice. It needs no model and no network, agrees with people
better than BLEU (Mathur et al. 2020, «Tangled up in BLEU», recommend it in its place), gives partial words partial
credit, so that an early policy has something to climb, and works in languages without blanks, where word metrics see
one word. A measure by a neural encoder would know paraphrases, and be one more model to fool: that is what
the term reward_model is for.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

Metric = Callable[[str, Sequence[str]], float]
METRICS: dict[str, Callable[..., Metric]] = {}


def metric(make: Callable[..., Metric]) -> Callable[..., Metric]:
    """Registers a maker by its name; its parameters are the term's settings, which config.py checks."""
    METRICS[make.__name__] = make
    return make


@metric
def exact_match() -> Metric:
    """1 if the text equals a reference, both as SQuAD normalises them."""
    return lambda text, references: float(any(squad_words(text) == squad_words(other) for other in references))


@metric
def token_f1() -> Metric:
    """SQuAD's F1: the harmonic mean of precision and recall of words (Rajpurkar et al. 2016, §6.1)."""
    return lambda text, references: max(word_f1(squad_words(text), squad_words(other)) for other in references)


@metric
def rouge_l(use_stemmer: bool = False) -> Metric:
    """The F1 of the longest common subsequence of words (Lin 2004), by rouge-score. It knows a–z and digits only."""
    from rouge_score.rouge_scorer import RougeScorer  # slow to import, as it brings nltk

    scorer = RougeScorer(["rougeL"], use_stemmer=bool(use_stemmer))
    return lambda text, references: max(scorer.score(other, text)["rougeL"].fmeasure for other in references)


@metric
def bleu(tokenize: str = "13a") -> Metric:
    """Sentence BLEU (Papineni et al. 2002) by sacrebleu: exponential smoothing, no order longer than the text.

    tokenize: one of sacrebleu's that need no download; "zh" or "char" for languages without blanks.
    """
    from sacrebleu.metrics import BLEU

    scorer = BLEU(effective_order=True, tokenize=tokenize)
    return lambda text, references: scorer.sentence_score(text, list(references)).score / 100


@metric
def similarity() -> Metric:
    """chrF2 by sacrebleu; see the module."""
    from sacrebleu.metrics import CHRF

    scorer = CHRF()
    return lambda text, references: scorer.sentence_score(text, list(references)).score / 100


def squad_words(text: str) -> list[str]:
    """The words as SQuAD's evaluation script has them: lower case, no punctuation, no articles."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def word_f1(words: Sequence[str], reference: Sequence[str]) -> float:
    """The F1 of two bags of words; with an empty one, whether both are (SQuAD 2.0: Rajpurkar et al. 2018)."""
    if not words or not reference:
        return float(list(words) == list(reference))
    common = (Counter(words) & Counter(reference)).total()
    return 2 * common / (len(words) + len(reference))
