"""A run that is stopped and resumed ends in the same bits as one that is not; two processes end where one does."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.learner.worlds.evaluated import ensemble_folder, evaluate_job
from tests.learner.worlds.labelled import kto_job, label_rows
from tests.learner.worlds.letters import LETTERS, on_reward_model, policy_folder, ppo_job
from tests.learner.worlds.logged import q_job
from tests.learner.worlds.picked import best_of_n_job
from tests.learner.worlds.spoken import DIALOGUE, LETTERS_PROMPT, OTHER, spoken
from tests.learner.worlds.truncated import SCRIPT
from tests.learner.worlds.two_processes import run_on_two
from tests.learner.worlds.words import ranking_rows, reward_job
from training.learner import best_of_n, dpo, evaluate, kto, ppo, q, sample, sft
from training.learner.runtime import machine, start
from training.learner.runtime.jobdir import BadInput, JobDirectory, Stopped

ROOT = Path(__file__).parents[2]
PATIENCE = 500  # seconds until a waiting test fails; no speed is tested
PROMPTS = ("a", "b", "c")
PPO = {"steps": 3, "batch_episodes": 12, "epochs": 2, "minibatches": 2, "learning_rate": 0.01, "save_every": 2,
       "kl_target": 0.05, "kl_horizon": 60, "eval_prompts": 2, "eval_every": 2}  # fmt: skip
Q = {"value_epochs": 2, "policy_epochs": 1, "batch_completions": 24, "count": 24, "save_every": 2, "target_decay": 0.5,
     "learning_rate": 0.01, "eval_prompts": 2}  # fmt: skip
BEST_OF_N = {"iterations": 2, "completions_per_prompt": 3, "prompts_per_iteration": 8, "sampling_prompts": 4,
             "epochs": 2, "batch_completions": 4, "learning_rate": 0.01, "threshold": "quantile", "save_every": 2,
             "eval_prompts": 2}  # fmt: skip
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}


def outcome(job):
    """Return everything that must be equal: weights, metrics, result; not times."""
    lines = [without_times(line) for line in JobDirectory(job).metrics()]
    weights = load_file(job / "model" / "model.safetensors") if (job / "model").exists() else {}
    for file in (job / "critic").glob("*.safetensors"):
        weights |= {f"critic {name}": weight for name, weight in load_file(file).items()}
    if (job / "critic" / "config.json").exists():
        weights["critic bias"] = torch.tensor(-json.loads((job / "critic" / "config.json").read_text())["reward_shift"])
    names = ("samples.jsonl", "completions.jsonl", "samples_at_steps.jsonl")
    texts = [(job / name).read_text() for name in names if (job / name).exists()]
    return (
        lines,
        {name: weight.numpy().tobytes() for name, weight in weights.items()},
        texts,
        without_times(JobDirectory(job).result()),
    )


def without_times(values):
    timed = ("time", "seconds", "episodes_per_second", *machine.FIGURES, *machine.PEAKS)
    return {name: value for name, value in values.items() if not name.startswith(timed)}


def stop_at(monkeypatch, read):
    """SIGTERM comes before the read-th time that the program looks."""

    class Stop:
        reads = 0

        @property
        def received(self):
            Stop.reads += 1
            return Stop.reads >= read

    monkeypatch.setattr(start, "StopSignal", Stop)


def run_with_stops(monkeypatch, module, job, read):
    """Stopped first at the program's `read`-th look, then at every third, until the end; gives the number of stops."""
    stops = 0
    while JobDirectory(job).result() is None:
        stop_at(monkeypatch, 3 if stops else read)
        try:
            module.main(job)
        except Stopped:
            stops += 1
    return stops


