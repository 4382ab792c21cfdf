"""lora_memory: peak memory of a PPO round with adapters on one base, against the same round with four whole models.

Both sides run the program ppo: policy, reference, critic and reward model, one batch of 16 episodes, passes of at most
128 tokens (one episode of maximum length), as settings for little memory. The reward model was trained as an adapter
on the policy's weights; it is also saved as a whole model, so that both sides use the same one.

The figure is the highest memory in use minus the memory before the first model was loaded, after one run with a tiny
model: the resident memory of the process, or the memory that PyTorch allocated on the GPU. On both sides the C library
returns freed blocks of 128 KiB or more at once, so that holes in the heap are not counted; normal runs do not do this,
because it doubles their time. Quality: the batch's mean reward, drawn from the same policy with the same seed.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

NAMES = ("lora_memory",)
PEER, UNIT, SMALLER_IS_BETTER = "", "MB", True
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
EPISODES, NEW_TOKENS, MICRO_BATCH_TOKENS, RANK = 16, 64, 128, 8


def ours(name: str, folder: Path) -> dict:
    return round_of(folder, RANK)


def peer(name: str, folder: Path) -> dict:
    return round_of(folder, 0)


def round_of(folder: Path, rank: int) -> dict:
    import torch

    from tests.benchmarks.learner import world
    from training.learner import ppo

    small = world.prepare(folder.parent / "0.1M", "0.1M")
    ppo.main(round_job(small, rank))
    job = round_job(folder, rank)
    before = resident_megabytes()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    ppo.main(job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before  # kilobytes on Linux
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**20
    line = json.loads((job / "metrics.jsonl").read_text().splitlines()[-1])
    phases = {phase: line[f"seconds_{phase}"] for phase in ("sampling", "scoring", "learning")}
    return {"value": peak, "quality": line["reward"], "phases": phases, "steps": int(line["updates"])}


def resident_megabytes() -> float:
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def round_job(folder: Path, rank: int) -> Path:
    from tests.benchmarks.learner import world

    rows = [{"prompt_id": i, "messages": [{"role": "user", "content": world.text(prompt)}]}
            for i, prompt in enumerate(world.prompts(EPISODES))]  # fmt: skip
    settings = {"model": str(folder / "policy"), "reward_model": str(reward_model(folder)), "lora_rank": rank,
                "steps": 1, "batch_episodes": EPISODES, "epochs": 1, "max_completion_tokens": NEW_TOKENS,
                "eval_prompts": 0, "micro_batch_tokens": MICRO_BATCH_TOKENS, "dtype": world.dtype(),
                "gradient_checkpointing": True}  # fmt: skip
    return write_job(folder / f"round-{time.time_ns()}", "prompts.jsonl", rows, settings)


def reward_model(folder: Path) -> Path:
    """Train a reward model on one ranking as an adapter, in a separate process, and return its folder."""
    job = folder / "adapted-reward"
    if not job.exists():
        row = {"ranking_id": 1, "prompt_id": 1, "split": "train", "messages": [{"role": "user", "content": "t11 t12"}],
               "completions": ["t13 t14", "t500"], "completion_ids": [1, 2], "ranks": [1, 2],
               "annotator": "a"}  # fmt: skip
        write_job(job, "rankings.jsonl", [row], {"model": str(folder / "policy"), "epochs": 1, "lora_rank": RANK})
        command = [sys.executable, "-m", "training.learner.reward", str(job)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return job / "model"


def write_job(job: Path, name: str, rows: list[dict], settings: dict) -> Path:
    job.mkdir()
    (job / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (job / "config.json").write_text(json.dumps(settings))
    return job


def is_equal_quality(ours: dict, peer: dict) -> bool:
    """Return whether the rewards are equal, except for tokens that differ because adapters round differently."""
    return abs(ours["quality"] - peer["quality"]) <= 0.05
