"""Ours and the peers in turn: each measurement a process of its own, the same weights, tokens, steps and threads.

    python3 manage.py bench learner [--json FILE] [--only NAMES] [--sizes 1M,5M] [--runs N] [--device cuda]

A benchmark is a module of this folder with NAMES, PEER (an environment of `peers`), UNIT, `ours(name, folder)` and
`peer(name, folder)`, which give `{"value", "quality", "phases"}` and perhaps `steps`, and `holds(ours, peer)`: whether
the qualities are equal, without which a ratio claims nothing. Ratios are of medians over runs.
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

from tests.benchmarks.learner import peers

HERE = Path(__file__).parent


def registry() -> dict[str, ModuleType]:
    """Every benchmark's name, and the module that holds it."""
    stems = sorted(file.stem for file in HERE.glob("*.py") if file.stem != "__main__")
    modules = [importlib.import_module(f"tests.benchmarks.learner.{stem}") for stem in stems]
    return {name: module for module in modules for name in getattr(module, "NAMES", ())}


def main(arguments: list[str]) -> int:
    benchmarks, options = registry(), parse(arguments)
    chosen = options.only.split(",") if options.only else list(benchmarks)
    unknown = [name for name in chosen if name not in benchmarks]
    if unknown:
        print(f"error: there is no benchmark {unknown[0]!r}; there are {', '.join(benchmarks)}", file=sys.stderr)
        return 2
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            for size in options.sizes.split(","):
                results.append(compare(benchmarks[name], name, size, Path(folder) / size, options))
                show(results[-1])
                if options.json:
                    options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(result["equal_quality"] for result in results) else 1


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="manage.py bench learner")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--only", metavar="NAMES", help="of these benchmarks, with commas between")
    parser.add_argument("--sizes", default="1M,5M", help="of the models (1M,5M)")
    parser.add_argument("--runs", type=int, default=2, metavar="N", help="of each side, in turn (2)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each process (all cores)")
    return parser.parse_args(arguments)


def compare(benchmark: ModuleType, name: str, size: str, folder: Path, options: argparse.Namespace) -> dict:
    """Both sides in turn, `runs` times; each side's median."""
    runs: dict[str, list[dict]] = {"ours": [], "peer": []}
    pythons = {"ours": Path(sys.executable), "peer": peers.python_of(benchmark.PEER)}
    for _ in range(options.runs):
        for side, measured in runs.items():
            measured.append(run(pythons[side], benchmark, name, size, side, folder, options))
    ours, peer = (middle(measured) for measured in runs.values())
    is_smaller_better = getattr(benchmark, "SMALLER_IS_BETTER", False)
    return {
        "name": f"{name}@{size}", "ours": ours["value"], "peer": peer["value"], "unit": benchmark.UNIT,
        "ratio": ours["value"] / peer["value"], "quality_ours": ours["quality"], "quality_peer": peer["quality"],
        "equal_quality": benchmark.holds(ours, peer), "is_smaller_better": is_smaller_better,
        "steps_ours": ours.get("steps"), "steps_peer": peer.get("steps"), "phases": ours["phases"],
        "curve_ours": ours.get("curve"), "curve_peer": peer.get("curve"),
        "megabytes_ours": ours["megabytes"], "megabytes_peer": peer["megabytes"],
    }  # fmt: skip


def run(
    python: Path, benchmark: ModuleType, name: str, size: str, side: str, folder: Path, options: argparse.Namespace
) -> dict:
    """One measurement. Raises CalledProcessError, after showing what the process said, when it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "OMP_WAIT_POLICY": "PASSIVE",
                                "PYTHONPATH": str(peers.ROOT), "HF_HUB_OFFLINE": "1"}  # fmt: skip
    environment |= {"CUDA_VISIBLE_DEVICES": ""} if options.device == "cpu" else {}
    module = benchmark.__name__.rpartition(".")[2]
    command = [str(python), "-m", "tests.benchmarks.learner.measure", module, name, size, side, str(folder)]
    done = subprocess.run(command, cwd=peers.ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr[-4000:])
        done.check_returncode()
    return json.loads(done.stdout.strip().splitlines()[-1])


def middle(measured: list[dict]) -> dict:
    """The run of the median value (the lower of two), with the mean of all qualities."""
    ordered = sorted(measured, key=lambda each: each["value"])
    return ordered[(len(ordered) - 1) // 2] | {"quality": statistics.fmean(each["quality"] for each in measured)}


def show(result: dict) -> None:
    steps = "" if result["steps_ours"] is None else f"  steps {result['steps_ours']} : {result['steps_peer']}"
    phases = "  ".join(f"{phase} {seconds:.1f} s" for phase, seconds in result["phases"].items())
    print(
        f"{result['name']:20} {result['ours']:10.1f} : {result['peer']:10.1f} {result['unit']:11}"
        f" {result['ratio']:6.2f} ×   quality {result['quality_ours']:.3f} : {result['quality_peer']:.3f}"
        f" {'equal' if result['equal_quality'] else 'NOT EQUAL'}{steps}"
        f"   {result['megabytes_ours']:.0f} : {result['megabytes_peer']:.0f} MB   {phases}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
