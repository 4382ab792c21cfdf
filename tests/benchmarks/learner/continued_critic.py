"""Continued critics: variance of the returns that a critic explains in the first batches, if it is new or continued.

    .venv/bin/python -m tests.benchmarks.learner.continued_critic FOLDER [--jobs JOB_DIR...] [--seeds 5] [--batches 6]

Each job of ppo starts from the critic of an earlier run (`critic_model`). It runs twice, with that critic and with a
new one; all else is the same, so both sample the same first batch. --jobs: finished job directories of rounds with
`critic_start: last`. Without them the world is `tests/learner/worlds/letters.py`: for each seed a run of 30 batches
keeps its critic, and the next one starts from its policy.

Explained variance is 1 − Var(G − V) / Var(G) over the tokens of a batch, before its updates: G is the reward from the
token on, without discount and critic, and V the value. FOLDER keeps all job directories.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from tests.benchmarks.arguments import at_least_one
from tests.benchmarks.learner.over_optimisation import finished_job
from tests.learner.worlds import letters
from training.learner import ppo
from training.learner.policy.advantages import token_rewards
from training.learner.policy.losses import kl_k1
from training.learner.policy.rollout import Rollout, compute_targets
from training.learner.runtime.jobdir import JobDirectory

# At a higher rate or a lower penalty the policy soon writes one completion, and there is no variance to explain.
LETTERS = {"batch_episodes": 64, "epochs": 2, "minibatches": 2, "learning_rate": 1e-3, "kl_coefficient": 0.5}
FIRST_RUN = 30  # batches of the run that keeps its critic
EXPLAINED: list[float] = []  # by batch of the run in this process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=Path, nargs="*", default=[], help="job directories of ppo with a critic_model")
    parser.add_argument("--seeds", type=at_least_one, default=5, help="of the world of letters (5)")
    parser.add_argument("--batches", type=at_least_one, default=6, help="of the compared runs (6)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ppo.compute_targets = record_explained  # type: ignore[attr-defined]
    runs: dict[str, list[dict[str, list[float]]]] = {"new": [], "continued": []}
    for name, settings, prompts in jobs(options):
        for kind in runs:
            changes = {"critic_model": ""} if kind == "new" else {}
            runs[kind].append(run(options.folder / f"{name}-{kind}", settings | changes, prompts, options.batches))
            print(f"{name}, {kind}: {json.dumps(runs[kind][-1])}", flush=True)
    for kind, results in runs.items():
        figures = {name: summary([one[name] for one in results]) for name in results[0]}
        print(f"{kind}: {json.dumps(figures, ensure_ascii=False)}")


def jobs(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """Yield name, settings and prompts of each job that continues a critic."""
    for directory in options.jobs:
        job = JobDirectory(directory, is_writer=False)
        yield "-".join(directory.resolve().parts[-2:]), job.config(), list(job.rows("prompts.jsonl"))
    for seed in [] if options.jobs else range(options.seeds):
        first = letters.ppo_job(options.folder / f"letters-{seed}" / "first", letters.PROMPTS, **LETTERS,
                                steps=FIRST_RUN, seed=seed, keep_critic=True)  # fmt: skip
        ppo.main(first)
        job = JobDirectory(first, is_writer=False)
        models = {"model": str(first / "model"), "critic_model": str(first / "critic"), "seed": 1000 + seed}
        yield f"letters-{seed}", job.config() | models, list(job.rows("prompts.jsonl"))


def run(folder: Path, settings: dict[str, Any], prompts: list[dict[str, Any]], batches: int) -> dict[str, list[float]]:
    """Return explained variance and value loss of the first batches. They learn at the rate of the job's first ones."""
    steps = {"steps": batches, "keep_critic": False, "eval_prompts": 0, "optimum_samples": 0}
    steps["final_learning_rate_fraction"] = 1.0
    EXPLAINED.clear()
    losses = [line["value_loss"] for line in finished_job(folder, ppo, settings | steps, prompts=prompts).metrics()]
    file = folder / "explained.json"
    if EXPLAINED:  # else the job was finished before
        file.write_text(json.dumps(EXPLAINED))
    return {"explained variance": rounded(json.loads(file.read_text())), "value loss": rounded(losses)}


def record_explained(rollout: Rollout, kl_coefficient: float, *arguments: Any) -> Any:
    """Return the targets as `compute_targets` does, and append the variance that the critic explains."""
    lengths = rollout.lengths()
    kl = kl_k1(torch.cat(rollout.policy), torch.cat(rollout.reference))
    rows = token_rewards(rollout.scores, kl, lengths, kl_coefficient).split(lengths.tolist())
    returns = torch.cat([row.flip(0).cumsum(0).flip(0) for row in rows])
    EXPLAINED.append(float(1 - (returns - torch.cat(rollout.values)).var() / returns.var()))
    return compute_targets(rollout, kl_coefficient, *arguments)


def rounded(values: list[float]) -> list[float]:
    return [round(value, 3) for value in values]


def summary(runs: list[list[float]]) -> list[str]:
    """Return the mean over runs of each batch, with its standard error if there is one."""
    columns = list(zip(*runs, strict=True))
    if len(runs) == 1:
        return [f"{fmean(column):.3f}" for column in columns]
    return [f"{fmean(column):.3f} ± {stdev(column) / len(runs) ** 0.5:.3f}" for column in columns]


if __name__ == "__main__":
    main()
