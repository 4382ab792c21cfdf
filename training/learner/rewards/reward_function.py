"""Reward function: the weighted sum of reward terms, and the term of the reward model, which needs torch."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from training.learner.models.loading import computing_in
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packing import PromptGroup
from training.learner.models.reward_model import RewardModel, Scores, load_reward_model, score, score_groups
from training.learner.reward_terms import (
    TERMS,
    Answer,
    Scorer,
    TermContext,
    make_metric,
    terms_with_references,
)
from training.learner.rewards.attribute_scores import AttributeScores
from training.learner.rewards.reading import Scoring, max_lengths_of, token_reader
from training.learner.runtime.config import PpoConfig, SampleConfig, Sampling
from training.learner.runtime.jobdir import BadInput
from training.learner.runtime.options import options_of
from training.learner.sampling.sampler import check_positions
from training.learner.text.control_tokens import encode_text
from training.learner.text.messages import encode_prompt, naming_row


class Reward(Protocol):
    """Weighted sum of the terms."""

    def __call__(self, answers: Sequence[Answer], scores_as_written: Tensor | None = None) -> Tensor:
        """Return [N] float32 rewards of N answers, clipped if so set. scores_as_written: see ModelScorer."""


def reward_function(settings: PpoConfig, tokenizer: Any, scoring: Scoring | None = None) -> Reward:
    """Return the reward function of the settings. scoring: their reward model, if it is already loaded."""
    weighted_sum = sum_of_terms(settings.rewards, settings, tokenizer, scoring)

    def reward(answers: Sequence[Answer], scores_as_written: Tensor | None = None) -> Tensor:
        total = weighted_sum(answers, scores_as_written)
        if settings.score_clip:
            total = total.clamp(-settings.score_clip, settings.score_clip)
        truncated = torch.tensor([not answer.finished for answer in answers], dtype=torch.float32)
        return total - settings.missing_eos_penalty * truncated

    return reward


def sample_scorer(
    settings: SampleConfig, tokenizer: Any, scoring: Scoring | None = None
) -> Callable[[Sequence[Answer]], list[float | None]] | None:
    """Return the scorer of samples: the weighted sum of the terms, or None if there are no terms.

    scoring: the reward model of the settings, if it is already loaded. Where a term needs references and the prompt has
    none, the score is None.
    """
    terms = settings.rewards or ([{"name": "reward_model"}] if settings.reward_model else [])
    if not terms:
        return None
    weighted_sum, compares = sum_of_terms(terms, settings, tokenizer, scoring), bool(terms_with_references(terms))

    def scorer(answers: Sequence[Answer]) -> list[float | None]:
        scorable = [i for i, answer in enumerate(answers) if has_references(answer.row) or not compares]
        numbers = weighted_sum([answers[i] for i in scorable]).tolist()
        scores = dict(zip(scorable, numbers, strict=True))
        return [scores.get(i) for i in range(len(answers))]

    return scorer


def sum_of_terms(
    terms: Sequence[dict[str, Any]], settings: PpoConfig | Sampling, tokenizer: Any, scoring: Scoring | None = None
) -> Reward:
    """Return the weighted sum of terms, each an object of settings."""
    attributes = AttributeScores(settings, scoring)
    context = TermContext(lambda text: len(encode_text(tokenizer, text)), attributes.scorer)
    scorers = [
        (term["name"], float(term.get("weight", 1.0)), make_scorer(term, settings, context, scoring)) for term in terms
    ]

    def total(answers: Sequence[Answer], scores_as_written: Tensor | None = None) -> Tensor:
        numbers = torch.zeros(len(answers))
        for name, weight, scorer in scorers if answers else []:
            known = (scores_as_written,) if name == "reward_model" else ()
            numbers += weight * as_numbers(scorer(answers, *known), len(answers))
        return numbers

    return total


def as_numbers(scores: Any, count: int) -> Tensor:
    """Return the output of a term as [count] float32. Raises BadInput for any other shape or type."""
    refusal = f"a reward term must give one number for each of {count} answers"
    try:
        numbers = torch.as_tensor(scores, dtype=torch.float32).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadInput(f"{refusal}, not {scores!r:.80}") from error
    if numbers.shape != (count,):
        raise BadInput(refusal)
    return numbers


def make_scorer(
    term: dict[str, Any], settings: PpoConfig | Sampling, context: TermContext, scoring: Scoring | None
) -> Callable[..., Sequence[float] | Tensor]:
    """Return the scorer of one term of the settings. Raises BadInput if it cannot be set up."""
    name, options = term["name"], options_of(term)
    if name == "reward_model":
        return reward_model_scorer(settings, scoring)
    if TERMS[name].needs_references:
        return metric_scorer(name, options)
    make: Any = TERMS[name].make
    scorer: Scorer = make(context, **options)
    return scorer


def metric_scorer(name: str, options: dict[str, Any]) -> Scorer:
    """Return the scorer of a text metric, between each text and the references of its prompt."""
    try:
        measure = make_metric(name, **options)
    except (ValueError, TypeError, AssertionError, ImportError, RuntimeError) as error:  # the library refused a setting
        raise BadInput(f"the reward term {name} cannot be set up: {error}") from error
    return lambda answers: [measure(answer.text, answer.row["references"]) for answer in answers]


def check_references(settings: PpoConfig, rows: Iterable[dict[str, Any]]) -> None:
    """Raise BadInput if a term needs references and a row of prompts.jsonl has none."""
    names = terms_with_references(settings.rewards)
    for number, row in enumerate(rows, 1):
        if names and not has_references(row):
            raise BadInput(
                f"prompts.jsonl, row {number}: the reward term {names[0]} needs references, a list of "
                "at least one text, but the row has none"
            )


def has_references(row: dict[str, Any]) -> bool:
    """Return whether a row of prompts.jsonl has at least one reference text."""
    references = row.get("references")
    return isinstance(references, list) and bool(references) and all(isinstance(text, str) for text in references)


class ModelScorer(Protocol):
    """Scorer by a reward model."""

    def __call__(self, answers: Sequence[Answer], scores_as_written: Tensor | None = None) -> Tensor:
        """Return [N] float32 scores of N answers.

        scores_as_written: [N] scores of the policy's own tokens, if they are known. They are used where these are the
        tokens that the reward model reads.
        """


def reward_model_scorer(settings: PpoConfig | Sampling, scoring: Scoring | None = None) -> ModelScorer:
    """Return the scorer by the reward model, which reads what people see: messages and text.

    They are encoded by the reward model's tokenizer and truncated to the lengths of its training. So other tokens of
    the same text, or tokens after its end, do not change the score. Of a dialogue it reads all turns.
    """
    model, tokenizer = scoring or load_reward_model(settings.reward_model, settings.dtype)
    longest = max_lengths_of(model, settings)
    pessimism = settings.pessimism if isinstance(settings, PpoConfig) else 0.0  # samples are scored as they are
    if pessimism and model.ensemble is None:
        raise BadInput(
            f"pessimism is {pessimism}, but the reward model has no ensemble: "
            "train one with ensemble_heads above 1, or set pessimism to 0"
        )
    micro_batches = MicroBatches(settings.micro_batch_tokens)
    tokens = token_reader(model, tokenizer, longest)

    def scorer(answers: Sequence[Answer], scores_as_written: Tensor | None = None) -> Tensor:
        sequences = [tokens(answer) for answer in answers]
        scores = torch.zeros(len(answers)) if scores_as_written is None else scores_as_written.clone()
        unknown = [
            place
            for place, (answer, read) in enumerate(zip(answers, sequences, strict=True))
            if scores_as_written is None or read != [*answer.prompt, *answer.completion]
        ]
        chosen = [sequences[place] for place in unknown]
        if chosen:
            check_positions(model.network, chosen, 0, "the reward model")
            with computing_in(settings.dtype):
                scores[unknown] = micro_batches.attempt(
                    [len(sequence) for sequence in chosen], lambda budget: score(model, chosen, budget, pessimism)
                )
        return scores

    return scorer


def deviation_scorer(settings: Sampling, scoring: Scoring) -> Callable[[Sequence[Answer]], Scores]:
    """Return a function from N answers to their scores by the reward model, with the deviation over its heads."""
    model, tokenizer = scoring
    tokens = token_reader(model, tokenizer, max_lengths_of(model, settings))

    def scorer(answers: Sequence[Answer]) -> Scores:
        sequences = [tokens(answer) for answer in answers]
        check_positions(model.network, sequences, 0, "the reward model")
        groups = [PromptGroup((), (tuple(sequence),)) for sequence in sequences]
        with computing_in(settings.dtype):
            return score_groups(model, groups, settings.micro_batch_tokens)

    return scorer


def check_scoring_positions(
    scoring: Scoring, rows: Sequence[dict[str, Any]], tokenizer: Any, settings: PpoConfig | Sampling, turns: int = 1
) -> None:
    """Raise BadInput if the reward model's template refuses a row of prompts.jsonl, or it has too few positions.

    tokenizer: the policy's. turns: how many of the policy's turns must fit.
    """
    model, scoring_tokenizer = scoring
    longest = max_lengths_of(model, settings)
    prompts = []
    for number, row in enumerate(rows, 1):
        with naming_row("prompts.jsonl", number, row):
            prompts.append(encode_prompt(scoring_tokenizer, row["messages"], longest.prompt))
    written = longest_written(model, settings, has_same_tokens=same_tokens(scoring_tokenizer, tokenizer))
    remedy = "set max_completion_tokens lower, or train one on a base with more positions or with lower token limits"
    check_positions(model.network, prompts, turns * written, "the reward model", remedy)


def longest_written(model: RewardModel, settings: PpoConfig | Sampling, *, has_same_tokens: bool) -> int:
    """Return how many tokens the reward model reads at most of one turn.

    If its tokenizer is the policy's (has_same_tokens), a text is as long as it was sampled, plus end of turn.
    """
    longest = max_lengths_of(model, settings).completion
    return min(settings.max_completion_tokens + 1, longest) if has_same_tokens else longest


def same_tokens(one: Any, other: Any) -> bool:
    """Return whether two tokenizers give every conversation the same tokens."""
    return (
        one.get_vocab() == other.get_vocab()
        and one.chat_template == other.chat_template
        and one.eos_token_id == other.eos_token_id
        and one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()
    )
