"""Facts and load of the machine that a worker runs on, without torch."""

import os
import platform
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from django.conf import settings

TIME_LIMIT = 10  # seconds: without persistence mode, nvidia-smi first loads the driver
DRIVERS = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, and GPUs of Windows in WSL
MIB = 2**20


def this_worker() -> str:
    """Return the address of this process, which its rounds and checks carry: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def facts() -> dict[str, Any]:
    """Return what does not change while a worker runs, as columns of `Worker`."""
    return {"version": code_version(), "cpu_name": cpu_name(), "cpu_count": cpu_count()}


def load() -> dict[str, Any]:
    """Return what changes, as columns of `Worker`. The share of the CPU is that since the last call."""
    memory = psutil.virtual_memory()
    return {
        "memory_total": memory.total,
        "memory_used": memory.total - memory.available,
        "process_memory": process_memory(),
        "cpu_percent": psutil.cpu_percent(),
    }


def process_memory() -> int:
    """Return the resident memory of this process and the programs that it runs."""
    here = psutil.Process()
    total = 0
    for process in (here, *here.children(recursive=True)):
        with suppress(psutil.Error):  # it has ended meanwhile
            total += process.memory_info().rss
    return total


def code_version() -> str:
    """Return the commit of the code at this time; "" if it is no git checkout."""
    return _output(["git", "-C", str(settings.BASE_DIR), "rev-parse", "--short=10", "HEAD"]).strip()


def cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_count() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[dict[str, Any]] | None:
    """Return name, memory in bytes and load of the GPUs that programs may use; None if that is not known.

    Asks nvidia-smi. Without it there is certainly no GPU only where no driver has made a device file.
    """
    visible = settings.VISIBLE_GPUS
    if visible == []:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used,utilization.gpu"]
    chosen = ["-i", ",".join(visible)] if visible else []
    lines = _output([*query, "--format=csv,noheader,nounits", *chosen]).splitlines()
    if lines:
        return _parse(lines)
    is_certain = platform.system() == "Linux" and not any(map(os.path.exists, DRIVERS))
    return [] if is_certain else None


def _parse(lines: list[str]) -> list[dict[str, Any]] | None:
    """Return the GPUs of nvidia-smi's lines; None if a line has another form. A figure it does not have is None."""
    reported = []
    for line in lines:
        parts = [part.strip() for part in line.rsplit(",", 3)]
        if len(parts) != 4:
            return None
        total, used, busy = (int(part) if part.isdecimal() else None for part in parts[1:])
        memory = {"memory_total": total and total * MIB, "memory_used": None if used is None else used * MIB}
        reported.append({"name": parts[0], **memory, "percent": busy})
    return reported


def _output(command: list[str]) -> str:
    """Return what the command prints; "" if it is missing, fails or takes too long."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout
