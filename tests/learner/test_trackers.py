"""Trackers: one run per job, which a resume continues, and no failure of theirs fails or delays the job."""

import importlib.util
import json
import sys
import threading

import pytest

from tests.learner.worlds.letters import ppo_job
from training.learner import ppo
from training.learner.runtime import trackers
from training.learner.runtime.config import SampleConfig
from training.learner.runtime.jobdir import JobDirectory, Stopped
from training.learner.runtime.program import run_program
from training.learner.runtime.trackers import Registered, TrackedJob, Trackers

SAMPLE = {"prompt_id": 7, "messages": [{"role": "user", "content": "Hi"}], "text": "Hello"}


class Recorder:
    """Tracker that records its calls, and fails in the method that `failing` names."""

    failing = ""

    def __init__(self, job):
        self.calls = []
        Recorder.last = self
        if self.failing == "__init__":
            raise OSError("no\nserver")

    def __getattr__(self, method):
        if method not in ("resume_after", "write_metrics", "write_samples", "close"):
            raise AttributeError(method)

        def call(*arguments):
            self.calls.append((method, *arguments))
            if method == self.failing:
                raise OSError("no server")

        return call


@pytest.fixture(params=[False, True], ids=["inline", "thread"])
def recorder(request, monkeypatch):
    """Recorder as the only tracker, called by the job's thread or by one of its own."""
    kind = type("Recorder", (Recorder,), {})
    entry = Registered(kind, lambda environment: True, "json", "always", request.param)
    monkeypatch.setattr(trackers, "TRACKERS", {"Recorder": entry})
    return kind


def tracked(path):
    return Trackers(TrackedJob(path, "ppo", "a job", {"seed": 3, "rewards": [{"name": "length"}]}))


def test_a_tracker_gets_the_lines_and_samples_in_their_order(recorder, tmp_path):
    job = JobDirectory(tmp_path)
    job.trackers = tracked(tmp_path)
    job.truncate_metrics(0)
    job.append_samples(0, [SAMPLE])
    job.append_metrics(1, 2, loss=0.5)
    job.write_result({"program": "ppo"})
    resumed, samples, line, closed = Recorder.last.calls
    assert resumed == ("resume_after", 0) and closed == ("close", True)
    assert (samples[0], samples[1], samples[3]) == ("write_samples", 0, [SAMPLE])
    assert line == ("write_metrics", 1, job.metrics()[0]["time"], {"loss": 0.5})


@pytest.mark.parametrize("failing", ["__init__", "resume_after", "write_metrics", "write_samples", "close"])
def test_a_tracker_that_fails_is_left_out_with_a_sentence(recorder, tmp_path, capsys, failing):
    recorder.failing = failing
    job = JobDirectory(tmp_path)
    job.trackers = tracked(tmp_path)
    job.truncate_metrics(0)
    for step in (1, 2):
        job.append_samples(step, [SAMPLE])
        job.append_metrics(step, 2, loss=0.5)
    job.write_result({"program": "ppo"})
    assert len(job.metrics()) == 2 and job.result() == {"program": "ppo"}
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 1
    assert printed[0].startswith("Recorder failed, so the job goes on without it: OSError: no server")
    assert [call[0] for call in Recorder.last.calls].count(failing) == (failing != "__init__")


def test_a_tracker_that_hangs_does_not_hold_the_job(monkeypatch, tmp_path, capsys):
    released = threading.Event()
    monkeypatch.setattr(Recorder, "write_metrics", lambda *arguments: released.wait(), raising=False)
    monkeypatch.setattr(trackers, "TRACKERS", {"W": Registered(Recorder, lambda environment: True, "json", "", True)})
    monkeypatch.setattr(trackers, "SECONDS_TO_FINISH", 0.01)
    job = JobDirectory(tmp_path)
    job.trackers = tracked(tmp_path)
    job.append_metrics(1, 2, loss=0.5)
    job.append_metrics(2, 2, loss=0.25)
    job.write_result({"program": "ppo"})
    assert "W failed, so the job goes on without it: it did not end in time" in capsys.readouterr().err
    released.set()


