"""Estimates of a round's time and memory, from finished rounds of the same project and from the model's size.

A job is compared with the same job of finished rounds that had the same arrangement (`work.arrangement_of`) and a base
of the same number of parameters. Its time is that of the past job in the ratio of their work; the start of the program
and the loading of its libraries, which do not depend on the work, are added as they were. The middle of the last rounds
is the estimate, and their range is stated. Memory is computed from the number of parameters (`memory`), and what past
rounds needed beyond that is added.

A round stores its estimate when it starts (`Round.estimate`), so that a page can say how far it was off.
"""

import dataclasses
import math
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from training.models import Metric, Round
from training.rounds.estimates.memory import GB, model_bytes, parameters_of
from training.rounds.estimates.work import amounts_of, arrangement_of, settings_of, work_of
from training.rounds.recipes.description import NEWEST_REWARD_MODEL, NONE, REWARD_MODEL_OF_BASE, Job

LAST_ROUNDS = 5
SAME_SIZE = 0.05  # relative difference of numbers of parameters
DURATIONS = "durations"  # key of `Round.results`: seconds of each job, with the start of its program
WRITING = ("ppo", "best_of_n", "sample", "evaluate", "guards")  # programs whose time depends on the completions' length


@dataclass(frozen=True)
class JobEstimate:
    """Estimate of one job. None: not known."""

    job: str
    stage: str
    arrangement: list[Any]
    work: float
    max_tokens: int  # of a completion
    seconds: float | None = None
    low: float | None = None  # range by the past rounds
    high: float | None = None
    model_gb: float | None = None  # weights, gradients and optimizer state
    memory_gb: float | None = None  # with what past rounds needed beyond that
    is_gpu_memory: bool = False


@dataclass(frozen=True)
class Estimate:
    """Estimate of a round."""

    parameters: int | None  # of the base
    rounds: list[int]  # numbers of the past rounds that it is from, newest first
    jobs: list[JobEstimate]

    @property
    def seconds(self) -> float | None:
        """Return the time of all jobs; None if that of one is not known."""
        return _sum([job.seconds for job in self.jobs])

    @property
    def low(self) -> float | None:
        return _sum([job.low for job in self.jobs])

    @property
    def high(self) -> float | None:
        return _sum([job.high for job in self.jobs])

    @property
    def by_stage(self) -> dict[str, float | None]:
        """Return the time of each stage; None if that of one of its jobs is not known."""
        stages = dict.fromkeys(job.stage for job in self.jobs)
        return {stage: _sum([job.seconds for job in self.jobs if job.stage == stage]) for stage in stages}

    @property
    def memory_gb(self) -> float | None:
        """Return the memory of the job that needs most; None if that of one is not known."""
        known = [job.memory_gb for job in self.jobs if job.memory_gb is not None]
        return max(known) if known and len(known) == len(self.jobs) else None

    @property
    def model_gb(self) -> float | None:
        """Return what the models of the largest job need, without activations; None if their size is not known."""
        return max((job.model_gb for job in self.jobs if job.model_gb is not None), default=None)

    @property
    def is_gpu_memory(self) -> bool:
        return any(job.is_gpu_memory for job in self.jobs)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Estimate | None":
        """Return a stored estimate; None for a round of an earlier version, which has none."""
        if not values:
            return None
        return cls(values["parameters"], values["rounds"], [JobEstimate(**job) for job in values["jobs"]])


class Past(NamedTuple):
    """A finished round and what it stored of one of its jobs."""

    round_: Round
    estimate: JobEstimate


def estimate_of(round_: Round) -> Estimate:
    """Return the estimate of a round that starts now. It need not be stored yet."""
    parameters = parameters_of(round_.base.path)
    amounts = amounts_of(round_.project, round_.jobs)
    past = _past_rounds(round_, parameters)
    used: set[int] = set()
    jobs = []
    for job in round_.jobs:
        plain = _without_estimate(round_, job, work_of(round_, job, amounts), parameters)
        compared = [one for one in _same_jobs(past, plain) if _seconds_of(one) is not None][:LAST_ROUNDS]
        used |= {one.round_.number for one in compared}
        jobs.append(estimated(plain, compared))
    return Estimate(parameters, sorted(used, reverse=True), jobs)


def took(round_: Round) -> float | None:
    """Return the seconds in which the round's programs ran, also before it was resumed; None if one is not known."""
    durations = round_.results.get(DURATIONS, {})
    return _sum([durations.get(job.name) for job in round_.jobs])


def peak_memory(round_: Round) -> tuple[float, bool] | None:
    """Return the highest memory of the round's programs in GB, and whether it is a GPU's; None if it is not known."""
    peaks = [peak for job in round_.jobs if (peak := _peak_of(round_.results.get(job.name, {}))) is not None]
    on_gpu = [gb for gb, is_gpu in peaks if is_gpu]
    return (max(on_gpu), True) if on_gpu else max(peaks, default=None)


