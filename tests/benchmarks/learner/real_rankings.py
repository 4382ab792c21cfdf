"""Real rankings (K = 4): the whole reward program against TRL 1.16's trainer on the same pairs.

    python3 manage.py bench rankings RANKINGS.jsonl [--orders N] [--completion-tokens 256] [--json FILE]

Rows of RANKINGS.jsonl are `{"prompt": "...", "completions": [{"text": "...", "judge_score": 0.7}, ...]}`. Rows with
equal scores or texts are left out and counted. A fifth of the prompts is held out. First the program `sft` trains a
small Llama and its tokenizer on the best completions of the other prompts. Then both sides train from its weights, in
the same order, with the same number of steps and learning rate; the peer gets its pairs as token ids.

Accord's time is that of the whole program: start, tokenisation, steps, held-out report, saving. The peer's is that of
its steps alone. CPU time is reported too, because other work on the machine changes it little. paired.py decides
whether both are equally good, over several orders of the prompts, because one training per side proves little.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config.runtime.errors import SetupError
from tests.benchmarks import peers
from tests.benchmarks.arguments import at_least_one
from tests.benchmarks.learner.paired import difference, equal_steps, shares_of_right_pairs

HELD_OUT_SHARE, BATCH, EPOCHS, RATE, PROMPT_TOKENS = 0.2, 4, 1, 1e-3, 256
REPORT_EVERY = 15  # seconds
ARCHITECTURE = {"model_type": "llama", "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2,
                "num_attention_heads": 4, "max_position_embeddings": 4096, "tie_word_embeddings": True}  # fmt: skip


def main() -> int:
    if sys.argv[1:2] == ["--peer"]:
        train_peer(Path(sys.argv[2]))
        return 0
    parser = argparse.ArgumentParser(
        prog="manage.py bench rankings", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rankings", type=Path)
    parser.add_argument(
        "--orders", type=at_least_one, default=3, metavar="N", help="orders of the data, each learned by both (3)"
    )
    parser.add_argument(
        "--completion-tokens", type=at_least_one, default=256, help="longer completions are truncated (256)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args()
    try:
        training, held_out = read(options.rankings)
        python = peers.python_of("trl-1.16")
        with tempfile.TemporaryDirectory() as name:
            row = compare(training, held_out, Path(name), options, python)
    except SetupError as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 2
    print(json.dumps(row, indent=1))
    if options.json:
        options.json.write_text(json.dumps([row], indent=1) + "\n")
    return 0 if row["equal_quality"] else 1


def compare(
    training: list[dict], held_out: list[dict], folder: Path, options: argparse.Namespace, python: Path
) -> dict[str, Any]:
    """Run both sides in every order; times are means, accuracies are over all orders."""
    policy, longest = folder / "sft" / "model", options.completion_tokens
    learn_policy(folder / "sft", training, longest)
    runs = []
    for order in range(options.orders):
        here = folder / str(order)
        here.mkdir()
        ours = train_ours(here / "ours", training, held_out, policy, longest, order)
        write_pairs(here, training, held_out, policy, longest, order)
        command = [str(python), "-m", "tests.benchmarks.learner.real_rankings", "--peer", str(here)]
        follow(command, os.environ | {"PYTHONPATH": str(peers.ROOT), "HF_HUB_OFFLINE": "1"})
        peer = json.loads((here / "peer.json").read_text())
        for side, found in (("ours", ours), ("peer", peer)):
            found["right"] = shares_of_right_pairs(here / side / "model", here / "held_out.json")
            found["accuracy"] = statistics.fmean(found["right"])
        print_sentence(f"order {order}: accuracy {ours['accuracy']:.3f} : {peer['accuracy']:.3f},"
            f" {ours['seconds']:.0f} : {peer['seconds']:.0f} s")  # fmt: skip
        runs.append((ours, peer))
    return as_row(runs, training, held_out)


def as_row(runs: Sequence[tuple[dict, dict]], training: list[dict], held_out: list[dict]) -> dict[str, Any]:
    apart = difference(*([run[side]["right"] for run in runs] for side in (0, 1)))
    report = runs[0][0]["report"]
    row: dict[str, Any] = {"name": "reward_real_k4", "unit": "rankings/s", "orders": len(runs)}
    for side, name in enumerate(("ours", "peer")):
        sides = [run[side] for run in runs]
        accuracies = [each["accuracy"] for each in sides]
        row[f"quality_{name}"], row[f"qualities_{name}"] = statistics.fmean(accuracies), accuracies
        for what in ("seconds", "processor_seconds", "steps"):
            row[f"{what}_{name}"] = statistics.fmean(each[what] for each in sides)
        row[name] = len(training) / row[f"seconds_{name}"]
    return row | {
        "ratio": row["ours"] / row["peer"], "difference": apart.mean, "difference_error": apart.error,
        "equal_quality": apart.is_chance,
        "equal_steps": [equal_steps(ours["losses"], peer["losses"]) for ours, peer in runs],
        "training_rankings": len(training), "held_out_rankings": len(held_out),
        "truncated_completions": report["truncated_completions"], "truncated_prompts": report["truncated_prompts"],
        "report": report,
    }  # fmt: skip


def read(source: Path) -> tuple[list[dict], list[dict]]:
    """Return training rows (a whole number of batches) and held-out rows, each with its completions best first."""
    if not source.is_file():
        raise SetupError(f"there is no file {source}.")
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    strict = [row for row in rows if is_strict(row["completions"])]
    for row in strict:
        row["completions"].sort(key=lambda completion: -completion["judge_score"])
    count = int(len(strict) * (1 - HELD_OUT_SHARE)) // BATCH * BATCH
    print_sentence(f"{len(rows)} rankings, {len(strict)} without ties, {count} to learn from")
    return strict[:count], strict[count:]


def is_strict(completions: list[dict]) -> bool:
    return all(len({each[key] for each in completions}) == len(completions) for key in ("text", "judge_score"))


def messages_of(row: dict) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["prompt"]}]


def learn_policy(job: Path, training: list[dict], longest: int) -> None:
    rows = [{"messages": messages_of(row), "completion": row["completions"][0]["text"]} for row in training]
    settings = {"architecture": ARCHITECTURE, "vocabulary_size": 4096, "epochs": 2, "prompt_loss_weight": 1.0,
                "max_prompt_tokens": PROMPT_TOKENS, "max_completion_tokens": longest, "learning_rate": 2e-3,
                "batch_tokens": 4096}  # fmt: skip
    run_program("sft", job, "demonstrations.jsonl", rows, settings)


def train_ours(
    job: Path, training: list[dict], held_out: list[dict], policy: Path, longest: int, order: int
) -> dict[str, Any]:
    """Run the program; return its report, wall and CPU seconds, steps and losses."""
    rows = [{"prompt_id": number, "split": "train" if number < len(training) else "held_out", "annotator": "judge",
             "messages": messages_of(row), "completions": [each["text"] for each in row["completions"]],
             "ranks": [1, 2, 3, 4]} for number, row in enumerate(training + held_out)]  # fmt: skip
    settings = {"model": str(policy), "epochs": EPOCHS, "batch_rankings": BATCH, "learning_rate": RATE, "seed": order,
                "max_prompt_tokens": PROMPT_TOKENS, "max_completion_tokens": longest, "contrast": 0.0,
                "eval_every": 10**6}  # fmt: skip
    started, used = time.perf_counter(), processor_of_children()
    report = run_program("reward", job, "rankings.jsonl", rows, settings)
    return {"seconds": time.perf_counter() - started, "processor_seconds": processor_of_children() - used,
            "steps": report["steps"], "losses": [step["loss"] for step in metrics(job)], "report": report}  # fmt: skip


def processor_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_program(program: str, job: Path, name: str, rows: list[dict], settings: dict[str, Any]) -> dict[str, Any]:
    job.mkdir()
    (job / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (job / "config.json").write_text(json.dumps(settings))
    follow([sys.executable, "-m", f"training.learner.{program}", str(job)], dict(os.environ), job)
    return json.loads((job / "result.json").read_text())


def follow(command: list[str], environment: dict[str, str], job: Path | None = None) -> None:
    """Run a command to its end and print a job's progress every few seconds. Raises SetupError if it fails."""
    with subprocess.Popen(command, cwd=peers.ROOT, env=environment, stdout=sys.stderr) as process:
        while (status := wait(process)) is None:
            if job is not None and (steps := metrics(job)):
                print_progress(
                    f"our {command[2].rpartition('.')[2]}", steps[-1]["step"], steps[-1]["total"], steps[-1]["loss"]
                )
    if status:
        raise SetupError(f"{' '.join(command[1:4])} failed with status {status}, as shown above.")


