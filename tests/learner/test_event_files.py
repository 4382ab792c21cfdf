"""TensorBoard's event files, read by TensorBoard's own reader: the metrics and samples of the job, each step once."""

import functools

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.learner.worlds.letters import metrics, ppo_job
from training.learner import ppo
from training.learner.runtime import start
from training.learner.runtime.jobdir import JobDirectory, Stopped
from training.learner.runtime.trackers import TrackedJob, Trackers

PPO = {"steps": 5, "batch_episodes": 4, "epochs": 1, "save_every": 2, "eval_prompts": 2, "eval_every": 2}


def read(folder):
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    return reader


def scalars(folder):
    """Return the points of each tag as (step, value)."""
    reader = read(folder)
    return {tag: [(point.step, point.value) for point in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def texts(folder, tag):
    reader = read(folder)
    assert reader.SummaryMetadata(tag).plugin_data.plugin_name == "text"
    return [(point.step, point.tensor_proto.string_val[0].decode()) for point in reader.Tensors(tag)]


@pytest.fixture(scope="module")
def stopped_and_failed(tmp_path_factory):
    """A run that was stopped after step 1, that failed after step 3 with the state of step 2, and that then ended."""
    job = ppo_job(tmp_path_factory.mktemp("events") / "job", ("a", "b"), **PPO)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "StopSignal", functools.partial(StopAt, 3))
        with pytest.raises(Stopped):
            ppo.main(job)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ppo, "check_rollout", fail_at(4))
        with pytest.raises(RuntimeError, match="step 4"):
            ppo.main(job)
    before = JobDirectory(job).metrics()
    ppo.main(job)
    return job, before


class StopAt:
    """SIGTERM comes before the read-th time that the program looks."""

    def __init__(self, read):
        self.left = read

    @property
    def received(self):
        self.left -= 1
        return self.left <= 0


def fail_at(failing_step):
    def check(rollout, step):
        if step == failing_step:
            raise RuntimeError(f"step {step}")

    return check


@pytest.mark.slow
def test_the_scalars_are_those_of_the_metrics_each_step_once(stopped_and_failed):
    job, before = stopped_and_failed
    assert [line["step"] for line in before] == [1, 2, 3], "step 3 is computed again"
    assert len(list(job.glob("events.out.tfevents.*"))) == 3
    expected = {}
    for line in metrics(job):
        for name, value in line.items():
            if name not in ("step", "total", "time"):
                expected.setdefault(name, []).append((line["step"], pytest.approx(value, rel=1e-6, abs=1e-12)))
    assert {"reward", "kl", "tokens_per_second", "cpu_share", "memory_gb"} <= expected.keys()
    assert scalars(job) == expected


@pytest.mark.slow
def test_the_samples_are_texts_at_their_steps(stopped_and_failed):
    job, _ = stopped_and_failed
    rows = [row for row in JobDirectory(job).samples_at_steps() if row["prompt_id"] == 0]
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert texts(job, "samples/1") == [(row["step"], f"**user:** a\n\n**assistant:** {row['text']}") for row in rows]


def test_each_line_is_in_the_file_before_the_next_step(tmp_path):
    trackers = Trackers(TrackedJob(tmp_path, "ppo", "job", {}))
    trackers.resume_after(0)
    for step in (1, 2):
        trackers.write_metrics(step, 1000.0 + step, {"loss": step / 4})
        assert scalars(tmp_path)["loss"][-1] == (step, step / 4)
    trackers.close(is_finished=True)