def demonstrations(job):
    job.mkdir()
    rows = [{"messages": [{"role": "user", "content": LETTERS[1 + i % 4]}], "completion": " ".join("abcd"[: 1 + i % 3])}
            for i in range(12)]  # fmt: skip
    rows[0] = {"messages": LETTERS_PROMPT, "turns": DIALOGUE}
    (job / "demonstrations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"architecture": {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32,
                               "num_hidden_layers": 1, "num_attention_heads": 2},
              "vocabulary_size": 270, "batch_tokens": 25, "epochs": 2, "save_every": 2}  # fmt: skip
    (job / "config.json").write_text(json.dumps(config))
    return job


def prompts_to_sample(job):
    job.mkdir()
    rows = [{"prompt_id": i, "messages": [{"role": "user", "content": text}]} for i, text in enumerate(PROMPTS)]
    (job / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    policy_folder(job.parent / "policy")
    config = {"model": str(job.parent / "policy"), "completions_per_prompt": 5, "batch_completions": 4,
              "max_completion_tokens": 6}  # fmt: skip
    (job / "config.json").write_text(json.dumps(config))
    return job


def prompts_to_evaluate(job):
    if not (job.parent / "reward").exists():
        ensemble_folder(job.parent / "reward")
    return evaluate_job(job, completions_per_prompt=5, batch_completions=4, reward_model=str(job.parent / "reward"))


def with_demonstrations(job):
    rows = [
        {"messages": [{"role": "user", "content": "a"}], "completion": " ".join("bcd"[: 1 + i % 3])} for i in range(5)
    ]
    (job / "demonstrations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return job


def truncated_dialogues(job):
    if not (job.parent / "policy").exists():
        policy_folder(job.parent / "policy", max_position_embeddings=5)
    return ppo_job(job, PROMPTS, **PPO, environment=SCRIPT, max_completion_tokens=2, algorithm="reinforce",
                   baseline_decay=0.9)  # fmt: skip


def rankings_for_dpo(job, **settings):
    rows = ranking_rows(9, completions=3, held_out=3)
    rows[0]["turns"] = [spoken("no", "wait", "never"), None, None]
    return reward_job(job, rows, epochs=2, batch_rankings=3, save_every=2, eval_prompts=2, max_completion_tokens=40,
                      learning_rate=0.01, **settings)  # fmt: skip


def labels_for_kto():
    dialogues = [{"messages": LETTERS_PROMPT, "turns": one, "desirable": one is OTHER} for one in (DIALOGUE, OTHER)]
    return label_rows(8, held_out="d") + dialogues


def logged_dialogues():
    message = {"messages": LETTERS_PROMPT}
    return [
        {**message, "turns": spoken(one, "d", two), "reward": float(i), "truncated": i == 2}
        for i, (one, two) in enumerate(["bc", "cb", "cd"])
    ]


JOBS = {
    "ppo": (ppo, lambda folder: ppo_job(folder, PROMPTS, **PPO, keep_critic=True)),
    "rloo": (ppo, lambda folder: ppo_job(folder, PROMPTS, **PPO, algorithm="rloo", completions_per_prompt=4)),
    "shared critic": (ppo, lambda folder: ppo_job(folder, PROMPTS, **PPO, critic="shared", keep_critic=True)),
    "moving baseline": (ppo, lambda folder: ppo_job(folder, PROMPTS, **PPO, algorithm="reinforce", baseline_decay=0.9)),
    "moving baseline with truncated dialogues": (ppo, truncated_dialogues),
    "reward head": (ppo, lambda folder: ppo_job(folder, PROMPTS, **PPO, **on_reward_model(folder.parent))),
    "ptx": (ppo, lambda folder: with_demonstrations(ppo_job(folder, PROMPTS, **PPO, ptx_coefficient=0.5))),
    "lora": (ppo, lambda folder: ppo_job(folder, PROMPTS, **PPO, lora_rank=2)),
    "sft": (sft, demonstrations),
    "kto": (kto, lambda folder: kto_job(folder, labels_for_kto(), epochs=5, batch_labels=9, save_every=2)),
    "q": (q, lambda folder: q_job(folder, **Q)),
    "q with dialogues": (
        q,
        lambda folder: q_job(folder, logged_dialogues(), **Q | {"value_epochs": 4, "policy_epochs": 2}),
    ),
    "q with lora": (q, lambda folder: q_job(folder, **Q, lora_rank=2)),
    "best of n": (best_of_n, lambda folder: best_of_n_job(folder, PROMPTS, **BEST_OF_N)),
    "best of n with lora": (best_of_n, lambda folder: best_of_n_job(folder, PROMPTS, **BEST_OF_N, lora_rank=2)),
    "sample": (sample, prompts_to_sample),
    "evaluate": (evaluate, prompts_to_evaluate),
    "dpo": (dpo, rankings_for_dpo),
    "dpo on whole rankings": (dpo, lambda folder: rankings_for_dpo(folder, loss="plackett_luce", lora_rank=2)),
}
# Combinations of parts that the states of other programs have, too.
VARIANTS = {"rloo", "moving baseline with truncated dialogues", "reward head", "q with dialogues", "q with lora",
            "best of n with lora", "dpo"}  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted_outcome(tmp_path_factory):
    """A function from a program of JOBS to the outcome of its run without a stop, which is made once."""

    @functools.cache
    def outcome_of(program):
        module, make = JOBS[program]
        job = make(tmp_path_factory.mktemp("straight") / "job")
        module.main(job)
        return outcome(job)

    return outcome_of


@pytest.mark.slow
@pytest.mark.parametrize(
    "program", [pytest.param(name, marks=pytest.mark.full if name in VARIANTS else ()) for name in JOBS]
)
@pytest.mark.parametrize("read", [pytest.param(1, marks=pytest.mark.full), 2, pytest.param(3, marks=pytest.mark.full)])
def test_stopped_at_any_moment_and_resumed_it_is_the_same_to_the_bit(
    tmp_path, monkeypatch, uninterrupted_outcome, program, read
):
    module, make = JOBS[program]
    stopped, expected = make(tmp_path / "stopped"), uninterrupted_outcome(program)
    assert run_with_stops(monkeypatch, module, stopped, read) >= 1
    assert outcome(stopped) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [
        "sft",
        "q",
        *(pytest.param(name, marks=pytest.mark.full) for name in ("kto", "q with lora", "dpo on whole rankings")),
    ],
)
def test_samples_at_fixed_prompts_change_nothing_that_is_learned(tmp_path, uninterrupted_outcome, program):
    module, make = JOBS[program]
    job = make(tmp_path / "job")
    config = json.loads((job / "config.json").read_text())
    (job / "config.json").write_text(json.dumps(config | {"eval_samples": 0}))
    module.main(job)
    lines, weights, texts, result = uninterrupted_outcome(program)
    assert outcome(job) == (lines, weights, texts[:-1], result)
    rows = [json.loads(line) for line in texts[-1].split("\n") if line]
    prompts = {step: [row["messages"] for row in rows if row["step"] == step] for step in {row["step"] for row in rows}}
    assert min(prompts) == 0 and max(prompts) == lines[-1]["step"] and len(prompts) >= 3
    assert all(same == prompts[0] for same in prompts.values()) and 1 <= len(prompts[0]) <= 4
    assert all(isinstance(row["text"], str) for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"lora_rank": 2}, {"critic": "shared"}, None], ids=["lora", "critic", "damaged"])
