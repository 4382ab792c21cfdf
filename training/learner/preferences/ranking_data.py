"""rankings.jsonl to comparisons: a prompt, its distinct completions, and every ranking of them.

Rankings of the same completions (several annotators, one comparison) are one element, so that a forward pass serves
them all. Completions with the same tokens are one completion. A whole prompt is held out or trained on, never both.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from training.learner.models.packing import PromptGroup
from training.learner.preferences.losses import Pairs, pairs_of_rankings
from training.learner.runtime.config import RewardConfig
from training.learner.runtime.jobdir import BadInput
from training.learner.text.messages import SPLITS, check_messages, encode_completion, naming_row, render


@dataclass(frozen=True)
class Ranking:
    """What one annotator said: rank and place (index into the comparison's completions) of each completion."""

    ranks: tuple[int, ...]  # 1 is best; equal ranks tie
    places: tuple[int, ...]
    annotator: str
    weight: float
    strength: int | None

    @property
    def is_strict(self) -> bool:
        return len(set(self.ranks)) == len(self.ranks) and len(set(self.places)) == len(self.places)


@dataclass(frozen=True)
class Comparison:
    """A prompt with the distinct completions that some rankings order."""

    prompt_id: int
    group: PromptGroup
    rankings: tuple[Ranking, ...]


@dataclass
class RankingData:
    """All comparisons of a job, and what was done to them on the way in."""

    train: list[Comparison] = field(default_factory=list)
    held_out: list[Comparison] = field(default_factory=list)
    truncated_prompts: int = 0
    truncated_completions: int = 0
    dropped_held_out: int = 0  # held-out rankings whose prompt is word for word one that is trained on


def read_rankings(tokenizer: Any, rows: Iterable[dict[str, Any]], config: RewardConfig) -> RankingData:
    """Comparisons in the order of their first ranking.

    Raises BadInput, naming the row, for rows that make no sense, for a prompt in both splits, and when no ranking that
    is trained on prefers anything.
    """
    data = RankingData()
    found: dict[tuple[str, int, PromptGroup], list[Ranking]] = defaultdict(list)
    for number, row in enumerate(rows, 1):
        with naming_row("rankings.jsonl", number, row):
            check_row(row)
            group, ranking = _encode(tokenizer, row, config, data)
        found[row["split"], row["prompt_id"], group].append(ranking)
    _check_split(found)
    trained_prompts = {group.prompt for split, _, group in found if split == "train"}
    for (split, prompt_id, group), rankings in found.items():
        if split == "held_out" and group.prompt in trained_prompts:
            data.dropped_held_out += len(rankings)
        else:
            getattr(data, split).append(Comparison(prompt_id, group, tuple(rankings)))
    rankings = [ranking for comparison in data.train for ranking in comparison.rankings]
    if not any(len(set(ranking.ranks)) > 1 and ranking.weight > 0 for ranking in rankings):
        raise BadInput("rankings.jsonl holds no training ranking that prefers one completion to another, with weight")
    return data


def check_row(row: dict[str, Any]) -> None:
    """Raises BadInput unless the row is a ranking as the job directory's protocol has it."""
    completions, ranks = row.get("completions"), row.get("ranks")
    if not isinstance(row.get("prompt_id"), int):
        raise BadInput("prompt_id must be a whole number")
    if row.get("split") not in SPLITS:
        raise BadInput(f"split must be train or held_out, not {row.get('split')!r}")
    check_messages(row.get("messages"))
    if not isinstance(completions, list) or len(completions) < 2 or not all(isinstance(c, str) for c in completions):
        raise BadInput("completions must be a list of at least two texts")
    if not isinstance(ranks, list) or not all(type(rank) is int for rank in ranks):
        raise BadInput("ranks must be a list of whole numbers")
    if len(ranks) != len(completions):
        raise BadInput(f"{len(completions)} completions have {len(ranks)} ranks")
    weight, strength = row.get("weight", 1.0), row.get("strength")
    if type(weight) not in (int, float) or not 0 <= weight < float("inf"):
        raise BadInput(f"weight must be a number of at least 0, not {weight!r}")
    if strength is not None and (type(strength) is not int or strength < 0):
        raise BadInput(f"strength must be a whole number of at least 0, or null, not {strength!r}")


def _encode(
    tokenizer: Any, row: dict[str, Any], config: RewardConfig, data: RankingData
) -> tuple[PromptGroup, Ranking]:
    """Tokens of the row's prompt and completions, sorted and distinct, and the ranking in their terms."""
    prompt = _encode_prompt(tokenizer, row, config, data)
    completions = []
    for text in row["completions"]:
        whole = encode_completion(tokenizer, text)
        data.truncated_completions += len(whole) > config.max_completion_tokens
        completions.append(tuple(whole[: config.max_completion_tokens]))
    distinct = tuple(sorted(set(completions)))
    ranking = Ranking(
        ranks=tuple(row["ranks"]),
        places=tuple(distinct.index(completion) for completion in completions),
        annotator=str(row.get("annotator", "")),
        weight=float(row.get("weight", 1.0)),
        strength=row.get("strength"),
    )
    return PromptGroup(prompt, distinct), ranking


def _encode_prompt(tokenizer: Any, row: dict[str, Any], config: RewardConfig, data: RankingData) -> tuple[int, ...]:
    limit = config.max_prompt_tokens
    tokens = render(tokenizer, row["messages"])
    if len(tokens) > limit:
        if config.overlong_prompts == "refuse":
            raise BadInput(f"the prompt has {len(tokens)} tokens, more than max_prompt_tokens ({limit})")
        data.truncated_prompts += 1
    return tuple(tokens[-limit:])


def _check_split(found: Iterable[tuple[str, int, PromptGroup]]) -> None:
    splits: dict[int, str] = {}
    for split, prompt_id, _ in found:
        if splits.setdefault(prompt_id, split) != split:
            raise BadInput(f"rankings.jsonl has prompt {prompt_id} both to train on and held out")


def pairs_of_comparisons(comparisons: Iterable[Comparison], ties: bool = True, margin: float = 0.0) -> Pairs:
    """All pairs of all rankings, as indices into the scores of the comparisons' completions, end to end.

    ties: whether tied pairs are among them. margin: nats per level of a ranking's strength.
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
