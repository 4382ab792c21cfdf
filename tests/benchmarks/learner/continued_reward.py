"""Continued reward models: held-out accuracy over small rounds, by the model that a round's training starts from.

    .venv/bin/python -m tests.benchmarks.learner.continued_reward FOLDER [--world words] [--ways "full;all"] [--seeds 3]
        [--rounds 6] [--base MODEL]

Each round adds NEW rankings of four completions. The first round trains from the policy on all rankings; so does every
round of the way `full`, and with fewer passes of `full, 2 passes`. Worlds: `words` is that of
`tests/learner/worlds/words.py` with a random trunk; in `demo` the trained base writes the completions (FOLDER/samples,
as in `over_optimisation`) and simulated annotators rank them. Held-out rankings have no noise. `cost` is the number of
rankings that were computed after the first round, as a share of those of `full`.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from tests.benchmarks.arguments import at_least_one
from tests.benchmarks.learner import over_optimisation
from tests.benchmarks.learner.over_optimisation import finished_job
from tests.learner.worlds import words
from training.demo.annotators import ranks
from training.demo.settings import ROUND
from training.learner import reward
from training.learner.runtime.config import RewardConfig

ROUNDS, NEW = 6, 100
SETTINGS = {
    "words": {"learning_rate": 1e-3, "contrast": 0.0},
    "demo": ROUND["common"] | ROUND["reward"],
}
FULL_PASSES = RewardConfig(model="any").epochs

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Way:
    """Training of the reward model in each round after the first."""

    keeps: float  # kept_share of the program reward; 0: from the policy
    passes: int = FULL_PASSES
    replay: float = math.inf  # earlier rankings for each new one
    rate: float = 1.0  # times the learning rate of a full training
    full_every: int = 0  # rounds from one full training to the next; 0: only the first


FULL = Way(keeps=0.0)
WAYS = {
    "full": FULL,
    "full, 2 passes": Way(0.0, passes=2),
    "all, 1 pass": Way(1.0, passes=1),
    "all": Way(1.0, passes=2),
    "all, 3 passes": Way(1.0, passes=3),
    "all, half the rate": Way(1.0, passes=2, rate=0.5),
    "replay 3": Way(1.0, replay=3.0),
    "shrink 0.5": Way(0.5, passes=2),
    "shrink 0.5, 3 passes": Way(0.5, passes=3),
    "shrink 0.8": Way(0.8, passes=2),
    "all, full every 3": Way(1.0, passes=2, full_every=3),
    "replay 3, full every 3": Way(1.0, replay=3.0, full_every=3),
    "shrink 0.5, full every 3": Way(0.5, passes=2, full_every=3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--world", choices=tuple(SETTINGS), default="words")
    parser.add_argument("--ways", default=";".join(WAYS), help="names of WAYS, separated by semicolons (all)")
    parser.add_argument("--seeds", type=at_least_one, default=3)
    parser.add_argument("--rounds", type=int, choices=range(2, ROUNDS + 1), default=ROUNDS)
    parser.add_argument("--base", default="", help="demo: folder of the trained base model, if there is one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ways = {name: WAYS[name] for name in options.ways.split(";")}
    accuracies: dict[str, list[list[float]]] = {name: [] for name in ways}
    for seed in range(options.seeds):
        policy, rows, held_out = world(options, seed)
        for name, way in ways.items():
            started = time.process_time()
            folder = options.folder / f"{options.world}-{seed}-{name.replace(' ', '-').replace(',', '')}"
            accuracies[name].append(
                run(folder, policy, rows, held_out, SETTINGS[options.world], way, seed, options.rounds)
            )
            line = " ".join(f"{value:.3f}" for value in accuracies[name][-1])
            print(f"seed {seed}, {name}: {line}; {time.process_time() - started:.0f} s of CPU", flush=True)
    for name, runs in accuracies.items():
        figures = summary(runs, accuracies.get("full", runs)) | {"cost": cost(ways[name], options.rounds)}
        print(f"{name}: {json.dumps(figures)}")


def world(options: argparse.Namespace, seed: int) -> tuple[str, Rows, Rows]:
    """Return the policy's folder, the rankings of all rounds in their order, and the held-out ones."""
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.world == "words":
        return words_world(options.folder, seed)
    base = options.base or over_optimisation.trained_base(options.folder / "base")
    return (base, *demo_rankings(over_optimisation.base_samples(options.folder / "samples", base), seed))