def test_a_state_that_does_not_fit_is_refused_in_a_sentence(tmp_path, monkeypatch, changes):
    job = ppo_job(tmp_path / "job", PROMPTS, **PPO)
    stop_at(monkeypatch, 2)
    with pytest.raises(Stopped):
        ppo.main(job)
    if changes:
        ppo_job(job, PROMPTS, **PPO | changes)
    else:
        file = job / "state" / "training.pt"
        file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(BadInput, match="state is damaged or was saved with other settings"):
        ppo.main(job)


@pytest.mark.slow
def test_samples_are_not_resumed_in_other_batches_where_some_would_be_left_out(tmp_path, monkeypatch):
    job = prompts_to_sample(tmp_path / "job")
    stop_at(monkeypatch, 3)
    with pytest.raises(Stopped):
        sample.main(job)
    config = json.loads((job / "config.json").read_text())
    (job / "config.json").write_text(json.dumps(config | {"batch_completions": 8}))
    with pytest.raises(BadInput, match="state was saved with other settings or prompts"):
        sample.main(job)


@pytest.mark.slow
def test_a_finished_job_does_nothing_when_run_again(tmp_path):
    job = prompts_to_sample(tmp_path / "job")
    sample.main(job)
    before = {file: file.stat().st_mtime_ns for file in job.rglob("*")}
    sample.main(job)
    assert {file: file.stat().st_mtime_ns for file in job.rglob("*")} == before


