"""Built-in base models: Llamas of about a million parameters, trained on the demo's grammar alone.

`sft` trains them on the machine that runs the demo, one for each project, in about a minute on two cores. They write
fluent replies, or dialogues, of all qualities; they learn from rankings which of them are good.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.demo import grammar
from training.demo.grammar import dialogues
from training.learner.runtime.config import SftConfig
from training.learner.runtime.jobdir import JobDirectory
from training.run_round import process

SEED = 2026
DEMONSTRATIONS = 12_000
DIALOGUES = 8_000  # two demonstrations each
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


def reply_demonstrations() -> Iterator[dict[str, Any]]:
    """Yield messages of customers with replies, as rows of demonstrations.jsonl."""
    for message, reply in grammar.demonstrations(SEED, DEMONSTRATIONS):
        yield {"messages": as_prompt(message.text), "completion": reply}


def dialogue_demonstrations() -> Iterator[dict[str, Any]]:
    """Yield both turns of the support in dialogues, as rows of demonstrations.jsonl."""
    for messages, turn in dialogues.demonstrations(SEED, DIALOGUES):
        yield {"messages": messages, "completion": turn}


def as_prompt(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def train(
    directory: Path,
    report: Callable[[str], None],
    demonstrations: Callable[[], Iterator[dict[str, Any]]] = reply_demonstrations,
    **changes: Any,
) -> Path:
    """Return the model's folder; train the model first if need be. An interrupted training is resumed.

    changes: settings other than those of SETTINGS.

    Raises `run_round.process.ProgramFailed`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    job = JobDirectory(directory)
    if job.result() is None:
        if not (directory / "config.json").is_file():
            job.write_rows("demonstrations.jsonl", demonstrations())
            job.write_config(replace(SETTINGS, **changes).to_json())
        report("training a base model (first time only, about a minute)")
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
