"""Labels of single completions, desirable or undesirable: read from labels.jsonl, or derived from rankings.jsonl.

A label states whether one completion is good, without a second one to compare it with. Ethayarajh et al. 2024 (§4) take
the preferred completion of a pair as desirable and the other as undesirable; with more than two completions that are
the first and the last rank here. A judgement of the completion alone, by a flag or a rating, comes before its rank.

Labels of the same completion by several people are one `LabelledCompletion` with the sum of their weights, so that one
forward pass serves them all; people who disagree contribute to both sides.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from training.learner.preferences.ranking_data import check_row
from training.learner.runtime.config.kto import KtoConfig
from training.learner.runtime.jobdir import BadInput
from training.learner.text.messages import (
    SPLITS,
    Messages,
    TurnSpan,
    check_messages,
    encode_turns,
    naming_row,
    render,
    tokens_left,
    truncate_prompt,
    turns_of,
)

Encoded = tuple[tuple[int, ...], tuple[TurnSpan, ...]]  # tokens of a completion, and spans of a dialogue's turns
FLAGS = {"all good": True, "all bad": False}  # flags of a ranking that label all its completions


class LabelledCompletion(NamedTuple):
    """A completion with the weights of its labels."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    desirable: float  # sum of the weights of its labels of this kind
    undesirable: float
    turns: tuple[TurnSpan, ...] = ()  # of a dialogue: spans of the policy's turns; (): the whole completion

    @property
    def weight(self) -> float:
        return self.desirable + self.undesirable

    @property
    def spans(self) -> tuple[TurnSpan, ...]:
        """Spans of the policy's turns."""
        return self.turns or ((0, len(self.completion)),)


PromptLabels = tuple[LabelledCompletion, ...]  # of one prompt


@dataclass
class LabelData:
    """The labels of a job by prompt, with counts of what was truncated or left out."""

    train: list[PromptLabels] = field(default_factory=list)
    held_out: list[PromptLabels] = field(default_factory=list)
    desirable: int = 0  # training labels
    undesirable: int = 0
    unlabelled: int = 0  # completions of training rankings without a label
    truncated_prompts: int = 0
    truncated_completions: int = 0
    dropped_held_out: int = 0  # held-out labels whose prompt has the tokens of a training prompt


class Label(NamedTuple):
    """One person's label of one completion."""

    row: dict[str, Any]
    turns: Messages
    is_desirable: bool
    weight: float


def read_labels(
    tokenizer: Any,
    rankings: Iterable[dict[str, Any]],
    labels: Iterable[dict[str, Any]],
    settings: KtoConfig,
    positions: int | None = None,
) -> LabelData:
    """Return the labels of both files, in the order of their prompts and completions.

    positions: of the models that read them; a dialogue that needs more is cut after the last turn that fits.
    Raises BadInput for a row that cannot be used, and if the training labels are all of one kind or of one prompt.
    """
    data = LabelData()
    weights: dict[str, dict[tuple[int, ...], dict[Encoded, list[float]]]] = {
        split: defaultdict(dict) for split in SPLITS
    }
    for file, rows in (("rankings.jsonl", rankings), ("labels.jsonl", labels)):
        for number, row in enumerate(rows, 1):
            with naming_row(file, number, row):
                row_labels = labels_of_ranking(row, settings, data) if file == "rankings.jsonl" else [as_label(row)]
                prompt = encode_prompt(tokenizer, row, settings, data) if row_labels else ()
                limit = tokens_left(positions, prompt)
                completions = [encode_label(tokenizer, label, settings, limit, data) for label in row_labels]
            for label, completion in zip(row_labels, completions, strict=True):
                sums = weights[label.row.get("split", "train")][prompt].setdefault(completion, [0.0, 0.0])
                sums[0 if label.is_desirable else 1] += label.weight
                if label.row.get("split", "train") == "train":
                    data.desirable += label.is_desirable
                    data.undesirable += not label.is_desirable
    for split in SPLITS:
        for prompt, labelled in weights[split].items():
            if split == "held_out" and prompt in weights["train"]:
                data.dropped_held_out += len(labelled)
                continue
            group = tuple(
                LabelledCompletion(prompt, tokens, sums[0], sums[1], turns)
                for (tokens, turns), sums in labelled.items()
                if sum(sums)
            )
            if group:
                getattr(data, split).append(group)
    check_labels(data)
    return data


def check_labels(data: LabelData) -> None:
    """Raise BadInput unless training labels of both kinds have a weight, under at least two prompts."""
    labelled = [one for group in data.train for one in group]
    if not labelled:
        raise BadInput(
            "there is no training label with a weight above 0: add labels, or change labels_from if the rankings have "
            "only ties or no flags and ratings"
        )
    for name, sums in (("desirable", [one.desirable for one in labelled]),
                       ("undesirable", [one.undesirable for one in labelled])):  # fmt: skip
        if not any(sums):
            raise BadInput(f"no training label is {name}: kto needs desirable and undesirable completions")
    if len(data.train) < 2:
        raise BadInput(
            "all training labels are of one prompt: kto estimates its reference point on completions of other prompts, "
            "so it needs at least two"
        )


