"""Reading comprehension from the demo's grammar: `q` from logged answers beside `ppo`, from the same base.

    .venv/bin/python -m tests.benchmarks.learner.reading FOLDER [--seed N] [--threads N]

Steps, each a job directory in FOLDER; a finished one is not run again:

1. base: `sft` from nothing on the right answers to READ passages. A small model learns to read only from answers that
   are nearly all right, and forgets it when it imitates the log, of which 40 % are right (training/LOG.md). So the log
   is worse than the base here.
2. q: from the base on one logged answer for each of LOGGED other passages, with token F1 as reward.
3. ppo: from the base on the same passages, with the same reward; it samples as many answers as were logged.

Prints the result of q and of ppo as a line of JSON: `reward` is the token F1 on the held-out passages,
`reward_reference` that of the base, `reward_gain` the difference with its 95 % interval, `kl` in nats. Results:
training/LOG.md.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from training.demo.base_model import as_prompt
from training.demo.grammar.reading import Reading, logged_answer, readings
from training.learner.runtime.jobdir import JobDirectory

READ, LOGGED, HELD_OUT = 16_000, 1920, 400
BETA = 0.1

BASE: dict[str, Any] = {
    "architecture": {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
    },
    "vocabulary_size": 1200,
    "learning_rate": 3e-3,
    "warmup_fraction": 0.03,
    "final_learning_rate_fraction": 0.02,
    "weight_decay": 0.01,
    "batch_tokens": 512,
    "save_every": 500,
}
COMMON: dict[str, Any] = {
    "rewards": [{"name": "token_f1"}],
    "missing_eos_penalty": 0.0,
    "max_prompt_tokens": 160,
    "max_completion_tokens": 24,
    "kl_coefficient": BETA,
    "eval_prompts": HELD_OUT,
    "learning_rate": 3e-4,
}
Q: dict[str, Any] = {
    "value_epochs": 4,
    "policy_epochs": 3,
    "value_learning_rate": 1e-3,
    "td_lambda": 0.95,
    "target_decay": 0.95,
    "state_value": "soft",
}
PPO: dict[str, Any] = {"steps": LOGGED // 64, "batch_episodes": 64, "epochs": 2, "minibatches": 2}


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    import torch

    torch.set_num_threads(options.threads)
    for name, result in run_all(options.folder, options.seed).items():
        print(json.dumps({"program": name} | result), flush=True)
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="reading")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


def run_all(folder: Path, seed: int) -> dict[str, dict[str, Any]]:
    """Run the programs; return the results of q and ppo."""
    from training.learner import ppo, q, sft

    run(sft.main, folder / "base", BASE | {"seed": seed}, {"demonstrations.jsonl": right_answers(READ)})
    common = COMMON | {"model": str(folder / "base" / "model"), "seed": seed}
    logged = {"completions.jsonl": completions(LOGGED, HELD_OUT)}
    asked = {"prompts.jsonl": prompts(LOGGED, HELD_OUT)}
    return {
        "q": run(q.main, folder / "q", common | Q, logged),
        "ppo": run(ppo.main, folder / "ppo", common | PPO, asked),
    }


def run(
    program: Callable[[Path], None],
    folder: Path,
    settings: dict[str, Any],
    files: dict[str, Iterator[dict[str, Any]]],
) -> dict[str, Any]:
    """Run a program in a job directory, unless it has finished there, and return its result."""
    folder.mkdir(parents=True, exist_ok=True)
    job = JobDirectory(folder)
    if job.result() is None:
        for name, rows in files.items():
            job.write_rows(name, rows)
        job.write_config(settings)
        program(folder)
    return job.result() or {}


def right_answers(count: int) -> Iterator[dict[str, Any]]:
    """Yield demonstrations with right answers."""
    for reading in readings(1, count):
        yield {"messages": as_prompt(reading.prompt), "completion": reading.answer}


def completions(count: int, held_out: int) -> Iterator[dict[str, Any]]:
    """Yield logged answers with their references, as q reads them."""
    random = Random("log")
    for row, reading in passages(count, held_out):
        yield row | {"completion": logged_answer(reading, random)}


def prompts(count: int, held_out: int) -> Iterator[dict[str, Any]]:
    """Yield the same passages and questions without an answer, as ppo reads them."""
    for number, (row, _) in enumerate(passages(count, held_out)):
        yield {"prompt_id": number} | row


def passages(count: int, held_out: int) -> Iterator[tuple[dict[str, Any], Reading]]:
    """Yield rows of training passages, then of held-out ones."""
    for seed, number, split in ((2, count, "train"), (3, held_out, "held_out")):
        for reading in readings(seed, number):
            yield {"messages": as_prompt(reading.prompt), "references": [reading.answer], "split": split}, reading


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
