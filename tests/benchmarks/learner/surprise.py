"""Surprise of rankings: how many wrong rankings are in the first tenth of the list.

    .venv/bin/python -m tests.benchmarks.learner.surprise FOLDER [--base MODEL] [--sizes 4,2] [--seeds 5] [--whole 0]

The demo's base model writes completions (FOLDER/samples, as in `over_optimisation`), and simulated annotators rank 450
comparisons of them, every third one twice, as in the demo. A fifth of the prompts is held out. In a tenth of the
rankings the order is turned round. The figure of a list is the share of these in its first tenth.

`heads` is the product's list (`training/learner/preferences/cross_fitting.py`). `oracle` knows the utilities and the
annotators' errors, and orders by the likelihood ratio of the reversed ranking to the ranking; on average no list holds
more (Neyman and Pearson 1933). It misses some because annotators err, too. With --whole, the first seeds also have
`in sample`, by a reward model that has learned from the rankings, and `5 whole models`, each trained without a fold.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch

from tests.benchmarks.arguments import at_least_one
from tests.benchmarks.learner.gold_record import Scored
from tests.benchmarks.learner.over_optimisation import base_samples, finished_job, trained_base
from training.demo import base_model
from training.demo.annotators import MIN_NOISE, NOISE, NOTICEABLE, Annotator, ranks
from training.demo.settings import COMPARISONS, ROUND
from training.learner import reward
from training.learner.models.loading import load_tokenizer, positions_of
from training.learner.models.reward_model import load_reward_model, new_reward_model, raw_scores_of_groups
from training.learner.preferences.ranking_data import RankingData, read_rankings
from training.learner.preferences.reward_results import cross_fitted
from training.learner.runtime.config import RewardConfig

ANNOTATORS, HELD_OUT_SHARE, FLIPPED_SHARE, FOLDS = 4, 0.2, 0.1, 5
DRAWS = 2000  # of the annotators' errors, for the oracle

Rows = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", default="", help="folder of the demo's trained base model, if there is one")
    parser.add_argument("--sizes", default="4,2", help="completions of a comparison (4,2)")
    parser.add_argument("--seeds", type=at_least_one, default=5)
    parser.add_argument("--whole", type=int, default=0, help="seeds with whole reward models (0)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    base = options.base or trained_base(options.folder / "base")
    samples = base_samples(options.folder / "samples", base)
    for size in map(int, options.sizes.split(",")):
        shares: dict[str, list[float]] = {}
        for seed in range(options.seeds):
            with_whole = seed < options.whole
            found = shares_of_seed(options.folder / f"{size}-{seed}", base, samples, size, seed, with_whole)
            print(f"{size} completions, seed {seed}: {json.dumps(found)}", flush=True)
            for name, share in found.items():
                shares.setdefault(name, []).append(share)
        print(f"{size} completions: {json.dumps({name: summary(values) for name, values in shares.items()})}")


def summary(values: Sequence[float]) -> str:
    error = f" ± {stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{error} ({len(values)})"


def shares_of_seed(
    folder: Path, base: str, samples: Sequence[Sequence[Scored]], size: int, seed: int, with_whole: bool
) -> dict[str, float]:
    """Return the share of the wrong rankings in the first tenth of each list."""
    rows, utilities, flipped = world(samples, size, seed)
    settings = RewardConfig(model=base, seed=seed, surprise_folds=FOLDS, **ROUND["common"])
    data = read_rankings(load_tokenizer(base), rows, settings, positions_of(base))
    surprise = cross_fitted(new_reward_model(base, 0, seed), data, settings, settings.micro_batch_tokens)
    lists = {"heads": [surprise.get(number, -np.inf) for number in range(1, len(rows) + 1)]}
    lists["oracle"] = [likelihood_ratio(row["ranks"], group, seed) for row, group in zip(rows, utilities, strict=True)]
    if with_whole:
        fold = fold_of_rows(rows, seed)
        lists["in sample"] = by_whole_models(folder, base, rows, [0] * len(rows), seed, leaves_out=False)
        lists["5 whole models"] = by_whole_models(folder, base, rows, fold, seed, leaves_out=True)
    return {name: found_in_first_tenth(values, flipped) for name, values in lists.items()}


def world(samples: Sequence[Sequence[Scored]], size: int, seed: int) -> tuple[Rows, list[list[float]], list[bool]]:
    """Return the rankings, the utilities of their completions, and whether the order was turned round."""
    draw = random.Random(f"surprise/{seed}")
    rows: Rows = []
    utilities: list[list[float]] = []
    for place, number in enumerate(draw.sample(range(len(samples)), COMPARISONS)):
        group = samples[number][:size]
        texts = [one.text for one in group]
        split = "held_out" if place < HELD_OUT_SHARE * COMPARISONS else "train"
        for annotator in range(1 + (place % 3 == 0)):
            who = (place + annotator) % ANNOTATORS + 1
            rows.append({
                "prompt_id": number, "split": split, "messages": base_model.as_prompt(group[0].message),
                "completions": texts, "ranks": Annotator(who).rank(group[0].message, texts), "annotator": str(who),
            })  # fmt: skip
            utilities.append([one.utility for one in group])
    strict = [index for index, row in enumerate(rows) if len(set(row["ranks"])) > 1]
    wrong = set(draw.sample(strict, round(FLIPPED_SHARE * len(rows))))
    for index in wrong:
        rows[index]["ranks"] = reversed_order(rows[index]["ranks"])
    return rows, utilities, [index in wrong for index in range(len(rows))]


def reversed_order(order: Sequence[int]) -> list[int]:
    return [max(order) + 1 - rank for rank in order]


def found_in_first_tenth(values: Sequence[float], flipped: Sequence[bool]) -> float:
    order = np.argsort(-np.array(values), kind="stable")[: round(len(values) / 10)]
    return round(float(np.array(flipped)[order].sum() / sum(flipped)), 3)


def likelihood_ratio(order: Sequence[int], utilities: Sequence[float], seed: int) -> float:
    """Return log P(reversed ranking) − log P(ranking) for a simulated annotator, by DRAWS draws of the errors."""
    draw = np.random.default_rng(seed)
    deviation = max(MIN_NOISE, NOISE * (max(utilities) - min(utilities)))
    perceived = np.array(utilities) + draw.normal(0, deviation, (DRAWS, len(utilities)))
    wanted, other = tuple(order), tuple(reversed_order(order))
    counts = {wanted: 0.5, other: 0.5}
    for values in perceived.tolist():
        seen = tuple(ranks(values, NOTICEABLE * deviation))
        if seen in counts:
            counts[seen] += 1
    return float(np.log(counts[other]) - np.log(counts[wanted]))


def fold_of_rows(rows: Rows, seed: int) -> list[int]:
    prompts = sorted({row["prompt_id"] for row in rows})
    random.Random(f"folds/{seed}").shuffle(prompts)
    fold = {prompt: place % FOLDS for place, prompt in enumerate(prompts)}
    return [fold[row["prompt_id"]] for row in rows]


def by_whole_models(
    folder: Path, base: str, rows: Rows, fold: Sequence[int], seed: int, *, leaves_out: bool
) -> list[float]:
    """Return the surprise of the rankings by whole reward models, of which each has not learned from its fold."""
    values = [0.0] * len(rows)
    settings = ROUND["common"] | ROUND["reward"] | {
        "model": base, "seed": seed, "eval_every": 10**9, "ensemble_heads": 0, "surprise_folds": 0,
    }  # fmt: skip
    for number in sorted(set(fold)):
        mine = [index for index, one in enumerate(fold) if one == number]
        left_out = set(mine) if leaves_out else set()
        job = finished_job(
            folder / f"{'without' if leaves_out else 'with'}-{number}",
            reward,
            settings,
            rankings=[row | {"split": "held_out" if i in left_out else "train"} for i, row in enumerate(rows)],
        )
        model, tokenizer = load_reward_model(str(job.path / "model"))
        for index, value in zip(mine, surprises(model, tokenizer, [rows[index] for index in mine]), strict=True):
            values[index] = value
    return values


def surprises(model: Any, tokenizer: Any, rows: Rows) -> list[float]:
    """Return the mean log-odds of the other order of each ranking's pairs that are not tied."""
    settings = RewardConfig(model="any", **ROUND["common"])
    data: RankingData = read_rankings(tokenizer, [row | {"split": "train"} for row in rows], settings)
    raw, _ = raw_scores_of_groups(model, [one.group for one in data.train], settings.micro_batch_tokens)
    by_row: dict[int, float] = {}
    first = 0
    for comparison in data.train:
        scores = raw[first : first + len(comparison.group.completions)].tolist()
        by_row |= {ranking.row: mean_log_odds(ranking, scores) for ranking in comparison.rankings}
        first += len(comparison.group.completions)
    return [by_row[number] for number in range(1, len(rows) + 1)]


def mean_log_odds(ranking: Any, scores: Sequence[float]) -> float:
    placed = list(zip(ranking.ranks, ranking.places, strict=True))
    odds = [scores[other] - scores[place] for rank, place in placed for lower, other in placed if rank < lower]
    return fmean(odds) if odds else -np.inf


if __name__ == "__main__":
    main()
