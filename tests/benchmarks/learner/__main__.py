"""Benchmarks of the learner beside its peers, in turn, with the same weights, tokens, steps and threads.

Each measurement is a separate process.

    python3 manage.py bench learner [--json FILE] [--only NAMES] [--sizes 1M,5M] [--runs N] [--device cuda]

A benchmark is a module of this folder. It has NAMES, PEER (an environment of `peers`), UNIT, `ours(name, folder)` and
`peer(name, folder)`, which return `{"value", "quality", "phases"}` and optionally more of RECORDED. Its function
`is_equal_quality(ours, peer)` returns whether the qualities are equal: without that a ratio of speeds means nothing.
Optional: ENVIRONMENT (variables for both sides) and `needs(name, size, side)` (the `machine.Need` of one unit). Ratios
are those of medians over runs.

On a GPU the models have the shape of Qwen, 0.5B and 1.5B parameters, and compute in bfloat16.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from config.runtime.errors import SetupError
from tests.benchmarks import peers
from tests.benchmarks.arguments import at_least_one

HERE = Path(__file__).parent
SIZES = {"cpu": "1M,5M", "cuda": "0.5B,1.5B"}
RECORDED = ("steps", "phases", "processor_seconds", "curve", "reward", "reward_error", "kl", "kl_error", "megabytes",
            "gpu_megabytes")  # of the median run of each side  # fmt: skip
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}


class Refused(Exception):
    """The benchmark cannot run; the message is one sentence for the operator."""


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    try:
        results = measure_all(options)
    except (Refused, SetupError) as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    return 0 if all(result["equal_quality"] for result in results) else 1


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="manage.py bench learner")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--only", metavar="NAMES", help="comma-separated benchmarks to run (all)")
    parser.add_argument("--sizes", help=f"comma-separated model sizes ({SIZES['cpu']}; GPU: {SIZES['cuda']})")
    parser.add_argument("--runs", type=at_least_one, default=3, metavar="N", help="runs of each side, in turn (3)")
    parser.add_argument("--device", choices=tuple(SIZES), default="cpu")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="dtype of the computation (float32; GPU: bfloat16)"
    )
    parser.add_argument(
        "--threads", type=at_least_one, default=os.cpu_count() or 1, help="threads of each process (all cores)"
    )
    options = parser.parse_args(arguments)
    options.sizes = options.sizes or SIZES[options.device]
    options.dtype = options.dtype or DTYPES[options.device]
    return options


def measure_all(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run every chosen benchmark at every size; print each result and write it to the file at once."""
    check_device(options.device)
    os.environ["BENCH_DTYPE"] = options.dtype  # for `world`, here and in the processes that measure
    benchmarks = chosen(options.only)
    check_sizes(options.sizes.split(","))
    pythons = {name: peers.python_of(module.PEER) for name, module in benchmarks.items()}
    results: list[dict[str, Any]] = []
    best = peak(options)
    with tempfile.TemporaryDirectory() as folder:
        for name, module in benchmarks.items():
            for size in options.sizes.split(","):
                results.append(compare(module, name, size, Path(folder) / size, pythons[name], options))
                results[-1] |= shares(module, results[-1], name, size, best)
                show(results[-1])
                if options.json:
                    options.json.write_text(json.dumps(results, indent=1) + "\n")
    return results