def launch(job, *launcher, **environment):
    command = [sys.executable, *launcher, "-m", "training.learner.ppo", str(job)]
    return subprocess.Popen(
        command, env=ENVIRONMENT | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_while_it_runs(process, happened):
    """Wait until something happened. Raises AssertionError when the program ends before."""
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


@pytest.mark.process
def test_sigterm_finishes_the_step_exits_75_and_the_job_can_be_resumed(tmp_path):
    options = PPO | {"steps": 6, "eval_prompts": 0}
    straight, stopped = (ppo_job(tmp_path / name, PROMPTS, **options) for name in ("straight", "stopped"))
    config = json.loads((stopped / "config.json").read_text())
    waits = config | {"rewards": [{"name": "python", "function": "tests.learner.worlds.letters:reward_that_waits"}]}
    (stopped / "config.json").write_text(json.dumps(waits))
    process = launch(stopped, ACCORD_TEST_HOLD=str(tmp_path))
    wait_while_it_runs(process, (tmp_path / "waits").exists)
    process.send_signal(signal.SIGTERM)  # in the middle of a step
    (tmp_path / "go").touch()
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 75 and (stopped / "stopped").exists(), output
    assert 1 <= JobDirectory(stopped).metrics()[-1]["step"] < 6 and JobDirectory(stopped).result() is None
    (stopped / "config.json").write_text(json.dumps(config))
    ppo.main(stopped)
    ppo.main(straight)
    assert outcome(stopped) == outcome(straight)


def assert_close_results(one, two, start=None):
    """Two results of the same work, their sums taken in another order.

    The key's bias is left out: it adds the same to all logits of a query, so its gradient is 0 but for rounding, which
    Adam with a small ε scales up to whole steps.
    """
    ours, theirs = (load_file(job / "model" / "model.safetensors") for job in (one, two))
    moved = 1.0 if start is None else max(float((ours[name] - start[name]).abs().max()) for name in ours)
    for name, weight in ours.items():
        if name.endswith("c_attn.bias"):  # of GPT-2: query, key and value one after the other
            for part, other in zip(weight.chunk(3)[::2], theirs[name].chunk(3)[::2], strict=True):
                torch.testing.assert_close(other, part, atol=moved * 1e-3, rtol=0)
            continue
        torch.testing.assert_close(theirs[name], weight, atol=moved * 1e-3, rtol=0)
    for line, other in zip(JobDirectory(one).metrics(), JobDirectory(two).metrics(), strict=True):
        assert without_times(other) == pytest.approx(without_times(line), rel=1e-3, abs=1e-5)


@pytest.mark.process
def test_two_processes_learn_the_same_as_one(tmp_path):
    one, two = (ppo_job(tmp_path / name, PROMPTS, **PPO) for name in ("one", "two"))
    run_on_two(ppo.main, two)
    ppo.main(one)
    assert [JobDirectory(job).result()["processes"] for job in (one, two)] == [1, 2]
    assert_close_results(one, two, load_file(tmp_path / "policy" / "model.safetensors"))


@pytest.mark.process
def test_two_processes_imitate_the_same_as_one(tmp_path):
    one, two = (demonstrations(tmp_path / name) for name in ("one", "two"))
    run_on_two(sft.main, two)
    sft.main(one)
    assert JobDirectory(two).result()["processes"] == 2
    assert_close_results(one, two)


@pytest.mark.full
@pytest.mark.process
def test_two_processes_learn_the_same_values_as_one(tmp_path):
    one, two = (q_job(tmp_path / name, **Q) for name in ("one", "two"))
    run_on_two(q.main, two)
    q.main(one)
    assert_close_results(one, two, load_file(tmp_path / "policy" / "model.safetensors"))


@pytest.mark.full
@pytest.mark.process
def test_two_processes_pick_and_imitate_the_same_as_one(tmp_path):
    one, two = (best_of_n_job(tmp_path / name, PROMPTS, **BEST_OF_N) for name in ("one", "two"))
    run_on_two(best_of_n.main, two)
    best_of_n.main(one)
    assert (one / "picks.jsonl").read_text() == (two / "picks.jsonl").read_text()
    assert_close_results(one, two, load_file(tmp_path / "policy" / "model.safetensors"))


@pytest.mark.process
def test_two_processes_do_not_hang_when_one_has_an_empty_share(tmp_path):
    """One demonstration a step, one completion a batch: the second process has a share of nothing."""
    job = demonstrations(tmp_path / "sft")
    (job / "config.json").write_text(json.dumps(json.loads((job / "config.json").read_text()) | {"batch_tokens": 1}))
    run_on_two(sft.main, job)
    assert len(JobDirectory(job).metrics()) == 24
    batch = {"batch_episodes": 1, "completions_per_prompt": 1, "minibatches": 1, "steps": 2, "eval_prompts": 1}
    run_on_two(ppo.main, ppo_job(tmp_path / "ppo", PROMPTS, **PPO | batch))
    assert len(JobDirectory(tmp_path / "ppo").metrics()) == 2


@pytest.mark.process
def test_two_processes_write_the_same_samples_as_one(tmp_path):
    one, two = (prompts_to_sample(tmp_path / name) for name in ("one", "two"))
    run_on_two(sample.main, two)
    sample.main(one)
    assert (one / "samples.jsonl").read_text() == (two / "samples.jsonl").read_text()
    assert JobDirectory(two).result()["processes"] == 2


@pytest.mark.process
def test_two_processes_evaluate_the_same_as_one(tmp_path):
    one, two = (prompts_to_evaluate(tmp_path / name) for name in ("one", "two"))
    run_on_two(evaluate.main, two)
    evaluate.main(one)
    rows = [list(JobDirectory(job).rows("completions.jsonl")) for job in (one, two)]
    assert [row["text"] for row in rows[0]] == [row["text"] for row in rows[1]]
    results = [JobDirectory(job).result()["metrics"] for job in (one, two)]
    values, others = ({name: figure["value"] for name, figure in result.items()} for result in results)
    assert others == pytest.approx(values, rel=1e-5, abs=1e-6)
    assert JobDirectory(two).result()["processes"] == 2


@pytest.mark.full
@pytest.mark.process
def test_a_file_marks_a_stop_because_launchers_hide_the_exit_status(tmp_path):
    options = PPO | {"steps": 4000, "eval_prompts": 0}
    job = ppo_job(tmp_path / "job", PROMPTS, **options)
    process = launch(job, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
                     "--num_machines", "1", "--main_process_port", "0", "--mixed_precision", "no",
                     "--dynamo_backend", "no")  # fmt: skip
    wait_while_it_runs(process, lambda: len(JobDirectory(job, is_writer=False).metrics()) >= 2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode not in (0, 75) and output.count("stopped: the state is saved") == 2, output
    assert (job / "stopped").exists() and JobDirectory(job).state is not None
