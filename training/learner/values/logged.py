"""Logged completions: the rows of completions.jsonl as tokens, with their rewards."""

import functools
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.learner.models.packing import as_episodes
from training.learner.reward_terms import Answer, terms_with_references
from training.learner.rewards.reward_function import Reward, has_references
from training.learner.runtime.config import QConfig
from training.learner.runtime.jobdir import BadInput
from training.learner.runtime.processes import Processes
from training.learner.text.messages import (
    SPLITS,
    Prompt,
    TurnSpan,
    check_messages,
    encode_completion,
    encode_turns,
    naming_row,
    render,
    share,
    tokens_left,
    truncate_prompt,
    turns_of,
)
from training.learner.values.replay import ReplayBuffer, merge_equal

FILE = "completions.jsonl"


class Logged(NamedTuple):
    """A row of completions.jsonl."""

    prompt: Prompt
    tokens: list[int]  # of the completion; with its EOS token unless it is truncated
    finished: bool
    reward: float | None  # of the row; None: the reward terms determine it
    turns: tuple[TurnSpan, ...] = ()  # of a dialogue: spans of the policy's turns; (): the whole completion

    @property
    def is_truncated(self) -> bool:
        """Return whether it is a dialogue that would have gone on. A row without the key came to its end."""
        return bool(self.prompt.row.get("truncated", False))

    @property
    def is_learned(self) -> bool:
        """Return whether a token of it is a part of the losses; the last one of a truncated dialogue is not."""
        return sum(end - start for start, end in self.spans) > self.is_truncated

    @property
    def spans(self) -> tuple[TurnSpan, ...]:
        """Spans of the policy's turns."""
        return self.turns or ((0, len(self.tokens)),)


def read_completions(
    tokenizer: Any, rows: Iterable[dict[str, Any]], settings: QConfig, positions: int | None = None
) -> list[Logged]:
    """Return the logged completions. Raises BadInput for a row that cannot be used, or without training rows.

    positions: of the policy; a dialogue that needs more is cut after the last turn that fits.
    """
    # Prompts come with many completions, and short answers come often: encode each once.
    encode = functools.cache(lambda text: encode_completion(tokenizer, text))
    prompt_tokens = functools.cache(lambda messages: render(tokenizer, json.loads(messages)))
    completions = []
    for number, row in enumerate(rows, 1):
        with naming_row(FILE, number, row):
            check_row(row, settings)
            whole_prompt = prompt_tokens(json.dumps(row["messages"]))
            if row.get("turns"):
                completions.append(as_logged_dialogue(tokenizer, row, whole_prompt, settings, positions))
            else:
                completions.append(as_logged(row, whole_prompt, encode(row["completion"]), settings))
    if not any(is_trained_on(one) for one in completions):
        raise BadInput(f"{FILE} has no completion to train on: add rows whose split is not held_out")
    return completions


def as_logged(row: dict[str, Any], whole_prompt: list[int], whole: list[int], settings: QConfig) -> Logged:
    """Return the row with these tokens, truncated to the settings' lengths."""
    prompt = as_prompt(row, whole_prompt, settings)
    if not row.get("finished", True):
        whole = whole[:-1]
    tokens = whole[: settings.max_completion_tokens]
    if not tokens:
        raise BadInput("the completion has no tokens: an empty one must be finished")
    finished = bool(row.get("finished", True)) and len(tokens) == len(whole)
    return Logged(prompt, tokens, finished, reward_of(row))


def as_logged_dialogue(
    tokenizer: Any, row: dict[str, Any], whole_prompt: list[int], settings: QConfig, positions: int | None
) -> Logged:
    """Return a row with `turns` as tokens. If it is not finished, its last turn has no EOS token."""
    prompt = as_prompt(row, whole_prompt, settings)
    limits = settings.max_completion_tokens, tokens_left(positions, prompt.tokens)
    tokens, spans, is_cut_off = encode_turns(tokenizer, row["messages"], row["turns"], *limits)
    if not row.get("finished", True) and not is_cut_off:
        tokens, is_cut_off = tokens[:-1], True
        start, _ = spans.pop()
        if start < len(tokens):
            spans.append((start, len(tokens)))
    if not spans:
        raise BadInput("the dialogue has no tokens of the policy")
    return Logged(prompt, tokens[: spans[-1][1]], not is_cut_off, reward_of(row), tuple(spans))


def as_prompt(row: dict[str, Any], whole: list[int], settings: QConfig) -> Prompt:
    tokens = truncate_prompt(whole, settings.max_prompt_tokens, settings.overlong_prompts)
    if not tokens:
        raise BadInput("the prompt has no tokens")
    return Prompt(row, tokens, len(tokens) < len(whole))


