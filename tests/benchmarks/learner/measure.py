"""Program that measures one side of one benchmark and prints a line of JSON as its last line.

python -m tests.benchmarks.learner.measure MODULE NAME SIZE ours|peer FOLDER
"""

import importlib
import json
import os
import resource
import sys
from pathlib import Path


def main(module: str, name: str, size: str, side: str, folder: str) -> None:
    import torch

    from tests.benchmarks.learner import world

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    benchmark = importlib.import_module(f"tests.benchmarks.learner.{module}")
    print(json.dumps(getattr(benchmark, side)(name, world.prepare(Path(folder), size)) | peak()))


def peak() -> dict[str, float]:
    """Return the peak memory of the process, libraries included, and on a GPU the peak that PyTorch allocated."""
    import torch

    found = {"megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}  # kilobytes on Linux
    if torch.cuda.is_available():
        found["gpu_megabytes"] = torch.cuda.max_memory_allocated() / 2**20
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