def test_a_tracker_that_is_configured_but_not_installed_is_named_with_its_package(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("wandb", "mlflow") else True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:nowhere")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracked(tmp_path).close(is_finished=False)
    printed = capsys.readouterr().err
    assert "MLflow is configured (MLFLOW_TRACKING_URI), but the package mlflow is not installed" in printed
    assert "Weights & Biases is configured (WANDB_PROJECT or WANDB_MODE)" in printed and "pip install wandb" in printed


@pytest.mark.parametrize(
    ("variables", "configured"),
    [
        ({}, []),
        ({"WANDB_PROJECT": "x"}, ["Weights & Biases"]),
        ({"WANDB_PROJECT": "x", "WANDB_MODE": "disabled"}, []),
        ({"MLFLOW_TRACKING_URI": "file:x"}, ["MLflow"]),
    ],
)
def test_the_environment_configures_them(variables, configured):
    optional = [entry for entry in trackers.TRACKERS.items() if entry[0] != "TensorBoard"]
    assert [name for name, entry in optional if entry.is_configured(variables)] == configured


def test_a_program_that_stops_closes_its_trackers(recorder, tmp_path, monkeypatch):
    def main(path):
        tracked(path).resume_after(0)
        raise Stopped

    monkeypatch.setattr(sys, "argv", ["program", str(tmp_path)])
    with pytest.raises(SystemExit):
        run_program(main, SampleConfig)
    assert Recorder.last.calls == [("resume_after", 0), ("close", False)]


def run_with_a_failure(job, monkeypatch):
    """Run ppo to a failure at step 4, with the state of step 2, and then to its end."""
    checked = ppo.check_rollout

    def check(rollout, step):
        if step == 4:
            raise RuntimeError("the machine fails")
        checked(rollout, step)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(ppo, "check_rollout", check)
        ppo.main(job)
    trackers.close_all(is_finished=False)
    ppo.main(job)
    return JobDirectory(job).metrics()


@pytest.mark.slow
def test_mlflow_has_one_run_of_the_job_with_each_step_once(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="MLflow is optional: pip install mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the small package mlflow-skinny has no database
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlflow'}")
    job = ppo_job(tmp_path / "job", steps=5, batch_episodes=4, epochs=1, save_every=2, eval_prompts=1, eval_every=2)
    lines = run_with_a_failure(job, monkeypatch)
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("accord").experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == "job"
    assert run.data.params["batch_episodes"] == "4" and run.data.tags["accord.program"] == "ppo"
    for name in ("reward", "kl", "cpu_share"):
        points = sorted(client.get_metric_history(run.info.run_id, name), key=lambda point: point.step)
        assert [point.step for point in points] == [1, 2, 3, 4, 5]
        if name != "cpu_share":  # the failed run had another value at step 3
            assert [point.value for point in points] == [line[name] for line in lines]
    files = [file.path for file in client.list_artifacts(run.info.run_id, "samples")]
    assert files == [f"samples/step_{step:08d}.md" for step in (0, 2, 4)]


@pytest.mark.slow
def test_wandb_offline_has_the_lines_under_one_id(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="Weights & Biases is optional: pip install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "accord-test")
    job = ppo_job(tmp_path / "job", steps=5, batch_episodes=4, epochs=1, save_every=2, eval_prompts=1, eval_every=2)
    lines = run_with_a_failure(job, monkeypatch)
    files = sorted((job / "wandb").glob("offline-run-*/run-*.wandb"))
    identity = (job / "wandb_run.txt").read_text()
    assert len(files) == 2 and all(file.name == f"run-{identity}.wandb" for file in files)
    rewards = {}
    for file in files:
        rewards |= rewards_of(file)
    assert rewards == {line["step"]: line["reward"] for line in lines}


def rewards_of(file):
    """Return the metric "reward" by step, from the protocol buffers in a file of W&B."""
    from wandb.proto.wandb_internal_pb2 import Record

    rewards = {}
    for data in leveldb_records(file.read_bytes()[7:], first=7):
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            values = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
            if "reward" in values:
                rewards[values["_step"]] = values["reward"]
    return rewards


def leveldb_records(content, first):
    """Yield the records of a log in LevelDB's format: chunks with a header of 7 bytes, in blocks of 32 KiB.

    first: bytes of the first block before `content`.
    """
    place, parts = 0, b""
    while place + 7 <= len(content):
        left = 32768 - (place + first) % 32768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""
