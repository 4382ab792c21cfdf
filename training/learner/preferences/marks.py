"""Marked spans of completions as a token-level auxiliary loss of a reward model. Off by default.

Marked spans show where a completion is good or bad, which a ranking does not. Each token of a completion with
marks has one of three classes for that annotator: not marked, good, bad. A linear head on the trunk predicts the class
from the state at the token, and its cross-entropy is added to the loss of the rankings, so that the trunk learns to
tell good and bad places apart. (Wu et al. 2023, "Fine-grained human feedback gives better rewards for language model
training", §3.1, train reward models on the classes of spans in the same way, without rankings.) The score is read
as before, and the head is not saved.

Completions without marks by an annotator are not used here: missing marks do not mean that a completion has no good or
bad place. A token has the mark of most of its marked characters, and of its first ones if both are equal. In
dialogues only the tokens of the policy's turns have a class.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from training.learner.preferences.passes import total_weight
from training.learner.preferences.ranking_data import Comparison, check_row
from training.learner.preferences.ratings import Key, keys_of
from training.learner.runtime.config import Settings
from training.learner.runtime.jobdir import BadInput
from training.learner.text.messages import Messages, encode_prompt, encode_reply, encode_turns, naming_row, tokens_left
from training.learner.text.offsets import Offsets, encode_with_offsets

NONE, GOOD, BAD = 0, 1, 2
MARKS = {"good": GOOD, "bad": BAD}
BETWEEN = "\n\n"  # between the turns in the text of a dialogue

Span = tuple[int, int, int]  # first character, the one after the last, and the class


class MarkedTokens(NamedTuple):
    """Tokens of completions with marks, M in all."""

    tokens: list[tuple[int, int, int]]  # group, completion, token
    weight: Tensor  # [M, 3], of each class: sum of the weights of the rankings with that class


def read_marks(
    tokenizer: Any, rows: Iterable[dict[str, Any]], settings: Settings, positions: int | None = None
) -> dict[Key, Tensor]:
    """Return the weights [T, 3] of the classes of the first T tokens of training completions with marks.

    End-of-turn tokens and the user's turns of a dialogue have weight 0: only characters of the policy are marked.
    rows: those of rankings.jsonl. positions: of the reward model, as for the rankings. Raises BadInput, with the row's
    name, for an invalid span.
    """
    marked: dict[Key, Tensor] = {}
    for number, row in enumerate(rows, 1):
        with naming_row("rankings.jsonl", number, row):
            check_row(row)
            spans = _spans_by_place(row)
            if not spans or row["split"] != "train":
                continue
            prompt = encode_prompt(tokenizer, row["messages"], settings.max_prompt_tokens, settings.overlong_prompts)
            for place, of_completion in spans.items():
                turns = located_turns(row, place)
                if not any(touches(span, turn) for span in of_completion for turn in turns if turn.is_policy):
                    continue
                messages = [turn.message for turn in turns]
                limits = settings.max_completion_tokens, tokens_left(positions, prompt)
                completion = encode_turns(tokenizer, row["messages"], messages, *limits).tokens
                weight = _weight(tokenizer, row["messages"], turns, of_completion, limits[0], len(completion))
                key = (tuple(prompt), tuple(completion))
                marked[key] = marked.get(key, 0) + weight * float(row.get("weight", 1.0))
    return {key: weight for key, weight in marked.items() if weight.sum() > 0}


def count_left_out(rows: Iterable[dict[str, Any]]) -> int:
    """Return how many marks of training rows are in a user's turn alone, which the policy does not write."""
    return sum(
        not any(touches(span, turn) for turn in located_turns(row, place) if turn.is_policy)
        for row in rows
        if row["split"] == "train"
        for place, spans in _spans_by_place(row).items()
        for span in spans
    )


class LocatedTurn(NamedTuple):
    """A turn of a completion, and the characters of the completion's text that are its content."""

    message: dict[str, str]
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.message["content"])

    @property
    def is_policy(self) -> bool:
        return self.message["role"] == "assistant"


def located_turns(row: dict[str, Any], place: int) -> list[LocatedTurn]:
    """Return the turns of a completion; a text is one turn.

    The text of a dialogue has each turn under a line with its role. Raises BadInput for any other text.
    """
    text, turns = row["completions"][place], row["turns"][place] if row.get("turns") else None
    if turns is None:
        return [LocatedTurn({"role": "assistant", "content": text}, 0)]
    located: list[LocatedTurn] = []
    written = ""
    for message in turns:
        written += f"{BETWEEN if located else ''}{message['role'].capitalize()}:\n"
        located.append(LocatedTurn(message, len(written)))
        written += message["content"]
    if written != text:
        raise BadInput("the text of a dialogue with marks must have each turn under a line with its role")
    return located


def touches(span: Span, turn: LocatedTurn) -> bool:
    """Return whether the span has a character of the turn."""
    return min(span[1], turn.end) > max(span[0], turn.start)


