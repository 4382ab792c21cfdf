"""Jobs of the program evaluate in the world of letters, with a reward model of several heads."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.learner.worlds.letters import MAX_LENGTH, PROMPTS, letters_tokenizer, policy_folder
from training.learner.models.reward_model import new_reward_model, save_reward_model

REFERENCES = {"a": ["b c", "a"], "c": ["d"]}  # of some prompts


def ensemble_folder(folder: Path, heads: int = 4) -> Path:
    """Save a random reward model over the letters whose heads differ."""
    policy_folder(folder, seed=5)
    model, generator = new_reward_model(str(folder), heads=heads, seed=0), torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.head.weight.normal_(generator=generator)
        if model.ensemble is not None:
            model.ensemble.learned.normal_(generator=generator)
    model.network.config.reward_shift, model.network.config.reward_scale = 0.5, 2.0
    save_reward_model(model, letters_tokenizer(), folder)
    return folder


def evaluate_job(folder: Path, prompts: Sequence[str] = PROMPTS, **settings: Any) -> Path:
    """Make a job directory for evaluate, with its policy beside it."""
    folder.mkdir()
    if not (folder.parent / "policy").exists():
        policy_folder(folder.parent / "policy", seed=1)
    rows = []
    for number, text in enumerate(prompts):
        row: dict[str, Any] = {"prompt_id": number, "messages": [{"role": "user", "content": text}]}
        rows.append(row | ({"references": REFERENCES[text]} if text in REFERENCES else {}))
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"model": str(folder.parent / "policy"), "max_completion_tokens": MAX_LENGTH, **settings}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
