"""Start of a program: the processes, the job directory and the settings."""

import json
import time
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from training.learner.runtime.config import Settings
from training.learner.runtime.jobdir import JobDirectory, StopSignal
from training.learner.runtime.machine import MachineFigures
from training.learner.runtime.processes import Processes
from training.learner.runtime.trackers import TrackedJob, Trackers

S = TypeVar("S", bound=Settings)


class Start(NamedTuple, Generic[S]):
    settings: S
    job: JobDirectory
    processes: Processes
    stop: StopSignal
    started: float  # time.monotonic()


def start_program(job_dir: Path, kind: type[S]) -> Start[S] | None:
    """Join the process group, open the job directory and read its settings. Return None if the job has a result.

    Raises BadInput if the directory or its settings cannot be used.
    """
    processes, stop = Processes(), StopSignal()
    job = JobDirectory(job_dir, processes.is_first)
    processes.wait()  # rank 0 has finished half-done replacements of folders that the others read
    if job.result() is not None:
        return None
    settings = kind.from_json(job.config())
    if job.is_writer:
        job.machine = MachineFigures()
        job.trackers = Trackers(TrackedJob(job_dir, kind.program, name_of(job_dir), settings.to_json()))
    return Start(settings, job, processes, stop, time.monotonic())


def name_of(job_dir: Path) -> str:
    """Return the name of a job for people: project, round and job, or that of its folder if it belongs to no round."""
    file = job_dir.resolve().parent / "round.json"
    if not file.is_file():
        return job_dir.resolve().name
    round_ = json.loads(file.read_text("utf-8"))
    return f"{round_['project']} round {round_['round']} {job_dir.resolve().name}"
