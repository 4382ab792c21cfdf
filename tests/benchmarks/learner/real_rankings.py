"""Real rankings, K = 4, through the whole reward program, against TRL 1.16's trainer on the same pairs.

    python -m tests.benchmarks.learner.real_rankings RANKINGS.jsonl [--completion-tokens 256] [--json FILE]

Rows of RANKINGS.jsonl are `{"prompt": "...", "completions": [{"text": "...", "judge_score": 0.7}, ...]}`; those in
which two completions have one score or one text are left out, and said. A fifth of the prompts is held out. First our
`sft` learns a small Llama and its tokenizer from nothing but the best completions of the other prompts; then both sides
learn from its weights, in one order, in as many steps, with one learning rate; the peer gets its pairs as token ids.
Our time is that of the whole program: its start, tokens, steps, the report on what is held out, the folder. The peer's
is its steps' alone. Beside the clock's time, the processor's is told, which other work on the machine changes little.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import peers

HELD_OUT_SHARE, BATCH, EPOCHS, RATE, PROMPT_TOKENS = 0.2, 4, 1, 1e-3, 256
ARCHITECTURE = {"model_type": "llama", "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2,
                "num_attention_heads": 4, "max_position_embeddings": 4096, "tie_word_embeddings": True}  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--peer"]:
        print(json.dumps(train_peer(Path(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rankings", type=Path)
    parser.add_argument("--completion-tokens", type=int, default=256, help="longer completions lose their end (256)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        row = compare(options.rankings, Path(name), options.completion_tokens)
    print(json.dumps(row, indent=1))
    if options.json:
        options.json.write_text(json.dumps([row], indent=1) + "\n")


def compare(source: Path, folder: Path, longest: int) -> dict[str, Any]:
    training, held_out = read(source)
    policy = folder / "sft" / "model"
    learn_policy(folder / "sft", training, longest)
    result, seconds, processor = train_ours(folder / "ours", training, held_out, policy, longest)
    write_pairs(folder, training, held_out, policy, longest)
    command = [str(peers.python_of("trl-1.16")), "-m", __spec__.name, "--peer", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(peers.ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=peers.ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    peer = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "name": "reward_real_k4", "ours": len(training) / seconds, "peer": len(training) / peer["seconds"],
        "unit": "rankings/s", "ratio": peer["seconds"] / seconds, "quality_ours": result["held_out_accuracy"],
        "quality_peer": peer["accuracy"], "seconds_ours": seconds, "seconds_peer": peer["seconds"],
        "processor_seconds_ours": processor, "processor_seconds_peer": peer["processor"],
        "steps_ours": result["steps"], "steps_peer": peer["steps"], "training_rankings": len(training),
        "held_out_rankings": len(held_out), "truncated_completions": result["truncated_completions"],
        "truncated_prompts": result["truncated_prompts"], "report": result,
    }  # fmt: skip


def read(source: Path) -> tuple[list[dict], list[dict]]:
    """Rows to train on, a whole number of batches, and held-out ones; each row's completions best first."""
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    strict = [row for row in rows if is_strict(row["completions"])]
    for row in strict:
        row["completions"].sort(key=lambda completion: -completion["judge_score"])
    count = int(len(strict) * (1 - HELD_OUT_SHARE)) // BATCH * BATCH
    print(f"{len(rows)} rankings, {len(strict)} without ties, {count} to learn from", file=sys.stderr)
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
    job: Path, training: list[dict], held_out: list[dict], policy: Path, longest: int
) -> tuple[dict[str, Any], float, float]:
    """The program's result; its seconds by the clock and of the processor."""
    rows = [{"prompt_id": number, "split": "train" if number < len(training) else "held_out", "annotator": "judge",
             "messages": messages_of(row), "completions": [each["text"] for each in row["completions"]],
             "ranks": [1, 2, 3, 4]} for number, row in enumerate(training + held_out)]  # fmt: skip
    settings = {"model": str(policy), "epochs": EPOCHS, "batch_rankings": BATCH, "learning_rate": RATE,
                "max_prompt_tokens": PROMPT_TOKENS, "max_completion_tokens": longest, "contrast": 0.0}  # fmt: skip
    started, used = time.perf_counter(), processor_of_children()
    result = run_program("reward", job, "rankings.jsonl", rows, settings)
    return result, time.perf_counter() - started, processor_of_children() - used


def processor_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_program(program: str, job: Path, name: str, rows: list[dict], settings: dict[str, Any]) -> dict[str, Any]:
    job.mkdir()
    (job / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (job / "config.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", f"training.learner.{program}", str(job)]
    subprocess.run(command, cwd=peers.ROOT, check=True, stdout=sys.stderr)
    return json.loads((job / "result.json").read_text())


def write_pairs(folder: Path, training: list[dict], held_out: list[dict], policy: Path, longest: int) -> None:
    """What the peer learns from, in the order of our program's steps, and is judged on."""
    from training.learner.data import encode_completion, encode_prompt, shuffled
    from training.learner.models import load_tokenizer

    tokenizer = load_tokenizer(str(policy))

    def encoded(row: dict) -> dict[str, Any]:
        texts = [each["text"] for each in row["completions"]]
        return {"prompt": encode_prompt(tokenizer, messages_of(row), PROMPT_TOKENS),
                "completions": [encode_completion(tokenizer, text, longest) for text in texts]}  # fmt: skip

    order = [training[i] for epoch in range(EPOCHS) for i in shuffled(len(training), 0, epoch)]
    pairs = [
        {"chosen_ids": row["prompt"] + better, "rejected_ids": row["prompt"] + worse}
        for row in map(encoded, order)
        for better, worse in itertools.combinations(row["completions"], 2)
    ]
    (folder / "pairs.json").write_text(json.dumps(pairs))
    (folder / "held_out.json").write_text(json.dumps([encoded(row) for row in held_out]))


def train_peer(folder: Path) -> dict[str, float]:
    import torch
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    pairs, held_out = (json.loads((folder / f"{name}.json").read_text()) for name in ("pairs", "held_out"))
    policy = folder / "sft" / "model"
    model = AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1)
    torch.nn.init.zeros_(model.score.weight)

    class InOrder(RewardTrainer):
        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(dataset if dataset is not None else self.train_dataset)

    settings = RewardConfig(
        output_dir=str(folder / "peer"), per_device_train_batch_size=BATCH * 6, num_train_epochs=1, logging_steps=50,
        report_to=[], save_strategy="no", max_length=None, learning_rate=RATE, lr_scheduler_type="linear",
        weight_decay=0.0, max_grad_norm=1.0, disable_dropout=True, use_cpu=not torch.cuda.is_available(), bf16=False,
        gradient_checkpointing=False, disable_tqdm=True)  # fmt: skip
    trainer = InOrder(model=model, args=settings, train_dataset=Dataset.from_list(pairs),
                      processing_class=AutoTokenizer.from_pretrained(policy))  # fmt: skip
    started, used = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    model.eval()
    right = []
    with torch.no_grad():
        for row in held_out:
            scores = [model(torch.tensor([row["prompt"] + text])).logits.item() for text in row["completions"]]
            right += [better > worse for better, worse in itertools.combinations(scores, 2)]
    accuracy = sum(right) / len(right)
    return {"seconds": seconds, "processor": processor, "accuracy": accuracy, "steps": trainer.state.global_step}


if __name__ == "__main__":
    main()
