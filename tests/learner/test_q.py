"""q: its input, refused input, and its output."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.learner.worlds.letters import letters_tokenizer, log_prob, policy_folder, reward_model_folder, reward_of
from tests.learner.worlds.logged import q_job, row
from tests.learner.worlds.spoken import DIALOGUE, LETTERS_PROMPT, LONG, OTHER, OTHER_TOKENS, SPANS, TOKENS, spoken
from training.learner import q
from training.learner.models.loading import load_policy
from training.learner.runtime.config import QConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory
from training.learner.runtime.processes import Processes
from training.learner.values.logged import as_answer, read_completions, replay_buffer, rewards_of

FEW = {"value_epochs": 2, "policy_epochs": 1, "batch_completions": 16}
ROWS = [row(1, [2, 3, 0]), row(1, [4, 0]), row(2, [1, 1, 1]), row(3, [0], split="held_out")]


@pytest.mark.slow
def test_logged_completions_become_a_policy_without_sampling(tmp_path):
    rows = [row(1 + i % 4, [1 + i % 3, 2, 0], reward=float(i % 3)) for i in range(24)]
    rows += [row(1, [4, 0], reward=1.0, split="held_out")]
    job = q_job(tmp_path / "job", rows, rewards=[], **FEW, lora_rank=2, dtype="bfloat16")
    q.main(job)
    lines, result = JobDirectory(job).metrics(), JobDirectory(job).result()
    assert [("td_loss" in line, "policy_loss" in line) for line in lines] == [(True, False)] * 2 + [(False, True)]
    assert lines[1]["held_out_td_loss"] > 0 and result["held_out_imitation_loss"] > 0
    assert (result["train_completions"], result["different_completions"], result["held_out_completions"]) == (24, 12, 1)
    assert (result["data_reward"], result["data_reward_best"], result["steps"]) == (1.0, 2.0, 3)
    assert "reward" not in result, "without reward terms nothing can score new completions"
    assert 0 < result["effective_tokens"] <= 1 and result["path"] == "packed"
    AutoModelForCausalLM.from_pretrained(job / "model")


@pytest.mark.slow
def test_with_reward_terms_the_policy_is_measured_like_that_of_ppo(tmp_path):
    job = q_job(tmp_path / "job", None, 8, **FEW, eval_prompts=4, optimum_samples=8, learning_rate=0.001)
    q.main(job)
    result = JobDirectory(job).result()
    assert result["evaluated_on"] == "train" and result["evaluation_prompts"] == 4 and result["optimum_samples"] == 8
    assert result["reward_gain"] == pytest.approx(result["reward"] - result["reward_reference"])
    assert {"kl", "objective", "best_objective_at_least", "attained_fraction"} <= set(result)


@pytest.mark.slow
def test_a_reward_model_scores_rows_without_a_reward(tmp_path):
    reward_model = str(reward_model_folder(tmp_path / "reward_model"))
    job = q_job(tmp_path / "job", ROWS, **FEW, rewards=[{"name": "reward_model"}], reward_model=reward_model)
    q.main(job)
    assert JobDirectory(job).result()["held_out_completions"] == 1


def read(rows, **settings):
    return read_completions(letters_tokenizer(), rows, QConfig(**{"model": "m", "rewards": []} | settings))


def dialogue_row(turns, **more):
    return {"messages": LETTERS_PROMPT, "turns": turns, "reward": 1.0, **more}


def test_rows_of_dialogues_are_encoded_with_the_spans_of_the_policys_turns():
    unfinished = [dialogue_row(turns, finished=False) for turns in (DIALOGUE, spoken("b", "c", ""))]
    rows = [dialogue_row(DIALOGUE), *unfinished, dialogue_row(LONG)]
    whole, cut_off, empty, long = read_completions(letters_tokenizer(), rows, QConfig(model="m", rewards=[]), 12)
    assert (whole.tokens, whole.turns, whole.finished) == ([*TOKENS], SPANS, True)
    assert (cut_off.tokens, cut_off.turns, cut_off.finished) == ([*TOKENS[:-1]], ((0, 3), (4, 5)), False)
    assert (empty.tokens, empty.spans, empty.finished) == ([2, 0], ((0, 2),), False)
    assert (len(long.tokens), len(long.turns), long.finished) == (11, 4, False)


def test_a_logged_dialogue_is_scored_like_one_that_was_sampled():
    (logged,) = read_completions(letters_tokenizer(), [dialogue_row(DIALOGUE)], QConfig(model="m", rewards=[]))
    answer = as_answer(logged)
    assert answer.row["messages"] == [*LETTERS_PROMPT, *DIALOGUE[:-1]] and answer.turns == DIALOGUE
    assert (answer.prompt, answer.completion, answer.text) == ([1, *TOKENS[:4]], [*TOKENS[4:]], "a")


@pytest.mark.slow
def test_it_learns_from_dialogues(tmp_path):
    rows = [dialogue_row(DIALOGUE), dialogue_row(OTHER, reward=-1.0), row(1, [2, 0], reward=0.0)]
    job = q_job(tmp_path / "job", rows, **FEW | {"policy_epochs": 6}, rewards=[], learning_rate=0.01)
    q.main(job)
    result = JobDirectory(job).result()
    assert (result["train_completions"], result["cut_off_completions"]) == (3, 0)
    policy, start = (load_policy(str(folder))[0] for folder in (job / "model", tmp_path / "policy"))
    better, worse = (float((log_prob(policy, prompt, [1]) - log_prob(start, prompt, [1])).detach())
                     for prompt in ([1, *TOKENS[:4]], [1, *OTHER_TOKENS[:3]]))  # fmt: skip
    assert better > 0 and better > worse


def test_rows_of_truncated_dialogues_need_no_reward_and_rows_without_the_key_ended():
    cut = [dialogue_row(DIALOGUE, reward=reward, truncated=True) for reward in (None, 9.0)]
    rows = [*cut, row(1, [2], truncated=True), dialogue_row(DIALOGUE), dialogue_row(DIALOGUE, truncated=False)]
    logged = read(rows)
    assert [one.is_truncated for one in logged] == [True] * 3 + [False] * 2
    assert [one.reward for one in logged] == [0.0] * 3 + [1.0] * 2
    assert [one.finished for one in logged] == [True] * 5 and logged[0].tokens == [*TOKENS]
    buffer = replay_buffer(logged, rewards_of(logged, None, Processes()))
    assert buffer.truncated().tolist() == [True, True, False] and buffer.counts.tolist() == [2, 1, 2]


@pytest.mark.slow
def test_the_end_of_truncated_dialogues_does_not_count(tmp_path):
    """Nothing is learned from a dialogue of one token, and the reward of another one is not part of the figures."""
    rows = [dialogue_row(DIALOGUE, reward=-1.0), dialogue_row(OTHER, reward=-3.0)]
    rows += [dialogue_row(DIALOGUE, reward=99.0, truncated=True), row(1, [], truncated=True)]
    rows += [dialogue_row(OTHER, reward=99.0, truncated=True, split="held_out")]
    job = q_job(tmp_path / "job", rows, **FEW, rewards=[])
    q.main(job)
    result, lines = JobDirectory(job).result(), JobDirectory(job).metrics()
    assert (result["train_completions"], result["truncated_dialogues"], result["cut_off_completions"]) == (3, 3, 0)
    assert (result["data_reward"], result["data_reward_best"]) == (-2.0, -1.0)
    assert all(line["td_loss"] < 10 for line in lines if "td_loss" in line)


@pytest.mark.slow
def test_data_without_a_known_reward_is_refused(tmp_path):
    job = q_job(tmp_path / "job", [dialogue_row(DIALOGUE, truncated=True)], rewards=[])
    with pytest.raises(BadInput, match="has only truncated dialogues to train on"):
        q.main(job)


def test_rows_are_encoded_with_their_end_unless_they_are_cut_off():
    settings = {"rewards": [{"name": "missing_eos"}], "max_completion_tokens": 3}
    finished, cut_off, long = read([row(1, [2, 3]), row(1, [2, 3], finished=False), row(1, [2, 3, 4])], **settings)
    assert (finished.tokens, cut_off.tokens, long.tokens) == ([2, 3, 0], [2, 3], [2, 3, 4])
    assert (finished.finished, cut_off.finished, long.finished) == (True, False, False)


def test_the_reward_of_a_row_takes_precedence_over_the_reward_terms():
    logged = read([row(1, [2, 0], reward=7), row(1, [3, 0])], rewards=[{"name": "missing_eos"}])
    scored = rewards_of(
        logged, lambda answers: torch.tensor([reward_of(one.completion) for one in answers]), Processes()
    )
    assert scored.tolist() == pytest.approx([7.0, reward_of([3, 0])])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reward": None}, r"completions.jsonl, row 1: the row has no reward, and there are no reward terms"),
        ({"reward": "good"}, r"row 1: reward must be a number, not 'good'"),
        ({"reward": True}, "reward must be a number, not True"),
        ({"reward": float("nan")}, "reward must be a number, not nan"),
        ({"completion": 3}, "completion must be a string"),
        ({"messages": []}, "messages must be a list"),
        ({"split": "test"}, "split must be train or held_out, not 'test'"),
        ({"finished": 1}, "finished must be true or false, not 1"),
        ({"truncated": "no"}, "truncated must be true or false, not 'no'"),
        ({"completion": "", "finished": False}, "the completion has no tokens: an empty one must be finished"),
        ({"split": "held_out"}, "has no completion to train on"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused(changes, sentence):
    with pytest.raises(BadInput, match=sentence):
        read([row(1, [2, 0], reward=1.0) | changes])


def test_a_term_that_compares_needs_references_or_a_reward():
    terms = [{"name": "token_f1"}]
    with pytest.raises(BadInput, match="token_f1 needs references"):
        read([row(1, [2, 0])], rewards=terms)
    assert len(read([row(1, [2, 0], references=["b"]), row(1, [2, 0], reward=0.5)], rewards=terms)) == 2


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"rewards": [], "reward_model": "r"}, "reward_model is set, but rewards has no term that uses it"),
        ({}, "set reward_model when, and only when"),
        ({"rewards": [], "pessimism": 1.0}, "pessimism applies to the reward model"),
        ({"rewards": [], "optimum_samples": 1}, "optimum_samples must be 2 or more"),
        ({"rewards": [], "expectile": 1.0}, "expectile must be below 1"),
        ({"rewards": [], "bootstrap": "max"}, "bootstrap must be one of state_value, double_q"),
    ],
)
def test_settings_that_contradict_are_refused(chosen, sentence):
    with pytest.raises(BadInput, match=sentence):
        QConfig(model="m", **chosen)


@pytest.mark.slow
def test_equal_rewards_are_refused_because_nothing_can_be_learned(tmp_path):
    job = q_job(tmp_path / "job", [row(1, [2, 0], reward=1), row(1, [3, 0], reward=1)], rewards=[])
    with pytest.raises(BadInput, match="all 2 training completions have the reward 1, so none is better"):
        q.main(job)


@pytest.mark.slow
def test_the_buffer_holds_the_newest_completions(tmp_path):
    rows = [row(1, [2, 0], reward=float(i)) for i in range(6)]
    job = q_job(tmp_path / "job", rows, rewards=[], **FEW, buffer_completions=2)
    q.main(job)
    assert JobDirectory(job).result()["data_reward"] == 4.5


@pytest.mark.slow
def test_a_completion_that_outgrows_the_positions_is_refused(tmp_path):
    policy_folder(tmp_path / "policy")
    long = {"messages": [{"role": "user", "content": "a " * 120}], "completion": "b " * 9, "reward": 1.0}
    job = q_job(tmp_path / "job", [long, {**long, "reward": 0.0}], rewards=[], max_completion_tokens=20)
    with pytest.raises(BadInput, match="the model has room for 128"):
        q.main(job)
    assert json.loads((job / "config.json").read_text())["model"]