def as_label(row: dict[str, Any]) -> Label:
    """Return the label of a row of labels.jsonl. Raises BadInput if it is none."""
    check_messages(row.get("messages"))
    if row.get("split", "train") not in SPLITS:
        raise BadInput(f"split must be train or held_out, not {row['split']!r}")
    turns = turns_of(row)
    if not isinstance(row.get("desirable"), bool):
        raise BadInput(f"desirable must be true or false, not {row.get('desirable')!r}")
    weight = row.get("weight", 1.0)
    if type(weight) not in (int, float) or not 0 <= weight < float("inf"):
        raise BadInput(f"weight must be a number of at least 0, not {weight!r}")
    return Label(row, turns, row["desirable"], float(weight))


def labels_of_ranking(row: dict[str, Any], settings: KtoConfig, data: LabelData) -> list[Label]:
    """Return the labels that follow from a row of rankings.jsonl. Raises BadInput if it is no ranking."""
    check_row(row)
    labels = []
    dialogues = row.get("turns") or [None] * len(row["completions"])
    for position, text in enumerate(row["completions"]):
        is_desirable = next(verdicts(row, position, settings), None)
        if is_desirable is None:
            data.unlabelled += row["split"] == "train"
        else:
            turns = dialogues[position] or [{"role": "assistant", "content": text}]
            labels.append(Label(row, turns, is_desirable, float(row.get("weight", 1.0))))
    return labels


def verdicts(row: dict[str, Any], position: int, settings: KtoConfig) -> Iterator[bool]:
    """Yield whether the completion at a position is desirable, by each kind of judgement that exists for it."""
    sources = {"flags": flag_verdict, "ratings": rating_verdict, "ranks": rank_verdict}
    for name, verdict_of in sources.items():
        if settings.labels_from in ("auto", name):
            verdict = verdict_of(row, position, settings)
            if verdict is not None:
                yield verdict


def flag_verdict(row: dict[str, Any], position: int, settings: KtoConfig) -> bool | None:
    """Return the label by the ranking's flags; None without one, or with both."""
    flags = row.get("flags") or []
    if not isinstance(flags, list):
        raise BadInput("flags must be a list of strings")
    named = {FLAGS[flag] for flag in flags if flag in FLAGS}
    return named.pop() if len(named) == 1 else None


def rating_verdict(row: dict[str, Any], position: int, settings: KtoConfig) -> bool | None:
    """Return the label by the mean of the completion's ratings; None without ratings, or at the midpoint."""
    ratings = row.get("ratings") or {}
    if not isinstance(ratings, dict) or not all(
        isinstance(values, list) and len(values) == len(row["completions"]) for values in ratings.values()
    ):
        raise BadInput("ratings must be an object of lists with one rating or null per completion")
    values = [rated[position] for rated in ratings.values() if rated[position] is not None]
    if not all(type(value) in (int, float) for value in values):
        raise BadInput("a rating must be a number or null")
    mean = sum(values) / len(values) if values else settings.rating_midpoint
    return None if mean == settings.rating_midpoint else mean > settings.rating_midpoint


def rank_verdict(row: dict[str, Any], position: int, settings: KtoConfig) -> bool | None:
    """Return the label by the completion's rank; None in the middle, or if all are tied."""
    first, last, rank = min(row["ranks"]), max(row["ranks"]), row["ranks"][position]
    if settings.ranks_as_labels == "extremes":
        return None if first == last or first < rank < last else rank == first
    return None if 2 * rank == first + last else 2 * rank < first + last


def encode_prompt(tokenizer: Any, row: dict[str, Any], settings: KtoConfig, data: LabelData) -> tuple[int, ...]:
    whole = render(tokenizer, row["messages"])
    tokens = truncate_prompt(whole, settings.max_prompt_tokens, settings.overlong_prompts)
    if not tokens:
        raise BadInput("the prompt has no tokens")
    data.truncated_prompts += len(tokens) < len(whole)
    return tuple(tokens)


def encode_label(tokenizer: Any, label: Label, settings: KtoConfig, max_tokens: int | None, data: LabelData) -> Encoded:
    """Return the completion's tokens with the end of each turn, truncated if it is too long."""
    turns = encode_turns(tokenizer, label.row["messages"], label.turns, settings.max_completion_tokens, max_tokens)
    data.truncated_completions += turns.is_cut_off
    return tuple(turns.tokens), tuple(turns.spans) if len(turns.spans) > 1 else ()