def _weight(
    tokenizer: Any, messages: Messages, turns: Sequence[LocatedTurn], spans: Sequence[Span], longest: int, read: int
) -> Tensor:
    """Return the weights [T, 3] of the tokens of a completion up to the last one that stands for a character.

    longest: tokens of a turn at most. read: tokens of the completion that the model reads.
    """
    rows: list[Tensor] = []
    for place, turn in enumerate(turns):
        if not turn.is_policy:
            before = [turn.message for turn in turns[: place - 1]]
            reply = encode_reply(tokenizer, [*messages, *before], turn.message["content"])
            rows.append(torch.zeros(len(reply), 3))
            continue
        _, offsets = encode_with_offsets(tokenizer, turn.message["content"])
        shifted = [(first - turn.start, end - turn.start, mark) for first, end, mark in spans]
        classes = torch.tensor(token_classes(offsets[:longest], shifted), dtype=torch.int64)
        rows.append(torch.nn.functional.one_hot(classes, 3).float())
        if len(offsets) >= longest:  # the turn was cut off, and ends the completion
            break
        rows.append(torch.zeros(1, 3))  # the end-of-turn token
    weight = torch.cat(rows)[:read]
    last = int(weight.sum(1).nonzero().max()) if weight.any() else -1
    return weight[: last + 1]


def token_classes(offsets: Offsets, spans: Sequence[Span]) -> list[int]:
    """Return the class of each token by its characters; see the module's docstring."""
    classes = []
    for first, end in offsets:
        counts = Counter[int]()  # in the order of the token's characters, and of equal counts `max` returns the first
        for start, stop, mark in spans:
            if (shared := min(end, stop) - max(first, start)) > 0:
                counts[mark] += shared
        classes.append(max(counts, key=lambda mark: counts[mark], default=NONE))
    return classes


def _spans_by_place(row: dict[str, Any]) -> dict[int, list[Span]]:
    """Return the spans of each completion of a row, sorted by start."""
    spans = row.get("spans") or []
    if not isinstance(spans, list) or not all(isinstance(span, dict) for span in spans):
        raise BadInput("spans must be a list of objects")
    by_place: dict[int, list[Span]] = {}
    for span in spans:
        place, start, end = (span.get(name) for name in ("completion", "start", "end"))
        if type(place) is not int or not 0 <= place < len(row["completions"]):
            raise BadInput(f"a span must name its completion by index, not {place!r}")
        length = len(row["completions"][place])
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= length:
            raise BadInput(f"a span must have 0 ≤ start < end ≤ {length}, not {start!r} and {end!r}")
        if span.get("mark") not in MARKS:
            raise BadInput(f"a span must be marked good or bad, not {span.get('mark')!r}")
        by_place.setdefault(place, []).append((start, end, MARKS[span["mark"]]))
    return {place: sorted(of_place) for place, of_place in by_place.items()}


class MarkTargets:
    """Classes of tokens of the completions of comparisons."""

    def __init__(self, marked: dict[Key, Tensor], comparisons: Sequence[Comparison]) -> None:
        """Prepare the marks of those completions that the comparisons have and that have a weight."""
        useful = [comparison for comparison in comparisons if total_weight([comparison]) > 0]
        self.occurrences = Counter(key for comparison in useful for key in keys_of(comparison))
        self.marked = {key: weight for key, weight in marked.items() if key in self.occurrences}
        self.totals = sum((weight.sum(0) for weight in self.marked.values()), torch.zeros(3))
        # Makes the loss of a batch, divided by the weight of its rankings, a mean over tokens.
        self.factor = total_weight(useful) / float(self.totals.sum()) if self.marked else 0.0

    def new_head(self, width: int) -> nn.Linear:
        """Return a head that predicts the share of each class in training, with add-one smoothing."""
        head = nn.Linear(width, 3)
        with torch.no_grad():
            head.weight.zero_()
            head.bias.copy_(((self.totals + 1) / (self.totals + 1).sum()).log())
        return head

    def of(self, comparisons: Sequence[Comparison]) -> MarkedTokens:
        """Return the tokens of the comparisons' completions with marks."""
        tokens: list[tuple[int, int, int]] = []
        weights: list[Tensor] = []
        for group, comparison in enumerate(comparisons):
            for place, key in enumerate(keys_of(comparison)):
                if key in self.marked:
                    tokens += [(group, place, token) for token in range(len(self.marked[key]))]
                    weights.append(self.marked[key] / self.occurrences[key])
        return MarkedTokens(tokens, torch.cat(weights) if weights else torch.zeros(0, 3))

    def loss(self, head: nn.Linear, states: Tensor, marked: MarkedTokens) -> Tensor:
        """Return the cross-entropy of the tokens' classes, for states [M, d].

        Divided by the weight of the rankings of all comparisons it is the mean over tokens, nats.
        """
        with torch.autocast(states.device.type, enabled=False):
            log_shares = head(states.float()).log_softmax(-1)
        return -self.factor * (marked.weight.to(states.device) * log_shares).sum()
