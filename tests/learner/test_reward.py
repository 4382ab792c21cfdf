"""Whole runs of the reward program: learning, stopping, resuming, two processes, and the report."""

import itertools
import json
import math
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.forks import Forked
from tests.learner.worlds.two_processes import run_on_two
from tests.learner.worlds.words import ranking_rows, reward_job
from training.learner import reward
from training.learner.models.reward_model import load_reward_model, score
from training.learner.runtime import start
from training.learner.runtime.config import RewardConfig
from training.learner.runtime.jobdir import EXIT_BAD_INPUT, EXIT_STOPPED, BadInput, Stopped, TrainingFailed
from training.learner.runtime.machine import FIGURES, PEAKS
from training.learner.runtime.program import run_program

pytestmark = pytest.mark.slow

QUICK = {"learning_rate": 3e-3, "epochs": 2, "batch_rankings": 8, "ensemble_heads": 3}


class StopAfter:
    """A stop signal that comes in the given step."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    @property
    def received(self) -> bool:
        self.steps -= 1
        return self.steps <= 0


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_times(lines: list[dict]) -> list[dict]:
    return [{name: value for name, value in line.items() if name not in ("time", *FIGURES)} for line in lines]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors") | load_file(folder / "model" / "ensemble.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = reward_job(
        tmp_path_factory.mktemp("reward") / "job", ranking_rows(90, held_out=30), **QUICK | {"epochs": 6}
    )
    reward.main(folder)
    return folder


def test_it_learns_to_order_held_out_rankings(finished):
    found = result(finished)
    assert found["program"] == "reward"
    assert found["steps"] == 6 * round(60 / 8)
    assert found["held_out_accuracy"] > 0.8
    assert found["held_out_accuracy_low"] < found["held_out_accuracy"] <= found["held_out_accuracy_high"] <= 1
    assert found["train_loss"] < metrics(finished)[0]["loss"]
    assert metrics(finished)[0]["accuracy"] == 0.5


def test_its_model_prefers_the_good_words_in_plain_transformers(finished):
    model = AutoModelForSequenceClassification.from_pretrained(finished / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(finished / "model")
    end = tokenizer.eos_token_id
    sequences = [
        [*tokenizer("User:\norder\n\nAssistant:\n" + text).input_ids, end] for text in ("thanks help", "no bye")
    ]
    with torch.no_grad():
        good, bad = (model(torch.tensor([sequence])).logits[0, 0].item() for sequence in sequences)
    assert good > bad
    ours, _ = load_reward_model(str(finished / "model"))
    expected = [(raw - ours.shift) / ours.scale for raw in (good, bad)]
    assert score(ours, sequences).tolist() == pytest.approx(expected, abs=1e-4)


def test_it_reports_calibration_ties_and_length(finished):
    found = result(finished)
    for name in ("brier_score", "expected_calibration_error", "accuracy_longer_preferred", "accuracy_of_length_alone"):
        assert 0 <= found[name] <= 1, name
    assert found["fitted_temperature"] > 0
    assert found["held_out_tie_share"] == pytest.approx(found["held_out_tie_share_predicted"], abs=0.1)
    assert found["annotator_agreement"] is None
    assert all(value is None or type(value) in (int, float, str) for value in found.values())


def test_it_scores_held_out_rankings_as_its_model_does(finished):
    rows = [json.loads(line) for line in (finished / "rankings.jsonl").read_text().splitlines()]
    lines = [json.loads(line) for line in (finished / "scored_rankings.jsonl").read_text().splitlines()]
    has_order = [len(set(row["ranks"])) > 1 for row in rows]
    trained = [row["messages"] for row in rows[:60]]
    used = [number for number, row in enumerate(rows) if number < 60 or row["messages"] not in trained]
    assert [line["row"] - 1 for line in lines if "surprise" in line] == [number for number in used if has_order[number]]
    assert [line["row"] - 1 for line in lines if "scores" in line] == [number for number in used if number >= 60]
    line, found = lines[-1], result(finished)
    assert found["surprise_rankings"] == sum(has_order[number] for number in used)
    model, tokenizer = load_reward_model(str(finished / "model"))
    end, row = tokenizer.eos_token_id, rows[line["row"] - 1]
    prompt = f"User:\n{row['messages'][0]['content']}\n\nAssistant:\n"
    scores = score(model, [[*tokenizer(prompt + text).input_ids, end] for text in row["completions"]])
    assert line["scores"] == pytest.approx(scores.tolist(), abs=1e-4)
    # Rao and Kupper 1967, π = exp(raw score): the odds of i over j, and the probability of a tie
    tie = found["tie_share"]
    theta = (1 + tie) / (1 - tie)
    strength = [math.exp(one * model.scale) for one in line["scores"]]
    pairs = list(itertools.combinations(strength, 2))
    odds = [math.log(i / (i + theta * j)) - math.log(j / (j + theta * i)) for i, j in pairs]
    assert line["log_odds"] == pytest.approx(odds, abs=1e-3)
    ties = [(theta**2 - 1) * i * j / (i + theta * j) / (j + theta * i) for i, j in pairs]
    assert line["ties"] == pytest.approx(ties, abs=1e-4)


def test_a_finished_job_is_not_changed(finished):
    before = (finished / "result.json").stat().st_mtime_ns
    reward.main(finished)
    assert (finished / "result.json").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop_at", "runs"),
    [pytest.param(1, 1, marks=pytest.mark.full), (3, 1), (6, 2), pytest.param(7, 2, marks=pytest.mark.full)],
)
def test_a_run_stopped_and_resumed_ends_in_the_same_bits(tmp_path, monkeypatch, stop_at, runs):
    rows, quick = ranking_rows(30, held_out=6), QUICK | {"eval_every": 2, "averaged_runs": runs}
    whole, parts = reward_job(tmp_path / "whole", rows, **quick), reward_job(tmp_path / "parts", rows, **quick)
    reward.main(whole)
    monkeypatch.setattr(start, "StopSignal", lambda: StopAfter(stop_at))
    with pytest.raises(Stopped):
        reward.main(parts)
    assert len(metrics(parts)) == stop_at
    assert not (parts / "result.json").exists()
    monkeypatch.setattr(start, "StopSignal", lambda: StopAfter(10**9))
    reward.main(parts)
    assert without_times(metrics(parts)) == without_times(metrics(whole))
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(parts)[name]), name
    assert (parts / "scored_rankings.jsonl").read_bytes() == (whole / "scored_rankings.jsonl").read_bytes()
    ignored = {"seconds", *PEAKS}
    assert {k: v for k, v in result(parts).items() if k not in ignored} == {
        k: v for k, v in result(whole).items() if k not in ignored
    }


def test_averaged_runs_start_from_the_same_weights_in_different_orders(tmp_path):
    folder = reward_job(tmp_path / "job", ranking_rows(30, held_out=6), **QUICK | {"averaged_runs": 2})
    reward.main(folder)
    lines = metrics(folder)
    first, second = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    assert len(first) == len(second) == 6
    assert second[0]["accuracy"] == first[0]["accuracy"] == 0.5
    assert [line["learning_rate"] for line in first] == [line["learning_rate"] for line in second]
    assert first[1]["loss"] != second[1]["loss"]


def test_a_step_after_the_last_state_is_done_again_and_its_metrics_replaced(tmp_path, monkeypatch):
    folder = reward_job(tmp_path / "job", ranking_rows(30, held_out=6), **QUICK, save_every=2)
    monkeypatch.setattr(reward, "take_step", _killed_at(5, reward.take_step))
    with pytest.raises(KeyboardInterrupt):
        reward.main(folder)
    assert metrics(folder)[-1]["step"] == 4
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "total": 6, "time": 0, "loss": 99.0}\n')
    monkeypatch.undo()
    reward.main(folder)
    assert [line["step"] for line in metrics(folder)] == list(range(1, 7))
    assert all(line["loss"] < 5 for line in metrics(folder))


def _killed_at(step, take_step):
    def take(optimizer, parameters, rate, norm, number):
        if number == step:
            raise KeyboardInterrupt
        return take_step(optimizer, parameters, rate, norm, number)

    return take


def test_scores_are_normalised_on_the_reference_samples_that_are_given(tmp_path):
    folder = reward_job(tmp_path / "job", ranking_rows(20, held_out=5), **QUICK)
    texts = ["thanks help", "no bye", "wait soon", "never never never"]
    samples = [{"messages": [{"role": "user", "content": "order"}], "text": text, "ended": True} for text in texts]
    (folder / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    reward.main(folder)
    model, tokenizer = load_reward_model(str(folder / "model"))
    prompt = tokenizer("User:\norder\n\nAssistant:\n").input_ids
    scores = score(model, [[*prompt, *tokenizer(text).input_ids, tokenizer.eos_token_id] for text in texts])
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)
    assert scores.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_without_held_out_rankings_there_is_no_accuracy_to_report(tmp_path):
    folder = reward_job(tmp_path / "job", ranking_rows(10), **QUICK)
    reward.main(folder)
    assert result(folder)["held_out_accuracy"] is None
    assert result(folder)["held_out_pairs"] == 0


def test_a_single_ranking_of_two_one_token_completions_is_learned(tmp_path):
    row = ranking_rows(1)[0] | {"completions": ["no", ""], "ranks": [2, 1]}
    folder = reward_job(tmp_path / "job", [row], **QUICK)
    reward.main(folder)
    assert result(folder)["train_rankings"] == 1
    assert (folder / "model" / "model.safetensors").exists()


def test_annotators_agreement_is_reported_beside_the_accuracy(tmp_path):
    rows = ranking_rows(20, held_out=10)
    rows += [row | {"annotator": "second"} for row in rows]
    folder = reward_job(tmp_path / "job", rows, **QUICK)
    reward.main(folder)
    found = result(folder)
    assert found["annotator_agreement"] == 1.0
    assert found["annotator_agreement_pairs"] * 2 == found["held_out_pairs"]
    assert found["best_possible_accuracy"] == 1.0


def test_weights_of_zero_are_as_if_the_rankings_were_not_there(tmp_path):
    rows = ranking_rows(12)
    for row in rows[8:]:
        row["weight"] = 0
    reward.main(reward_job(tmp_path / "some", rows, **QUICK, tie_share=0.2))
    assert result(tmp_path / "some")["steps"] == 2


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step_and_keeps_the_last_state(tmp_path, monkeypatch):
    folder = reward_job(tmp_path / "job", ranking_rows(30, held_out=6), **QUICK, save_every=2)
    accumulate_gradients, calls = reward.accumulate_gradients, []

    def breaks_down(model, *rest):
        calls.append(1)
        if len(calls) == 4:
            with torch.no_grad():
                model.head.weight.fill_(float("nan"))
        return accumulate_gradients(model, *rest)

    monkeypatch.setattr(reward, "accumulate_gradients", breaks_down)
    with pytest.raises(TrainingFailed, match="the loss is nan at step 4; the last saved state is kept"):
        reward.main(folder)
    assert torch.load(folder / "state" / "training.pt", weights_only=True)["step"] == 2
    assert not (folder / "result.json").exists()


@pytest.mark.parametrize("place", ["rankings", "samples"])
def test_texts_longer_than_the_model_s_positions_are_refused(tmp_path, place):
    rows = ranking_rows(4)
    long = [{"role": "user", "content": "help " * 130}]
    if place == "rankings":
        rows[2]["messages"] = long
    folder = reward_job(tmp_path / "job", rows)
    if place == "samples":
        (folder / "samples.jsonl").write_text(json.dumps({"messages": long, "text": "no"}) + "\n")
    with pytest.raises(BadInput, match="tokens, the model has room for 128"):
        reward.main(folder)


def test_a_long_prompt_and_a_long_completion_of_another_prompt_fit_if_never_combined(tmp_path):
    rows = ranking_rows(4)
    rows[2]["messages"] = [{"role": "user", "content": "help " * 80}]
    rows[3]["completions"][0] = "help " * 80
    with pytest.raises(BadInput, match="the model has room for 128"):
        reward.main(reward_job(tmp_path / "contrast", rows, contrast=1.0))
    folder = reward_job(tmp_path / "alone", rows, contrast=0.0)
    reward.main(folder)
    assert (folder / "result.json").is_file()


def test_bad_input_is_refused_before_a_model_is_made(tmp_path):
    with pytest.raises(BadInput, match="no training ranking"):
        reward.main(reward_job(tmp_path / "job", [], **QUICK))
    assert not (tmp_path / "job" / "metrics.jsonl").exists()


def test_the_command_line_refuses_bad_input_with_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reward", str(reward_job(tmp_path / "job", ranking_rows(4), nonsense=1))])
    with pytest.raises(SystemExit) as end:
        run_program(reward.main, RewardConfig)
    assert end.value.code == EXIT_BAD_INPUT
    assert capsys.readouterr().err == "error: unknown setting 'nonsense' for reward\n"


@pytest.mark.process
def test_sigterm_finishes_the_step_saves_the_state_and_prints_a_message(tmp_path, monkeypatch):
    folder = reward_job(tmp_path / "job", ranking_rows(60), **QUICK | {"epochs": 1000})
    monkeypatch.setattr(sys, "argv", ["reward", str(folder)])

    def program():
        torch.set_num_threads(1)  # OpenMP's other threads did not survive the fork
        run_program(reward.main, RewardConfig)

    with (tmp_path / "log.txt").open("wb") as log:
        process = Forked(program, log)
    while not (folder / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.05)
    process.terminate()
    assert process.wait() == EXIT_STOPPED, (tmp_path / "log.txt").read_text()
    state = torch.load(folder / "state" / "training.pt", weights_only=True)
    assert state["step"] == metrics(folder)[-1]["step"] < 7000


@pytest.mark.process
def test_two_processes_learn_the_same_as_one(tmp_path):
    rows = ranking_rows(31, held_out=6)
    one, two = reward_job(tmp_path / "one", rows, **QUICK), reward_job(tmp_path / "two", rows, **QUICK)
    reward.main(one)
    run_on_two(reward.main, two)
    assert (result(one)["processes"], result(two)["processes"]) == (1, 2)
    for line, expected in zip(metrics(two), metrics(one), strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], abs=1e-4)
        assert line["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-3)
    for name, tensor in weights(one).items():
        assert torch.allclose(tensor, weights(two)[name], atol=1e-4), name
    assert result(two)["held_out_accuracy"] == pytest.approx(result(one)["held_out_accuracy"], abs=0.02)


def test_a_run_of_the_defaults_draws_curves_of_held_out_data(tmp_path):
    folder = reward_job(tmp_path / "job", ranking_rows(30, held_out=6), **QUICK)
    reward.main(folder)
    with_curves = [line for line in metrics(folder) if "held_out_loss" in line and "held_out_accuracy" in line]
    assert len(with_curves) >= 2
