"""Figures of the machine for a line of metrics.jsonl: speed, processor and memory of this process since the last line.

    tokens_per_second  tokens of the step per second since the last line: those that the policy wrote where it samples,
                       otherwise those of the batch, prompts included
    cpu_share          CPU time of all threads, as a share of the cores that the process may use
    memory_gb          resident memory, GB (10⁹ bytes)
    gpu_share          share of the time in which the GPU computed, as its driver reports it at most once a second
    gpu_memory_gb      GPU memory that PyTorch holds, GB

With several processes they are those of the first one, except for the tokens, which are of the whole batch. The GPU's
figures are left out without a GPU, its share also without the package nvidia-ml-py. result.json has the highest memory
of the program's last start, `peak_memory_gb` and `peak_gpu_memory_gb`.
"""

import os
import re
import resource
import sys
import time
from pathlib import Path

import torch

GB = 1e9
FIGURES = ("tokens_per_second", "cpu_share", "memory_gb", "gpu_share", "gpu_memory_gb")
PEAKS = ("peak_memory_gb", "peak_gpu_memory_gb")
STATM = Path("/proc/self/statm")  # Linux
STATUS = Path("/proc/self/status")  # Linux
GPU_SHARE_EVERY = 1.0  # seconds: the driver's own figure is a mean over about that time


class MachineFigures:
    """Meter that is read once for each line of metrics."""

    def __init__(self) -> None:
        self._cores = available_cores()
        self._gpu_share: float | None = None
        self._gpu_share_at = -GPU_SHARE_EVERY
        self._has_gpu = self._has_gpu_share = torch.cuda.is_available()
        self.restart()

    def restart(self) -> None:
        """Begin to measure here: the first step must not include the time in which models were loaded."""
        self._time, self._cpu_time = time.monotonic(), time.process_time()

    def read(self, tokens: float | None) -> dict[str, float]:
        """Return the figures since the last reading. tokens: of the step; None if its program does not count them."""
        seconds = max(time.monotonic() - self._time, 1e-6)
        cpu_seconds = time.process_time() - self._cpu_time
        self.restart()
        figures = {} if tokens is None else {"tokens_per_second": round(tokens / seconds, 1)}
        figures["cpu_share"] = round(cpu_seconds / seconds / self._cores, 3)
        figures["memory_gb"] = round(resident_bytes() / GB, 3)
        return figures | self._gpu_figures()

    def peaks(self) -> dict[str, float]:
        """Return the highest resident memory of this process, and of the GPU memory that PyTorch held, in GB."""
        peaks = {"peak_memory_gb": round(highest_resident_bytes() / GB, 3)}
        if self._has_gpu:
            peaks["peak_gpu_memory_gb"] = round(torch.cuda.max_memory_reserved() / GB, 3)
        return peaks

    def _gpu_figures(self) -> dict[str, float]:
        if not self._has_gpu:
            return {}
        figures = {"gpu_memory_gb": round(torch.cuda.memory_reserved() / GB, 3)}
        share = self._read_gpu_share()
        return figures if share is None else figures | {"gpu_share": share}

    def _read_gpu_share(self) -> float | None:
        if self._has_gpu_share and time.monotonic() - self._gpu_share_at >= GPU_SHARE_EVERY:
            self._gpu_share_at = time.monotonic()
            try:
                self._gpu_share = round(torch.cuda.utilization() / 100, 2)
            except (ImportError, RuntimeError, OSError):  # no nvidia-ml-py, or a driver that does not answer
                self._has_gpu_share, self._gpu_share = False, None
        return self._gpu_share


def available_cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resident_bytes() -> int:
    """Return the resident memory of this process; where there is no /proc, its highest so far."""
    if STATM.exists():
        return int(STATM.read_text().split()[1]) * resource.getpagesize()
    return highest_resident_bytes()


def highest_resident_bytes() -> int:
    """Return the highest resident memory of this process so far."""
    # On Linux ru_maxrss also counts the process that started this program, before the exec.
    if STATUS.exists() and (line := re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)):
        return int(line[1]) * 1024
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024