def wait(process: subprocess.Popen) -> int | None:
    """Wait some seconds and return the exit status, or None if the process still runs."""
    try:
        return process.wait(REPORT_EVERY)
    except subprocess.TimeoutExpired:
        return None


def metrics(job: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a program's metrics so far."""
    path = job / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def print_progress(who: str, step: int, total: int, loss: float) -> None:
    print_sentence(f"{who}: step {step} of {total}, loss {loss:.3f}")


def print_sentence(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def write_pairs(
    folder: Path, training: list[dict], held_out: list[dict], policy: Path, longest: int, seed: int
) -> None:
    """Write the peer's training pairs, in the order of Accord's steps, and its held-out rows."""
    from training.learner.models.loading import load_tokenizer
    from training.learner.text.messages import encode_completion, encode_prompt, shuffled

    tokenizer = load_tokenizer(str(policy))

    def encoded(row: dict) -> dict[str, Any]:
        texts = [each["text"] for each in row["completions"]]
        return {"prompt": encode_prompt(tokenizer, messages_of(row), PROMPT_TOKENS),
                "completions": [encode_completion(tokenizer, text, longest) for text in texts]}  # fmt: skip

    rows = [training[i] for epoch in range(EPOCHS) for i in shuffled(len(training), seed, epoch)]
    pairs = [
        {"chosen_ids": row["prompt"] + better, "rejected_ids": row["prompt"] + worse}
        for row in map(encoded, rows)
        for better, worse in itertools.combinations(row["completions"], 2)
    ]
    (folder / "pairs.json").write_text(json.dumps(pairs))
    (folder / "policy").symlink_to(policy)
    (folder / "held_out.json").write_text(json.dumps([encoded(row) for row in held_out]))


def train_peer(folder: Path) -> None:
    """Train the peer; write peer/model, and wall and CPU seconds of the steps and the losses into peer.json.

    The head starts at zero, as Accord's does.
    """
    import torch
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import RewardConfig, RewardTrainer

    pairs, policy = json.loads((folder / "pairs.json").read_text()), folder / "policy"
    model = AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1)
    torch.nn.init.zeros_(model.score.weight)
    last_told = time.monotonic()

    class Progress(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            nonlocal last_told
            if "loss" in logs and time.monotonic() - last_told > REPORT_EVERY:
                last_told = time.monotonic()
                print_progress("TRL", state.global_step, state.max_steps, logs["loss"])

    class InOrder(RewardTrainer):
        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(dataset if dataset is not None else self.train_dataset)

    settings = RewardConfig(
        output_dir=str(folder / "peer"), per_device_train_batch_size=BATCH * 6, num_train_epochs=1, logging_steps=1,
        report_to=[], save_strategy="no", max_length=None, learning_rate=RATE, lr_scheduler_type="linear",
        weight_decay=0.0, max_grad_norm=1.0, disable_dropout=True, use_cpu=not torch.cuda.is_available(), bf16=False,
        gradient_checkpointing=False, disable_tqdm=True)  # fmt: skip
    trainer = InOrder(model=model, args=settings, train_dataset=Dataset.from_list(pairs),
                      processing_class=AutoTokenizer.from_pretrained(policy), callbacks=[Progress()])  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    started, used = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    model.save_pretrained(folder / "peer" / "model")
    losses = [logged["loss"] for logged in trainer.state.log_history if "loss" in logged]
    found = {"seconds": seconds, "processor_seconds": processor, "steps": trainer.state.global_step, "losses": losses}
    (folder / "peer.json").write_text(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
