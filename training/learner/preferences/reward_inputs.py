"""Files that the program reward reads besides the rankings, as tokens, and checks of their lengths."""

from collections.abc import Sequence
from typing import Any

from training.learner.models.packing import PromptGroup, as_group
from training.learner.models.reward_model import RewardModel
from training.learner.preferences.marks import MarkTargets, read_marks
from training.learner.preferences.ranking_data import RankingData
from training.learner.preferences.ratings import RatingData, read_ratings
from training.learner.runtime.config import RewardConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory
from training.learner.sampling.sampler import check_positions
from training.learner.text.messages import (
    check_messages,
    check_turns,
    encode_prompt,
    encode_turns,
    naming_row,
    tokens_left,
)


def check_group_lengths(model: RewardModel, groups: Sequence[PromptGroup]) -> None:
    """Raise BadInput if a prompt and one of its completions have more tokens than the model has positions."""
    for group in groups:
        check_positions(model.network, [group.prompt], max(map(len, group.completions)))


def check_contrast_lengths(model: RewardModel, groups: Sequence[PromptGroup]) -> None:
    """Raise BadInput if the longest text is too long under any prompt; the contrast may combine them.

    Dialogues may be long: the contrast leaves out the prompts before which they do not fit.
    """
    texts = [
        completion
        for group in groups
        for completion, spans in zip(group.completions, group.spans, strict=True)
        if len(spans) == 1
    ]
    longest = max(map(len, texts), default=0)
    check_positions(model.network, [group.prompt for group in groups], longest)


def rating_data(tokenizer: Any, job: JobDirectory, settings: RewardConfig, positions: int | None) -> RatingData:
    """Return the job's ratings; none if it has no ratings.jsonl or its settings leave them out."""
    if not settings.attribute_weight or not (job.path / "ratings.jsonl").exists():
        return RatingData()
    return read_ratings(tokenizer, job.rows("ratings.jsonl"), settings, positions)


def mark_targets(
    tokenizer: Any, job: JobDirectory, settings: RewardConfig, data: RankingData, positions: int | None
) -> MarkTargets | None:
    """Return the marked tokens of training completions; None if there are none or the settings leave them out."""
    if not settings.marks_weight:
        return None
    targets = MarkTargets(read_marks(tokenizer, job.rows("rankings.jsonl"), settings, positions), data.train)
    return targets if targets.marked else None


def read_samples(
    tokenizer: Any, job: JobDirectory, settings: RewardConfig, positions: int | None = None
) -> list[PromptGroup]:
    """Return the reference policy's samples; none if the job has no samples.jsonl."""
    if not (job.path / "samples.jsonl").exists():
        return []
    rows = enumerate(job.rows("samples.jsonl"), 1)
    samples = [as_sample(tokenizer, row, number, settings, positions) for number, row in rows]
    if not samples:
        raise BadInput("samples.jsonl has no rows: add samples, or delete it")
    return samples


def as_sample(
    tokenizer: Any, row: dict[str, Any], number: int, settings: RewardConfig, positions: int | None = None
) -> PromptGroup:
    with naming_row("samples.jsonl", number, row):
        messages = check_messages(row.get("messages"))
        if "turns" not in row and not isinstance(row.get("text"), str):
            raise BadInput("text must be a string")
        turns = check_turns(row.get("turns") or [{"role": "assistant", "content": row["text"]}])
        prompt = encode_prompt(tokenizer, messages, settings.max_prompt_tokens)
        limits = settings.max_completion_tokens, tokens_left(positions, prompt)
        tokens, spans, _ = encode_turns(tokenizer, messages, turns, *limits)
    return as_group(prompt, [(tokens, spans)])
