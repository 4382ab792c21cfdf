"""MLflow, where MLFLOW_TRACKING_URI is set: a run per job in the experiment MLFLOW_EXPERIMENT_NAME ("accord").

The job directory's file mlflow_run.txt has the run's id, by which a resumed job continues it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from training.learner.runtime.trackers import Row, TrackedJob, run_id, samples_text, tracker

MAX_PARAMETER = 500  # characters: the limit of MLflow's databases before version 2.10


@tracker(
    "MLflow",
    is_configured=lambda environment: bool(environment.get("MLFLOW_TRACKING_URI")),
    package="mlflow",
    variables="MLFLOW_TRACKING_URI",
    waits=True,
)
class MlflowRun:
    """The job's run in MLflow."""

    def __init__(self, job: TrackedJob) -> None:
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        self._client, self._metric = MlflowClient(), Metric
        self._last_step: int | None = None  # that the run has from before a resume; None: not asked yet
        self._run = run_id(job.path / "mlflow_run.txt", lambda: self._create(job))
        self._client.update_run(self._run, status="RUNNING")

    def resume_after(self, step: int) -> None:
        # A resumed job computes the same values again: steps that the run has are left out.
        self._last_step = None if step else -1

    def write_metrics(self, step: int, at: float, values: Mapping[str, float]) -> None:
        if self._last_step is None:
            history = self._client.get_metric_history(self._run, next(iter(values)))
            self._last_step = max((point.step for point in history), default=-1)
        if step > self._last_step:
            metrics = [self._metric(name, value, int(at * 1000), step) for name, value in values.items()]
            self._client.log_batch(self._run, metrics=metrics)

    def write_samples(self, step: int, at: float, rows: Sequence[Row]) -> None:
        text = "\n\n---\n\n".join(samples_text(row) for row in rows)
        self._client.log_text(self._run, text, f"samples/step_{step:08d}.md")

    def close(self, is_finished: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if is_finished else "KILLED")

    def _create(self, job: TrackedJob) -> str:
        """Create the run with the settings as its parameters, and return its id."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "accord"
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run = self._client.create_run(number, run_name=job.name, tags={"accord.program": job.program})
        for setting, value in job.settings.items():
            self._client.log_param(run.info.run_id, setting, as_parameter(value))
        return str(run.info.run_id)


def as_parameter(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:MAX_PARAMETER]