def check_device(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise Refused("PyTorch finds no GPU on this machine: leave out --device to measure on the CPU.")


def check_sizes(sizes: list[str]) -> None:
    from tests.benchmarks.learner import world

    for size in sizes:
        if size not in world.SIZES:
            raise Refused(f"there is no model of size {size!r}; there are {', '.join(world.SIZES)}.")


def registry() -> dict[str, ModuleType]:
    """Return the module of each benchmark by name."""
    stems = sorted(file.stem for file in HERE.glob("*.py") if file.stem != "__main__")
    modules = [importlib.import_module(f"tests.benchmarks.learner.{stem}") for stem in stems]
    return {name: module for module in modules for name in getattr(module, "NAMES", ())}


def chosen(only: str | None) -> dict[str, ModuleType]:
    benchmarks = registry()
    names = only.split(",") if only else list(benchmarks)
    for name in names:
        if name not in benchmarks:
            raise Refused(f"there is no benchmark {name!r}; there are {', '.join(benchmarks)}.")
    return {name: benchmarks[name] for name in names}


def compare(
    benchmark: ModuleType, name: str, size: str, folder: Path, python: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Run both sides in turn, `runs` times, and return the medians."""
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
    pythons = {"ours": Path(sys.executable), "peer": python}
    for _ in range(options.runs):
        for side, measured in runs.items():
            measured.append(run(pythons[side], benchmark, name, size, side, folder, options))
    ours, peer = (median_run(measured) for measured in runs.values())
    return {
        "name": f"{name}@{size}", "ours": ours["value"], "peer": peer["value"], "unit": benchmark.UNIT,
        "ratio": ours["value"] / peer["value"], "quality_ours": ours["quality"], "quality_peer": peer["quality"],
        "equal_quality": benchmark.is_equal_quality(ours, peer),
        "is_smaller_better": getattr(benchmark, "SMALLER_IS_BETTER", False),
        "runs_ours": [each["value"] for each in runs["ours"]], "runs_peer": [each["value"] for each in runs["peer"]],
        **{f"{what}_{side}": measured.get(what) for what in RECORDED
           for side, measured in (("ours", ours), ("peer", peer))},
    }  # fmt: skip


def run(
    python: Path, benchmark: ModuleType, name: str, size: str, side: str, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Run one measurement. Raises Refused if it fails, after printing the process's stderr."""
    environment = environment_of(options) | getattr(benchmark, "ENVIRONMENT", {})
    module = benchmark.__name__.rpartition(".")[2]
    command = [str(python), "-m", "tests.benchmarks.learner.measure", module, name, size, side, str(folder)]
    done = subprocess.run(command, cwd=peers.ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr[-4000:])
        whose = "our side" if side == "ours" else f"the side of {benchmark.PEER or 'comparison'}"
        raise Refused(f"{whose} of {name}@{size} failed with status {done.returncode}, as shown above.")
    return json.loads(done.stdout.strip().splitlines()[-1])


def environment_of(options: argparse.Namespace) -> dict[str, str]:
    """Return the environment of a measuring process."""
    shown = {"CUDA_VISIBLE_DEVICES": ""} if options.device == "cpu" else {}
    return os.environ | shown | {
        "OMP_NUM_THREADS": str(options.threads), "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(peers.ROOT),
        "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}  # fmt: skip


def peak(options: argparse.Namespace) -> dict[str, float]:
    """Measure the peak of this machine with the same threads and precision."""
    command = [sys.executable, "-m", "tests.benchmarks.learner.machine"]
    done = subprocess.run(command, cwd=peers.ROOT, env=environment_of(options), stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    print(f"this machine: {found['operations'] / 1e9:.0f} billion operations and {found['bytes'] / 1e9:.1f} GB a second"
          f" at most, {options.threads} threads, {options.dtype}", flush=True)  # fmt: skip
    return found


def shares(
    benchmark: ModuleType, result: dict[str, Any], name: str, size: str, best: dict[str, float]
) -> dict[str, float | None]:
    """Return the share of the machine's peak that each side's work needs; None if the figure is not a speed."""
    if not hasattr(benchmark, "needs"):
        return {"share_ours": None, "share_peer": None}
    return {f"share_{side}": benchmark.needs(name, size, side).share(result[side], best) for side in ("ours", "peer")}


def median_run(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run with the median value (the lower of two), with the mean of all qualities."""
    ordered = sorted(measured, key=lambda each: each["value"])
    return ordered[(len(ordered) - 1) // 2] | {"quality": statistics.fmean(each["quality"] for each in measured)}


def show(result: dict[str, Any]) -> None:
    """Print a line of figures, then a line per side with its time and memory."""
    verdict = "equal" if result["equal_quality"] else "NOT EQUAL"
    print(f"{result['name']:20} {result['ours']:10.1f} : {result['peer']:10.1f} {result['unit']:11}"
          f" {result['ratio']:6.2f} ×   quality {result['quality_ours']:.3f} : {result['quality_peer']:.3f}"
          f" {verdict}")  # fmt: skip
    for side in ("ours", "peer"):
        parts = [f"{phase} {seconds:.2f} s" for phase, seconds in (result[f"phases_{side}"] or {}).items()]
        if result[f"kl_{side}"] is not None:
            parts.append(f"reward {result[f'reward_{side}']:.2f} at KL {result[f'kl_{side}']:.2f}")
        parts += [f"{result[f'steps_{side}']} steps"] if result[f"steps_{side}"] is not None else []
        if result[f"processor_seconds_{side}"]:
            parts.append(f"{result[f'processor_seconds_{side}']:.2f} s of CPU time")
        parts.append(f"{result[f'megabytes_{side}']:.0f} MB at most")
        if result[f"gpu_megabytes_{side}"]:
            parts.append(f"{result[f'gpu_megabytes_{side}']:.0f} MB on the GPU")
        if (share := result[f"share_{side}"]) is not None:
            parts.append(f"{share:.1%} of the machine's peak")
        print(f"    {side}: {', '.join(parts)}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