def words_world(folder: Path, seed: int) -> tuple[str, Rows, Rows]:
    """Return the world of words with Plackett–Luce noise on the rankings to learn from, and 300 held-out ones."""
    policy = folder / "words-policy"
    if not policy.exists():
        words.words_folder(policy)
    rows = words.ranking_rows(ROUNDS * NEW + 300, held_out=300, seed=seed)
    noise = random.Random(f"noise/{seed}")
    for row in rows[: ROUNDS * NEW]:
        row["ranks"] = ranks([words.utility(text) + gumbel(noise) for text in row["completions"]], 0.0)
    return str(policy), rows[: ROUNDS * NEW], rows[ROUNDS * NEW :]


def gumbel(noise: random.Random) -> float:
    """Return a standard Gumbel number: the order of values plus such numbers follows Plackett–Luce."""
    return -math.log(noise.expovariate(1.0))


def demo_rankings(samples: Sequence[Sequence[over_optimisation.Scored]], seed: int) -> tuple[Rows, Rows]:
    """Return rankings by simulated annotators, and by the utility of all other samples, of the demo's base."""
    order = random.Random(seed).sample(range(len(samples)), len(samples))
    chosen = [samples[number] for number in order[: ROUNDS * NEW]]
    rows = list(over_optimisation.ranked(chosen, order[: ROUNDS * NEW], len(chosen)))
    held_out = []
    for number in order[ROUNDS * NEW :]:
        group = samples[number]
        (row,) = over_optimisation.ranked([group], [number], 0)
        held_out.append(row | {"ranks": ranks([one.utility for one in group], 0.0)})
    return rows, held_out


def run(
    folder: Path,
    policy: str,
    rows: Rows,
    held_out: Rows,
    settings: dict[str, Any],
    way: Way,
    seed: int,
    rounds: int = ROUNDS,
) -> list[float]:
    """Return the held-out accuracy after each round. Folders of finished rounds are read, not computed again."""
    last, accuracies = "", []
    for number in range(rounds):
        used = training_of(way, number)
        new = rows[number * NEW : (number + 1) * NEW]
        earlier = list(rows[: number * NEW])
        if len(earlier) > used.replay * NEW:
            earlier = random.Random(f"{seed}/{number}").sample(earlier, int(used.replay * NEW))
        chosen = settings | {
            "model": policy,
            "learning_rate": settings["learning_rate"] * used.rate,
            "seed": seed * ROUNDS + number,
            "epochs": used.passes,
            "eval_every": 10**9,
        }
        if used.keeps > 0:
            chosen |= {"last_reward_model": last, "kept_share": used.keeps, "continued_epochs": used.passes}
        job = finished_job(folder / str(number), reward, chosen, rankings=[*earlier, *new, *held_out])
        accuracies.append((job.result() or {})["held_out_accuracy"])
        last = str(folder / str(number) / "model")
    return accuracies


def training_of(way: Way, number: int) -> Way:
    """Return the training in a round, counted from 0: a full one in the first round and where the way has one."""
    is_full = number == 0 or (way.full_every > 0 and number % way.full_every == 0)
    return FULL if is_full else way


def cost(way: Way, rounds: int = ROUNDS) -> float:
    """Return the rankings that are computed after the first round, as a share of those of full trainings."""
    spent = 0.0
    for number in range(1, rounds):
        used = training_of(way, number)
        spent += used.passes * (1 + min(number, used.replay))
    return round(spent / (FULL_PASSES * sum(range(2, rounds + 1))), 2)


def summary(runs: Sequence[Sequence[float]], full: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return the mean accuracy of each round, and the differences from a full training, in points."""
    apart = [
        [100 * (one - other) for one, other in zip(mine, others, strict=True)]
        for mine, others in zip(runs, full, strict=True)
    ]
    means = [fmean(points[1:]) for points in apart]
    return {
        "accuracy": [round(fmean(column), 3) for column in zip(*runs, strict=True)],
        "points apart": [round(fmean(column), 1) for column in zip(*apart, strict=True)],
        "mean of rounds 2 on": round(fmean(means), 2),
        "standard error": round(stdev(means) / len(means) ** 0.5, 2) if len(means) > 1 else None,
    }


if __name__ == "__main__":
    main()
