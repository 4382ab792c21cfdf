"""Text metrics from 0 to 1, for reinforcement learning on references.

Each function takes the settings of the metric and returns a function of a text and its references (at least one). With
several references the best value counts. To add a metric, write one function here with `@metric` and its test.

`similarity` is chrF2 by sacrebleu (Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation"): the
F-score of character 1- to 6-grams, with recall weighted twice. It needs no model and no network and correlates with
people better than BLEU (Mathur et al. 2020, "Tangled up in BLEU"). It gives partial credit for partial words, so that
an early policy gets a signal, and works in languages without spaces. It gives no credit for paraphrases; the term
reward_model does.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from training.learner.reward_terms import Metric, metric


@metric
def exact_match() -> Metric:
    """Return 1 if the text equals a reference after SQuAD's normalisation, else 0."""
    return lambda text, references: float(any(squad_words(text) == squad_words(other) for other in references))


@metric
def token_f1() -> Metric:
    """Return SQuAD's F1: harmonic mean of precision and recall of words (Rajpurkar et al. 2016, §6.1)."""
    return lambda text, references: max(word_f1(squad_words(text), squad_words(other)) for other in references)


@metric
def rouge_l(use_stemmer: bool = False) -> Metric:
    """Return ROUGE-L F1 (Lin 2004) by rouge-score, which tokenizes a–z and digits only."""
    from rouge_score.rouge_scorer import RougeScorer  # slow to import: it imports nltk

    scorer = RougeScorer(["rougeL"], use_stemmer=bool(use_stemmer))
    return lambda text, references: max(scorer.score(other, text)["rougeL"].fmeasure for other in references)


@metric
def bleu(tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a") -> Metric:
    """Return sentence BLEU (Papineni et al. 2002) by sacrebleu, with exponential smoothing and effective order.

    tokenize: a tokenizer of sacrebleu that needs no download; "zh" or "char" for languages without spaces.
    """
    from sacrebleu.metrics import BLEU

    scorer = BLEU(effective_order=True, tokenize=tokenize)
    return lambda text, references: scorer.sentence_score(text, list(references)).score / 100


@metric
def similarity() -> Metric:
    """Return chrF2 by sacrebleu, see the module docstring."""
    from sacrebleu.metrics import CHRF

    scorer = CHRF()
    return lambda text, references: scorer.sentence_score(text, list(references)).score / 100


def squad_words(text: str) -> list[str]:
    """Return words normalised as by SQuAD's evaluation script: lower case, no punctuation, no articles."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def word_f1(words: Sequence[str], reference: Sequence[str]) -> float:
    """Return F1 of two bags of words. If one is empty: 1 if both are, else 0 (SQuAD 2.0, Rajpurkar et al. 2018)."""
    if not words or not reference:
        return float(list(words) == list(reference))
    common = (Counter(words) & Counter(reference)).total()
    return 2 * common / (len(words) + len(reference))
