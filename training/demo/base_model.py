"""Built-in base model: a Llama of about a million parameters, trained on the demo's grammar alone.

`sft` trains it on the machine that runs the demo, in about a minute on two cores. It writes fluent replies of all
qualities; it learns from rankings which of them are good.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from training.demo import grammar
from training.learner.runtime.config import SftConfig
from training.learner.runtime.jobdir import JobDirectory
from training.run_round import process

SEED = 2026
DEMONSTRATIONS = 12_000
REPORT_EVERY = 5.0  # seconds

# Two wide layers learn to copy a name and to stay on topic faster than four narrow ones of the same cost.
SETTINGS = SftConfig(
    architecture={
        "model_type": "llama",
        "hidden_size": 160,
        "intermediate_size": 576,
        "num_hidden_layers": 2,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    },
    vocabulary_size=2000,
    max_prompt_tokens=128,
    max_completion_tokens=128,
    learning_rate=3e-3,
    warmup_fraction=0.03,
    final_learning_rate_fraction=0.02,
    weight_decay=0.01,
    batch_tokens=512,
    save_every=500,
    seed=SEED,
)


def demonstrations() -> Iterator[dict[str, Any]]:
    """Yield the rows of demonstrations.jsonl."""
    for message, reply in grammar.demonstrations(SEED, DEMONSTRATIONS):
        yield {"messages": as_prompt(message.text), "completion": reply}


def as_prompt(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def train(directory: Path, report: Callable[[str], None]) -> Path:
    """Return the model's folder; train the model first if need be. An interrupted training is resumed.

    Raises `run_round.process.ProgramFailed`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    job = JobDirectory(directory)
    if job.result() is None:
        if not (directory / "config.json").is_file():
            job.write_rows("demonstrations.jsonl", demonstrations())
            job.write_config(SETTINGS.to_json())
        report("training the base model (first time only, about a minute)")
        process.run("sft", directory, 1, progress_reporter(job, report))
    return directory / "model"


def progress_reporter(job: JobDirectory, report: Callable[[str], None]) -> Callable[[], bool]:
    """Return a `watch` callback that reports the progress every few seconds and never stops the program."""
    last = time.monotonic()

    def watch() -> bool:
        nonlocal last
        if time.monotonic() - last >= REPORT_EVERY:
            last = time.monotonic()
            if metrics := job.metrics():
                line = metrics[-1]
                report(f"  step {line['step']} of {line['total']}, loss {line['loss']:.2f}")
        return False

    return watch
