"""Ratings of 100 sources from 1,000,000 preferences, beside arena-rank and statsmodels, one process each, in turn.

    python3 manage.py bench ratings [--json FILE] [--runs N] [--preferences N] [--sources N] [--prompts N]

All sides read the same arrays, which have no ties: arena-rank counts a tie as half a win, Accord fits Davidson's ν. The
seconds are CPU time from arrays to ratings with intervals, without imports; for Accord with clusters of prompts and
annotators and the bias for the completion shown first. The first fit of arena-rank compiles, the second does not.
statsmodels fits a binomial GLM to the counts by two sources. The exit status is 1 if ratings differ by more than 1e-4.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.arguments import at_least_one

PEER = "arena-rank-0.1"
MAX_DIFFERENCE = 1e-4  # log-odds
ANNOTATORS = 50
SIDES = ("ours", "arena_rank", "statsmodels")


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "world.npz"
        if options.side:
            print(json.dumps(globals()[options.side](options.file)))
            return 0
        make_world(file, options)
        results = {side: [run(side, file) for _ in range(options.runs)] for side in SIDES}
    report = summary(results)
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return 0 if report["largest_difference"] <= MAX_DIFFERENCE else 1


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="manage.py bench ratings")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--runs", type=at_least_one, default=3, metavar="N", help="runs of each side (3)")
    parser.add_argument("--preferences", type=at_least_one, default=1_000_000, metavar="N", help="(1,000,000)")
    parser.add_argument("--sources", type=at_least_one, default=100, metavar="N", help="(100)")
    parser.add_argument("--prompts", type=at_least_one, default=100_000, metavar="N", help="(100,000)")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def make_world(file: Path, options: argparse.Namespace) -> None:
    """Write preferences of sources with normal ratings, by the model."""
    import numpy as np

    generator = np.random.default_rng(0)
    strengths, count = generator.normal(size=options.sources), options.preferences
    first = generator.integers(options.sources, size=count)
    second = (first + generator.integers(1, options.sources, size=count)) % options.sources
    wins = generator.random(count) < 1 / (1 + np.exp(strengths[second] - strengths[first]))
    prompt, annotator = generator.integers(options.prompts, size=count), generator.integers(ANNOTATORS, size=count)
    np.savez(file, first=first, second=second, wins=wins, prompt=prompt, annotator=annotator)


def run(side: str, file: Path) -> dict[str, Any]:
    """Return the result of one side in a process of its own."""
    from tests.benchmarks import peers

    python = peers.python_of(peers.OURSELVES if side == "ours" else PEER)
    command = [str(python), "-m", "tests.benchmarks.ratings", "--side", side, "--file", str(file)]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return result


def ours(file: Path) -> dict[str, Any]:
    import django

    django.setup()
    import numpy as np
    from scipy.sparse import csgraph  # noqa: F401 (imported by the first ratings)
    from scipy.special import stdtrit  # noqa: F401

    from feedback.quality.ratings.pairs import make_pairs
    from feedback.quality.ratings.report import rate_pairs

    world = np.load(file)
    sign = np.where(world["wins"], 1, -1)
    columns = [world[name] for name in ("first", "second", "prompt", "annotator")]
    first, second, prompt, annotator = columns
    begin = time.process_time()
    names = np.arange(int(max(first.max(), second.max())) + 1)
    pairs = make_pairs(first, second, sign, sign * 0 + 1, prompt, annotator, np.zeros((len(sign), 0)), names)
    ratings = rate_pairs(pairs)
    seconds = time.process_time() - begin
    values = {rating.source_id: rating.value for rating in ratings.ratings}
    return {"seconds": [seconds], "ratings": [values[name] for name in range(len(values))]}


def arena_rank(file: Path) -> dict[str, Any]:
    import numpy as np
    import pandas as pd
    from arena_rank.models.bradley_terry import BradleyTerry
    from arena_rank.utils.data_utils import PairDataset

    world = np.load(file)
    winner = np.where(world["wins"], "model_a", "model_b")
    frame = pd.DataFrame({"model_a": world["first"], "model_b": world["second"], "winner": winner})
    seconds: list[float] = []
    for _ in range(2):
        begin = time.process_time()
        data = PairDataset.from_pandas(frame)
        model = BradleyTerry(n_competitors=len(data.competitors))
        result = model.compute_ratings_and_cis(data)
        seconds.append(time.process_time() - begin)
    order = np.argsort(np.array(result["competitors"]))
    values = np.array(result["ratings"])[order] * np.log(10) / 400
    return {"seconds": seconds, "ratings": (values - values.mean()).tolist()}


def statsmodels(file: Path) -> dict[str, Any]:
    import numpy as np
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_linear_model import GLM

    world = np.load(file)
    begin = time.process_time()
    size = int(max(world["first"].max(), world["second"].max())) + 1
    counts = np.zeros((size, size))
    winner = np.where(world["wins"], world["first"], world["second"])
    loser = np.where(world["wins"], world["second"], world["first"])
    np.add.at(counts, (winner, loser), 1)
    rows, columns = np.triu_indices(size, 1)
    design = np.zeros((len(rows), size))
    design[np.arange(len(rows)), rows], design[np.arange(len(rows)), columns] = 1, -1
    fitted = GLM(
        np.column_stack([counts[rows, columns], counts[columns, rows]]), design[:, 1:], family=Binomial()
    ).fit()
    seconds = time.process_time() - begin
    values = np.append(0.0, fitted.params)
    return {"seconds": [seconds], "ratings": (values - values.mean()).tolist()}


def summary(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return median CPU seconds by side and fit, and the largest difference of a rating from Accord's."""
    seconds = {
        side: [round(median(fits), 3) for fits in zip(*(result["seconds"] for result in runs), strict=True)]
        for side, runs in results.items()
    }
    differences = {
        side: max(abs(a - b) for a, b in zip(runs[0]["ratings"], results["ours"][0]["ratings"], strict=True))
        for side, runs in results.items()
    }
    return {"seconds": seconds, "differences": differences, "largest_difference": max(differences.values())}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
