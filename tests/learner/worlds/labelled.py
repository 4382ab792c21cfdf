"""Labels of the enumerable world: completions of a policy over the letters, desirable if their reward is high."""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.learner.worlds.letters import LETTERS, MAX_LENGTH, PROMPTS, completions, policy_folder, reward_of


def label_rows(count: int = 24, seed: int = 0, held_out: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return rows of labels.jsonl: `count` distinct finished completions of each prompt; desirable above reward 0."""
    finished = [completion for completion in completions() if completion[-1] == 0 and len(completion) > 1]
    r = random.Random(seed)
    return [
        {
            "messages": [{"role": "user", "content": prompt}],
            "completion": " ".join(LETTERS[token] for token in completion[:-1]),
            "desirable": reward_of(completion) > 0,
            "split": "held_out" if prompt in held_out else "train",
        }
        for prompt in PROMPTS
        for completion in r.sample(finished, min(count, len(finished)))
    ]


def expected_labels(prompts: Sequence[str] = PROMPTS) -> list[dict[str, Any]]:
    """Return both labels of every completion, as of many people: desirable with the weight sigmoid(reward)."""
    rows = []
    for prompt in prompts:
        for completion in completions():
            desirable = 1 / (1 + math.exp(-reward_of(completion)))
            row = {
                "messages": [{"role": "user", "content": prompt}],
                "completion": " ".join(LETTERS[token] for token in completion if token),
            }
            rows += [
                row | {"desirable": True, "weight": desirable},
                row | {"desirable": False, "weight": 1 - desirable},
            ]
    return rows


def kto_job(folder: Path, rows: Sequence[dict[str, Any]], file: str = "labels.jsonl", **settings: Any) -> Path:
    """Make a job directory for kto, with its policy beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder.parent / "policy").exists():
        policy_folder(folder.parent / "policy")
    (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"model": str(folder.parent / "policy"), "max_completion_tokens": MAX_LENGTH, **settings}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
