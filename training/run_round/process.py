"""Run of one learner program on a job directory, as its own process."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
from django.conf import settings

from training.learner.environments.dialogue import KEY
from training.learner.runtime.jobdir import EXIT_DONE, EXIT_STOPPED, STOPPED_MARKER, JobDirectory

DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
# Seconds between SIGTERM and SIGKILL: with a heartbeat every 2 s, a cancel takes less than 10 s if steps are short.
GRACE = 7.0
MAX_GRACE = 900.0  # for a program whose steps are long
POLL_SECONDS = 0.2  # seconds
RUN_MARKER = "——— start of"  # starts each run in log.txt, to which a resumed round appends
LOG_TAIL = 60  # lines kept of a failed program's log
# Environment variables that are removed: a program needs only its job directory.
SECRETS = ("SECRET_KEY", "DATABASE_URL", "CELERY_BROKER_URL", "DJANGO_SETTINGS_MODULE", KEY)


class ProgramFailed(Exception):
    """The program ended without a result; the message is for people."""

    def __init__(self, message: str, log_tail: str) -> None:
        super().__init__(message)
        self.log_tail = log_tail


class ProgramStopped(Exception):
    """The program was stopped on request; another run in the same directory resumes it."""


def default_grace() -> float:
    return GRACE


def run(
    program: str,
    directory: Path,
    processes: int,
    watch: Callable[[], bool],
    grace: Callable[[], float] = default_grace,
) -> None:
    """Run the program to its end. `watch` is called several times a second and returns whether to stop.

    grace: seconds that a program which was asked to stop has for its current step and for saving its state. It is
    called at the stop and whenever the time is up, since a step that ends meanwhile can show that steps take longer.

    Raises ProgramStopped after a stop, and ProgramFailed if there is no result. An exception in `watch` ends the
    program.
    """
    end_leftovers(directory)
    (directory / STOPPED_MARKER).unlink(missing_ok=True)
    process = start(program, directory, processes)
    try:
        while process.poll() is None:
            if watch():
                break
            time.sleep(POLL_SECONDS)
        stopped = process.poll() is None
        if stopped:
            end(process, grace)
    finally:
        end(process)
        end_leftovers(directory, grace=0)
    # `accelerate launch` exits with 1 if its processes exit with 75.
    if stopped or process.returncode == EXIT_STOPPED or (directory / STOPPED_MARKER).exists():
        raise ProgramStopped
    if process.returncode != EXIT_DONE or not (directory / "result.json").is_file():
        raise ProgramFailed(reason(program, process.returncode, directory), log_tail(directory))


def grace_for_step(directory: Path) -> float:
    """Return a grace that is enough for one more step, by the longest of the last steps in metrics.jsonl."""
    times = [line["time"] for line in JobDirectory(directory, is_writer=False).metrics()[-10:]]
    longest = max((after - before for before, after in itertools.pairwise(times)), default=0.0)
    return min(GRACE + 2 * longest, MAX_GRACE)


def start(program: str, directory: Path, processes: int) -> subprocess.Popen[bytes]:
    """Start the program in its own session, with its output appended to log.txt."""
    command = [sys.executable, str(DIE_WITH_PARENT), str(os.getpid()), *command_line(program, directory, processes)]
    environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
    if settings.SIMULATED_USER_KEY:
        environment[KEY] = settings.SIMULATED_USER_KEY
    environment["PYTHONUNBUFFERED"] = "1"  # the last lines of the log must not be lost in a crash
    # By default OpenMP threads spin while they wait. If the web and PostgreSQL share the cores, spinning threads take
    # the time that others need: programs became four to ten times slower (training/LOG.md).
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with (directory / "log.txt").open("ab") as log:
        log.write(f"{RUN_MARKER} {program}, {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode())
        log.flush()
        return subprocess.Popen(
            command,
            cwd=settings.BASE_DIR,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def command_line(program: str, directory: Path, processes: int) -> list[str]:
    """Return the command: `python -m …`, or `accelerate launch …` for several processes."""
    module = ["-m", f"training.learner.{program}", str(directory)]
    if processes == 1:
        return [sys.executable, *module]
    # `--multi_gpu` starts the processes with or without GPUs; `--cpu` would always start one only.
    # Port 0 means any free port, because two rounds may run on one host.
    options = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--main_process_port", "0"]
    precision = ["--mixed_precision", "no", "--dynamo_backend", "no"]  # the program sets its own dtype
    return [sys.executable, "-m", "accelerate.commands.launch", *options, *precision, *module]


def end(process: subprocess.Popen[bytes], grace: Callable[[], float] = default_grace) -> None:
    """Send SIGTERM, wait for at most `grace` seconds, then send SIGKILL to the whole session."""
    if process.poll() is None:
        process.terminate()
        asked_at = deadline = time.monotonic()
        while process.poll() is None:
            if time.monotonic() >= deadline:
                deadline = asked_at + grace()  # only here: it may read a long file of metrics
                if time.monotonic() >= deadline:
                    break
            time.sleep(POLL_SECONDS)
    with suppress(ProcessLookupError, PermissionError):  # all have ended, or the id was reused
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end_leftovers(directory: Path, grace: float = GRACE) -> None:
    """End programs that a dead worker or a launcher left running here: two would overwrite each other's state."""
    leftovers = programs_on(directory)
    for send_signal in (psutil.Process.terminate, psutil.Process.kill) if grace else (psutil.Process.kill,):
        for process in leftovers:
            with suppress(psutil.NoSuchProcess):
                send_signal(process)
        _, leftovers = psutil.wait_procs(leftovers, timeout=grace or GRACE)


def programs_on(directory: Path) -> list[psutil.Process]:
    """Return all processes of this machine that run a learner program on this directory.

    They are recognised by their command line. A stored process id could be reused by then, and `accelerate launch`
    starts processes in sessions of their own.
    """
    return [process for process in psutil.process_iter() if works_on(process, directory)]


def works_on(process: psutil.Process, directory: Path) -> bool:
    try:
        command = process.cmdline()
    except psutil.Error:
        return False
    return str(directory) in command and any("training.learner" in part for part in command)


def log_tail(directory: Path) -> str:
    """Return the last lines of the program's output."""
    file = directory / "log.txt"
    if not file.is_file():
        return ""
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - 64 * 1024))
        lines = log.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-LOG_TAIL:])


def reason(program: str, code: int, directory: Path) -> str:
    """Return a sentence about why the program did not succeed."""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = " (often: the machine ran out of memory)" if name == "SIGKILL" else ""
        return f"The {program} program was ended by {name}{hint}."
    if code == EXIT_DONE:
        return f"The {program} program ended without a result."
    this_run = log_tail(directory).rpartition(RUN_MARKER)[2].splitlines()[1:]
    lines = [line.strip() for line in this_run if line.strip()]
    message = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)
    return f"The {program} program failed: {message or (lines[-1] if lines else 'it printed nothing')}"
