"""Read rankings.jsonl into comparisons: a prompt, its distinct completions, and all rankings of them.

Rankings of the same completions by several annotators are one comparison, so that one forward pass serves them all.
Completions with the same tokens are one completion. All rankings of a prompt are in one split, training or held-out.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from training.learner.models.packing import PromptGroup, as_group
from training.learner.preferences.losses import Pairs, pairs_of_rankings
from training.learner.runtime.config import Settings
from training.learner.runtime.jobdir import BadInput
from training.learner.text.messages import (
    SPLITS,
    check_messages,
    check_turns,
    encode_turns,
    naming_row,
    render,
    tokens_left,
)

ANCHORS = {"above": 1, "below": -1, None: 0}  # `anchor` of a row: where all completions are, see anchor.py


@dataclass(frozen=True)
class Ranking:
    """One annotator's rank and place (index into the comparison's completions) of each completion."""

    ranks: tuple[int, ...]  # 1 is best; equal ranks tie
    places: tuple[int, ...]
    annotator: str
    weight: float
    strength: int | None
    anchor: int = 0  # 1: the annotator judged all completions good; −1: bad; 0: neither
    row: int = 0  # number of its row in the file, from 1

    @property
    def is_strict(self) -> bool:
        return len(set(self.ranks)) == len(self.ranks) and len(set(self.places)) == len(self.places)


@dataclass(frozen=True)
class Comparison:
    """A prompt with its distinct completions, and the rankings of them."""

    prompt_id: int
    group: PromptGroup
    rankings: tuple[Ranking, ...]


@dataclass
class RankingData:
    """All comparisons of a job, with counts of what was truncated or dropped."""

    train: list[Comparison] = field(default_factory=list)
    held_out: list[Comparison] = field(default_factory=list)
    truncated_prompts: int = 0
    truncated_completions: int = 0
    dropped_held_out: int = 0  # held-out rankings whose prompt has the tokens of a training prompt


def read_rankings(
    tokenizer: Any, rows: Iterable[dict[str, Any]], config: Settings, positions: int | None = None
) -> RankingData:
    """Return comparisons in the order of their first ranking.

    positions: of the models that read them; a dialogue that needs more is cut after the last turn that fits.

    Raises BadInput for a row that is not a ranking (the message names it), for a prompt in both splits, and if no
    training ranking prefers one completion to another.
    """
    data = RankingData()
    by_group: dict[tuple[str, int, PromptGroup], list[Ranking]] = defaultdict(list)
    for number, row in enumerate(rows, 1):
        with naming_row("rankings.jsonl", number, row):
            check_row(row)
            group, ranking = _encode(tokenizer, row, number, config, positions, data)
        by_group[row["split"], row["prompt_id"], group].append(ranking)
    _check_split(by_group)
    trained_prompts = {group.prompt for split, _, group in by_group if split == "train"}
    for (split, prompt_id, group), rankings in by_group.items():
        if split == "held_out" and group.prompt in trained_prompts:
            data.dropped_held_out += len(rankings)
        else:
            getattr(data, split).append(Comparison(prompt_id, group, tuple(rankings)))
    rankings = [ranking for comparison in data.train for ranking in comparison.rankings]
    if not any(len(set(ranking.ranks)) > 1 and ranking.weight > 0 for ranking in rankings):
        raise BadInput("rankings.jsonl has no training ranking that prefers a completion and has a weight above 0")
    return data


def check_row(row: dict[str, Any]) -> None:
    """Raise BadInput if the row is not a ranking; the program's `--help` describes the format."""
    completions, ranks = row.get("completions"), row.get("ranks")
    if not isinstance(row.get("prompt_id"), int):
        raise BadInput("prompt_id must be a whole number")
    if row.get("split") not in SPLITS:
        raise BadInput(f"split must be train or held_out, not {row.get('split')!r}")
    check_messages(row.get("messages"))
    if not isinstance(completions, list) or len(completions) < 2 or not all(isinstance(c, str) for c in completions):
        raise BadInput("completions must be a list of at least two strings")
    if not isinstance(ranks, list) or not all(type(rank) is int for rank in ranks):
        raise BadInput("ranks must be a list of whole numbers")
    turns = row.get("turns")
    if turns is not None and (not isinstance(turns, list) or len(turns) != len(completions)):
        raise BadInput("turns must be a list with the messages of a dialogue, or null, for each completion")
    for dialogue in turns or ():
        if dialogue is not None:
            check_turns(dialogue)
    if len(ranks) != len(completions):
        raise BadInput(f"there must be one rank per completion, not {len(ranks)} for {len(completions)}")
    weight, strength = row.get("weight", 1.0), row.get("strength")
    if type(weight) not in (int, float) or not 0 <= weight < float("inf"):
        raise BadInput(f"weight must be a number of at least 0, not {weight!r}")
    if not isinstance(row.get("anchor"), str | None) or row.get("anchor") not in ANCHORS:
        raise BadInput(f"anchor must be above or below, or null, not {row['anchor']!r}")
    if strength is not None and (type(strength) is not int or strength < 0):
        raise BadInput(f"strength must be a whole number of at least 0, or null, not {strength!r}")


def _encode(
    tokenizer: Any, row: dict[str, Any], number: int, config: Settings, positions: int | None, data: RankingData
) -> tuple[PromptGroup, Ranking]:
    """Return the prompt with its distinct completions as tokens, in sorted order, and the ranking of them."""
    prompt = _encode_prompt(tokenizer, row, config, data)
    completions = []
    for text, turns in zip(row["completions"], row.get("turns") or [None] * len(row["completions"]), strict=True):
        messages = turns or [{"role": "assistant", "content": text}]
        tokens, spans, is_cut_off = encode_turns(
            tokenizer, row["messages"], messages, config.max_completion_tokens, tokens_left(positions, prompt)
        )
        data.truncated_completions += is_cut_off
        completions.append((tuple(tokens), tuple(spans)))
    distinct = sorted(set(completions))
    ranking = Ranking(
        ranks=tuple(row["ranks"]),
        places=tuple(distinct.index(completion) for completion in completions),
        annotator=str(row.get("annotator", "")),
        weight=float(row.get("weight", 1.0)),
        strength=row.get("strength"),
        anchor=ANCHORS[row.get("anchor")],
        row=number,
    )
    return as_group(prompt, distinct), ranking


def _encode_prompt(tokenizer: Any, row: dict[str, Any], config: Settings, data: RankingData) -> tuple[int, ...]:
    limit = config.max_prompt_tokens
    tokens = render(tokenizer, row["messages"])
    if len(tokens) > limit:
        if config.overlong_prompts == "refuse":
            raise BadInput(f"the prompt has {len(tokens)} tokens, more than max_prompt_tokens ({limit})")
        data.truncated_prompts += 1
    return tuple(tokens[-limit:])


def _check_split(groups: Iterable[tuple[str, int, PromptGroup]]) -> None:
    """Raise BadInput if a prompt is in both splits."""
    splits: dict[int, str] = {}
    for split, prompt_id, _ in groups:
        if splits.setdefault(prompt_id, split) != split:
            raise BadInput(f"rankings.jsonl has prompt {prompt_id} in both splits: all its rankings must be in one")


def pairs_of_comparisons(comparisons: Iterable[Comparison], ties: bool = True, margin: float = 0.0) -> Pairs:
    """Return all pairs of all rankings, as indices into the scores of the comparisons' completions, end to end.

    ties: whether to include tied pairs. margin: nats per level of a ranking's strength.
    """
    rankings: list[Ranking] = []
    places: list[list[int]] = []
    first = 0
    for comparison in comparisons:
        rankings.extend(comparison.rankings)
        places.extend([first + place for place in ranking.places] for ranking in comparison.rankings)
        first += len(comparison.group.completions)
    return pairs_of_rankings(
        [ranking.ranks for ranking in rankings],
        places,
        [ranking.weight for ranking in rankings],
        [margin * (ranking.strength or 0) for ranking in rankings],
        ties=ties,
    )