def reward_of(row: dict[str, Any]) -> float | None:
    """Return the reward of a row, None if the reward terms determine it; 0 of a truncated dialogue, which has none."""
    if row.get("truncated"):
        return 0.0
    return None if row.get("reward") is None else float(row["reward"])


def check_row(row: dict[str, Any], settings: QConfig) -> None:
    """Raise BadInput for a row that has a wrong type, or neither a reward nor what the reward terms need.

    A truncated dialogue needs neither.
    """
    check_messages(row.get("messages"))
    turns_of(row)
    if row.get("split", "train") not in SPLITS:
        raise BadInput(f"split must be train or held_out, not {row['split']!r}")
    for name, otherwise in (("finished", True), ("truncated", False)):
        if not isinstance(row.get(name, otherwise), bool):
            raise BadInput(f"{name} must be true or false, not {row[name]!r}")
    reward = row.get("reward")
    if row.get("truncated") and reward is None:
        return
    if reward is None and not settings.rewards:
        raise BadInput("the row has no reward, and there are no reward terms: give it one, or set rewards")
    if reward is None:
        names = terms_with_references(settings.rewards)
        if names and not has_references(row):
            raise BadInput(f"the reward term {names[0]} needs references, a list of at least one text, or a reward")
    elif isinstance(reward, bool) or not isinstance(reward, int | float) or not math.isfinite(reward):
        raise BadInput(f"reward must be a number, not {reward!r}")


def is_trained_on(logged: Logged) -> bool:
    return logged.prompt.row.get("split") != "held_out"


def replay_buffer(completions: Sequence[Logged], rewards: Tensor) -> ReplayBuffer:
    """Return a buffer of these completions with their rewards [N]; equal ones are counted."""
    episodes = as_episodes(
        [one.prompt.tokens for one in completions],
        [one.tokens for one in completions],
        [one.spans for one in completions],
        [one.is_truncated for one in completions],
    )
    return merge_equal(episodes, rewards)


@torch.no_grad()
def rewards_of(completions: Sequence[Logged], reward: Reward | None, processes: Processes) -> Tensor:
    """Return the rewards [N]: those given in the rows, else those of the reward terms; processes share the work.

    0 for truncated dialogues: the reward terms score the end of a dialogue.
    """
    unknown = [i for i, one in enumerate(completions) if one.reward is None]
    mine = share(unknown, processes.rank, processes.count)
    answers = [as_answer(completions[i]) for i in mine]
    scores = reward(answers).tolist() if reward is not None and answers else []
    known = dict(zip(unknown, processes.gather(scores), strict=True))
    rewards = torch.tensor([known.get(i, one.reward) for i, one in enumerate(completions)], dtype=torch.float32)
    if not bool(rewards.isfinite().all()):
        raise BadInput(
            f"{FILE}, row {int((~rewards.isfinite()).nonzero()[0]) + 1}: the sum of the reward terms is not finite"
        )
    return rewards


def as_answer(logged: Logged) -> Answer:
    """Return the completion to be scored; of a dialogue the last turn, after the turns before it."""
    row = logged.prompt.row
    turns = turns_of(row)
    start, _ = logged.spans[-1]
    before = [*logged.prompt.tokens, *logged.tokens[:start]]
    if len(turns) == 1:
        return Answer(row, before, logged.tokens, turns[0]["content"], logged.finished)
    last = {**row, "messages": [*row["messages"], *turns[:-1]]}
    return Answer(last, before, logged.tokens[start:], turns[-1]["content"], logged.finished, turns)


def check_some_end(completions: Sequence[Logged]) -> None:
    """Raise BadInput if all training completions are truncated dialogues: then no reward is known."""
    if all(one.is_truncated for one in completions):
        raise BadInput(
            f"{FILE} has only truncated dialogues to train on, whose rewards are not known: add completions that came "
            "to their end"
        )


def check_differing(buffer: ReplayBuffer) -> None:
    """Raise BadInput if all rewards are equal: no token then has an advantage over another."""
    ended = ~buffer.truncated()
    rewards, count = buffer.rewards[ended], int(buffer.counts[ended].sum())
    if bool((rewards == rewards[0]).all()):
        raise BadInput(
            f"all {count} training completions have the reward {float(rewards[0]):g}, so none is better than "
            "another: add completions of other quality, or imitate them with sft"
        )


def prompts_to_answer(completions: Iterable[Logged], settings: QConfig) -> list[Prompt]:
    """Return every prompt once, in the order of the rows; only those with references if a reward term compares."""
    compares = bool(terms_with_references(settings.rewards))
    prompts = {tuple(one.prompt.tokens): one.prompt for one in completions}.values()
    return [prompt for prompt in prompts if has_references(prompt.row) or not compares]