def _without_estimate(round_: Round, job: Job, work: float, parameters: int | None) -> JobEstimate:
    """Return the description of a job that later rounds compare with, and the memory of its models."""
    values = settings_of(round_, job)
    size = model_bytes(job, values, _loaded(round_, job), parameters) / GB if parameters else None
    return JobEstimate(
        job.name,
        job.stage.name,
        arrangement_of(round_, job),
        work,
        values["max_completion_tokens"],
        model_gb=size,
    )


def _loaded(round_: Round, job: Job) -> list[str]:
    """Return the names of the models that a job loads: each once, and without those that are not there."""
    missing = {NONE}
    if not round_.base.reward_model_path:
        missing.add(REWARD_MODEL_OF_BASE)
    if not round_.project.checkpoints.exclude(reward_model_path="").exists():
        missing.add(NEWEST_REWARD_MODEL)
    names = [name for name, source in job.models.items() if source not in missing]
    # The guards of the first round read its base once, which is its root.
    is_root = job.program == "guards" and round_.base.parent_id is None
    return [name for name in names if not (is_root and name == "root_model")]


def _past_rounds(round_: Round, parameters: int | None) -> list[tuple[Round, Estimate]]:
    """Return the finished rounds of a model of this size, newest first, without those that were resumed."""
    finished = round_.project.rounds.filter(status=Round.Status.FINISHED, attempt=1).exclude(estimate={})
    stored = [(one, Estimate.from_json(one.estimate)) for one in finished.order_by("-number")[: 4 * LAST_ROUNDS]]
    return [(one, estimate) for one, estimate in stored if estimate and _is_same_size(estimate.parameters, parameters)]


def _is_same_size(one: int | None, other: int | None) -> bool:
    """Return whether two models have the same size. Some folders store a tied matrix twice."""
    return one == other if one is None or other is None else math.isclose(one, other, rel_tol=SAME_SIZE)


def _same_jobs(past: list[tuple[Round, Estimate]], job: JobEstimate) -> list[Past]:
    return [
        Past(round_, one)
        for round_, estimate in past
        for one in estimate.jobs
        if one.arrangement == job.arrangement and one.work > 0
    ]


def estimated(job: JobEstimate, past: list[Past]) -> JobEstimate:
    """Return the estimate of a job from its past ones, newest first."""
    if not past:
        return job
    times = [_scaled(one, job) for one in past]
    peaks = [(gb, is_gpu, one) for one in past if (peak := _peak_of(_result_of(one))) for gb, is_gpu in [peak]]
    memory, is_gpu_memory = None, False
    if peaks and job.model_gb is not None:
        _gb, is_gpu_memory, _one = peaks[0]
        beyond = [gb - (one.estimate.model_gb or 0) for gb, is_gpu, one in peaks if is_gpu == is_gpu_memory]
        memory = job.model_gb + max(median(beyond), 0.0)
    return dataclasses.replace(
        job,
        seconds=median(times),
        low=min(times),
        high=max(times),
        memory_gb=memory,
        is_gpu_memory=is_gpu_memory,
    )


def _scaled(past: Past, job: JobEstimate) -> float:
    """Return the seconds of a job, in the ratio of its work to that of a past one."""
    seconds = _seconds_of(past) or 0.0
    running = min(float(_result_of(past).get("seconds", seconds)), seconds)
    ratio = job.work / past.estimate.work * _length_ratio(past, job)
    return (seconds - running) + running * ratio


def _length_ratio(past: Past, job: JobEstimate) -> float:
    """Return the ratio of the expected lengths of completions: the past ones, cut off where the maximum is lower now.

    If the maximum is higher now, only the past completions that were cut off get longer.
    """
    before, now = past.estimate.max_tokens, job.max_tokens
    if before == now or job.arrangement[1] not in WRITING:
        return 1.0
    mean, finished = _lengths_of(past)
    if not mean:
        return now / before
    return min(mean, now) / mean if now < before else (mean + (1 - finished) * (now - before)) / mean


def _lengths_of(past: Past) -> tuple[float, float]:
    """Return the mean length in tokens of a past job's completions and the share that finished; 0 if not known."""
    result = _result_of(past)
    if "tokens_mean" in result:
        return result["tokens_mean"], result.get("ended_fraction", 0.0)
    last = Metric.objects.filter(round=past.round_, job=past.estimate.job).order_by("-step").first()
    values = last.values if last else {}
    return values.get("completion_tokens", 0.0), values.get("ended_fraction", 0.0)


def _seconds_of(past: Past) -> float | None:
    seconds: float | None = past.round_.results.get(DURATIONS, {}).get(past.estimate.job)
    return seconds


def _result_of(past: Past) -> dict[str, Any]:
    result: dict[str, Any] = past.round_.results.get(past.estimate.job, {})
    return result


def _peak_of(result: dict[str, Any]) -> tuple[float, bool] | None:
    if (gb := result.get("peak_gpu_memory_gb")) is not None:
        return gb, True
    return (gb, False) if (gb := result.get("peak_memory_gb")) is not None else None


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
