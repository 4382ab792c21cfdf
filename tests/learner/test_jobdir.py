"""The job directory's protocol: files appear complete, and an error is one sentence."""

import json
import os
import signal
import subprocess
import sys

import pytest

from training.learner.runtime.config import SampleConfig
from training.learner.runtime.jobdir import (
    BadInput,
    JobDirectory,
    Stopped,
    StopSignal,
    TrainingFailed,
    finish_replacement,
)
from training.learner.runtime.program import run_program


@pytest.fixture
def job(tmp_path):
    return JobDirectory(tmp_path)


def exit_of(main, monkeypatch, capsys, arguments=("job",)):
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    with pytest.raises(SystemExit) as ended:
        run_program(main, SampleConfig)
    return ended.value.code, capsys.readouterr().err


def test_steps_of_the_metrics_strictly_increase(job):
    job.append_metrics(1, 3, loss=0.5)
    with pytest.raises(ValueError, match="step 1 after"):
        job.append_metrics(1, 3, loss=0.4)
    assert [(line["step"], line["total"], line["loss"]) for line in job.metrics()] == [(1, 3, 0.5)]


def test_a_new_process_continues_after_the_last_metrics(job, tmp_path):
    job.append_metrics(4, 9, loss=1.0)
    with pytest.raises(ValueError):
        JobDirectory(tmp_path).append_metrics(3, 9, loss=1.0)


def test_resuming_drops_later_lines_and_a_half_written_one(job, tmp_path):
    for step in (1, 2, 3):
        job.append_metrics(step, 9, loss=float(step))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "to')
    job.truncate_metrics(2)
    job.append_metrics(3, 9, loss=30.0)
    assert [line["loss"] for line in job.metrics()] == [1.0, 2.0, 30.0]


def test_resuming_drops_later_samples_and_a_step_is_written_once(job, tmp_path):
    row = {"prompt_id": 7, "messages": [], "text": "one\u2028line"}
    for step in (0, 2, 4):
        job.append_samples(step, [row, row])
    with (tmp_path / "samples_at_steps.jsonl").open("a") as file:
        file.write('{"step": 6, "te')
    job.truncate_metrics(2)
    resumed = JobDirectory(tmp_path)
    resumed.append_samples(2, [row])
    resumed.append_samples(4, [row])
    assert resumed.samples_at_steps() == [{"step": step, **row} for step in (0, 0, 2, 2, 4)]


def test_a_result_that_is_not_finite_is_no_success(job):
    with pytest.raises(TrainingFailed, match="kl is nan in the result"):
        job.write_result({"program": "ppo", "reward": 0.5, "kl": float("nan")})
    assert job.result() is None


def test_a_number_that_is_not_finite_is_named(job):
    with pytest.raises(TrainingFailed, match="value_loss is nan at step 7"):
        job.append_metrics(7, 9, value_loss=float("nan"))
    assert job.metrics() == []


def test_a_folder_is_replaced_as_a_whole(job, tmp_path):
    job.save_folder("state", lambda folder: (folder / "a").write_text("old"))
    job.save_folder("state", lambda folder: (folder / "b").write_text("new"))
    assert [file.name for file in job.state.iterdir()] == ["b"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state"]


def test_a_failed_write_leaves_the_old_folder(job):
    job.save_folder("state", lambda folder: (folder / "a").write_text("old"))

    def fail(folder):
        (folder / "a").write_text("half")
        raise OSError("no space left on device")

    with pytest.raises(OSError):
        job.save_folder("state", fail)
    assert (job.state / "a").read_text() == "old"


@pytest.mark.parametrize("present", [("new", "old"), ("state", "new"), ("state", "old")])
def test_a_kill_at_any_moment_of_a_replacement_leaves_a_complete_folder(tmp_path, present):
    for name in present:
        folder = tmp_path / ("state" if name == "state" else f"state.{name}")
        folder.mkdir()
        (folder / "which").write_text(name)
    finish_replacement(tmp_path / "state")
    # "new" counts once "old" was moved away; before that the old state is still in its place
    assert (tmp_path / "state" / "which").read_text() == ("state" if "state" in present else "new")
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_only_rank_0_writes_files(tmp_path):
    other = JobDirectory(tmp_path, is_writer=False)
    other.append_metrics(1, 2, loss=1.0)
    other.save_folder("model", lambda folder: None)
    other.write_result({"program": "x"})
    assert list(tmp_path.iterdir()) == []


def test_a_bad_row_is_named_by_its_line(job, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"a": 1}\n\n[1]\n')
    with pytest.raises(BadInput, match=r"prompts\.jsonl, line 3 must be a JSON object"):
        list(job.rows("prompts.jsonl"))


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_missing_or_broken_config_is_bad_input(job, tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadInput, match=r"config\.json"):
        job.config()


def test_bad_input_is_exit_2_and_one_sentence(monkeypatch, capsys):
    def main(folder):
        raise BadInput("the prompts are\nempty")

    assert exit_of(main, monkeypatch, capsys) == (2, "error: the prompts are empty\n")


def test_a_failed_training_is_exit_1(monkeypatch, capsys):
    def main(folder):
        raise TrainingFailed("the loss is nan at step 3")

    assert exit_of(main, monkeypatch, capsys) == (1, "error: the loss is nan at step 3\n")


def test_a_stop_is_exit_75_and_success_0(monkeypatch, capsys, tmp_path):
    def stopped(folder):
        raise Stopped

    assert exit_of(stopped, monkeypatch, capsys, (str(tmp_path),))[0] == 75
    assert (tmp_path / "stopped").exists()
    assert exit_of(lambda folder: None, monkeypatch, capsys, (str(tmp_path),))[0] == 0


def test_a_missing_job_directory_is_an_error(monkeypatch, capsys, tmp_path):
    assert exit_of(lambda folder: None, monkeypatch, capsys, ())[0] == 2
    code, output = exit_of(lambda folder: JobDirectory(folder) and None, monkeypatch, capsys, (str(tmp_path / "none"),))
    assert code == 2 and "does not exist" in output


def test_sigterm_only_raises_a_flag():
    before = signal.getsignal(signal.SIGTERM)
    try:
        stop = StopSignal()
        assert not stop.received
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.process
def test_the_web_process_can_import_these_without_torch():
    modules = "training.learner.runtime.config, training.learner.runtime.jobdir"
    code = f"import sys, json, {modules}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "numpy", "django"} & set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "\xff"}', "utf-8"),
        (b'{"text": "\\ud83d alone"}', "surrogates"),
        (b'{"text": "\\uD83D"}', "surrogates"),
    ],
)
def test_a_line_that_is_no_text_is_named(job, line, reason):
    (job.path / "prompts.jsonl").write_bytes(b'{"text": "\\ud83d\\ude00 \xc3\xa9"}\n\n' + line + b"\n")
    rows = job.rows("prompts.jsonl")
    assert next(rows) == {"text": "\U0001f600 é"}
    with pytest.raises(BadInput, match=f"prompts.jsonl, line 3 is not JSON: .*{reason}"):
        next(rows)
