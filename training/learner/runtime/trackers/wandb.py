"""Weights & Biases, where WANDB_PROJECT is set, or WANDB_MODE is "offline" or "online": a run per job.

Its own variables configure it, such as WANDB_API_KEY, WANDB_ENTITY, WANDB_MODE and WANDB_DIR (the job directory unless
set). The job directory's file wandb_run.txt has the run's id. A resumed job continues that run; offline it makes one
more folder with the same id, which `wandb sync --append` adds to the first.
"""

import os
import uuid
from collections.abc import Mapping, Sequence

from training.learner.runtime.trackers import Row, TrackedJob, run_id, samples_text, tracker


def is_configured(environment: Mapping[str, str]) -> bool:
    if environment.get("WANDB_MODE") == "disabled":
        return False
    return bool(environment.get("WANDB_PROJECT")) or environment.get("WANDB_MODE") in ("offline", "online")


@tracker(
    "Weights & Biases",
    is_configured=is_configured,
    package="wandb",
    variables="WANDB_PROJECT or WANDB_MODE",
    waits=True,
)
class WandbRun:
    """The job's run in Weights & Biases."""

    def __init__(self, job: TrackedJob) -> None:
        import wandb

        self._table = wandb.Table
        self._run = wandb.init(
            dir=os.environ.get("WANDB_DIR") or str(job.path),
            project=os.environ.get("WANDB_PROJECT") or "accord",
            id=run_id(job.path / "wandb_run.txt", lambda: uuid.uuid4().hex[:12]),
            name=job.name,
            job_type=job.program,
            config=dict(job.settings),
            resume="allow",
            # log.txt has the output, and the metrics have figures of the machine.
            settings=wandb.Settings(console="off", silent=True, disable_git=True, x_disable_stats=True),
        )

    def resume_after(self, step: int) -> None:
        """Do nothing: W&B ignores steps that the run has, and a resumed job computes the same values again."""

    def write_metrics(self, step: int, at: float, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def write_samples(self, step: int, at: float, rows: Sequence[Row]) -> None:
        data = [[str(row.get("prompt_id")), samples_text(row)] for row in rows]
        self._run.log({"samples": self._table(columns=["prompt", "sample"], data=data)}, step=step)

    def close(self, is_finished: bool) -> None:
        self._run.finish(exit_code=0 if is_finished else 75)
