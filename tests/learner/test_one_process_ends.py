"""Two processes, of which one has no work, gets a stop signal, or fails: the other does not wait forever."""

import json
import os
import time
from types import SimpleNamespace

import pytest
import torch

from tests.learner.worlds import letters
from tests.learner.worlds.letters import PROMPTS, metrics, policy_folder, ppo_job
from tests.learner.worlds.two_processes import ends_of_two, run_on_two
from tests.learner.worlds.words import ranking_rows, reward_job
from training.learner import ppo, reward, sample
from training.learner.runtime import jobdir, start
from training.learner.runtime.jobdir import EXIT_STOPPED, JobDirectory, Stopped

OPTIONS = {"steps": 6, "batch_episodes": 8, "epochs": 1, "save_every": 2}


@pytest.mark.process
def test_a_reward_model_of_one_ranking_is_learned_by_two_processes_as_by_one(tmp_path):
    options = {"learning_rate": 3e-3, "epochs": 2, "batch_rankings": 1, "ensemble_heads": 2, "contrast": 0}
    one, two = (reward_job(tmp_path / name, ranking_rows(1), **options) for name in ("one", "two"))
    run_on_two(reward.main, two)
    reward.main(one)
    losses = [[line["loss"] for line in metrics(job)] for job in (one, two)]
    assert len(losses[0]) == 2 and torch.allclose(*map(torch.tensor, losses), atol=1e-5)


@pytest.mark.process
def test_one_prompt_is_sampled_by_two_processes(tmp_path):
    job = tmp_path / "job"
    job.mkdir()
    policy_folder(tmp_path / "policy")
    (job / "prompts.jsonl").write_text('{"prompt_id": 1, "messages": [{"role": "user", "content": "a"}]}\n')
    (job / "config.json").write_text(json.dumps({"model": str(tmp_path / "policy"), "max_completion_tokens": 4}))
    run_on_two(sample.main, job)
    assert JobDirectory(job).result()["samples"] == 1


def until_stopped(job):
    try:
        ppo.main(job)
    except Stopped:
        os._exit(EXIT_STOPPED)


@pytest.mark.full
@pytest.mark.process
def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step(tmp_path, monkeypatch):
    job = ppo_job(tmp_path / "job", PROMPTS, **OPTIONS | {"save_every": 50})

    class Stop:
        reads = 0

        @property
        def received(self):
            Stop.reads += 1
            return os.environ.get("RANK") == "1" and Stop.reads >= 4  # after step 2

    monkeypatch.setattr(start, "StopSignal", Stop)
    assert ends_of_two(until_stopped, job) == [EXIT_STOPPED, EXIT_STOPPED]
    assert [line["step"] for line in metrics(job)] == [1, 2] and JobDirectory(job).state is not None
    monkeypatch.undo()
    run_on_two(ppo.main, job)
    assert [line["step"] for line in metrics(job)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.process
def test_a_failed_process_ends_the_other_and_the_job_resumes_from_its_last_state(tmp_path, monkeypatch):
    job, sound, calls = ppo_job(tmp_path / "job", PROMPTS, **OPTIONS), letters.reward, []

    def fail_once(answers):
        calls.append(1)
        if os.environ.get("RANK") == "1" and len(calls) == 4:
            raise RuntimeError("the judge of this process does not answer")
        return sound(answers)

    monkeypatch.setattr(letters, "reward", fail_once)
    assert ends_of_two(ppo.main, job) == [1, 1]  # and none by the alarm
    assert JobDirectory(job).result() is None and JobDirectory(job).state is not None
    monkeypatch.undo()
    run_on_two(ppo.main, job)
    assert [line["step"] for line in metrics(job)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.full
@pytest.mark.process
def test_both_processes_find_a_state_whose_replacement_was_interrupted(tmp_path, monkeypatch):
    """A kill between two renames: one process completes them, and the other must not look before."""
    options = {"learning_rate": 3e-3, "epochs": 3, "batch_rankings": 2, "ensemble_heads": 2}
    one, two = (reward_job(tmp_path / name, ranking_rows(4), **options) for name in ("one", "two"))
    reward.main(one)
    with monkeypatch.context() as stopping:
        stopping.setattr(start, "StopSignal", lambda: SimpleNamespace(received=True))
        with pytest.raises(Stopped):
            reward.main(two)
    (two / "state").rename(two / "state.new")
    (two / "state.old").mkdir()
    complete = jobdir.finish_replacement
    monkeypatch.setattr(jobdir, "finish_replacement", lambda folder: (time.sleep(0.5), complete(folder)))
    run_on_two(reward.main, two)
    losses = [[line["loss"] for line in metrics(job)] for job in (one, two)]
    assert len(losses[0]) == 6 and torch.allclose(*map(torch.tensor, losses), atol=1e-5)
