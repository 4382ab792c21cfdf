"""The built-in base model: a Llama of about a million parameters that has read nothing but the demo's grammar.

It is trained on the machine that runs the demo, by `sft`, in about a minute on two cores. It speaks fluently and knows
what replies look like, good and bad alike; what makes one good it has yet to learn from people.
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

# Two wide layers learn to copy a name and to stay on a topic sooner than four narrow ones of the same cost.
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
    """The rows of demonstrations.jsonl."""
    for message, reply in grammar.demonstrations(SEED, DEMONSTRATIONS):
        yield {"messages": as_prompt(message.text), "completion": reply}


def as_prompt(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def train(directory: Path, report: Callable[[str], None]) -> Path:
    """The model's folder, trained first if need be. What was interrupted goes on from where it stopped.

    Raises launch.process.ProgramFailed with a sentence.
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
    """To be called often while a program runs: says every few seconds how far it is. Never asks it to stop."""
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
