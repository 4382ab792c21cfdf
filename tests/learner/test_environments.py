"""Episodes of several turns: the policy answers an environment, and learns from rewards of later turns."""

import json
import re
import traceback

import pytest
import torch

from tests.learner.worlds import guessing
from tests.learner.worlds.chat import chatml, gemma, llama3, phi3
from tests.learner.worlds.endpoint import chat_endpoint
from tests.learner.worlds.letters import log_prob, policy_folder, ppo_job
from training.learner import ppo
from training.learner.environments import EnvironmentContext, check_environment, make_environment
from training.learner.environments.dialogue import KEY
from training.learner.models.loading import load_policy
from training.learner.policy import rollout
from training.learner.policy.advantages import generalized_advantages
from training.learner.policy.dialogues import sample_episodes
from training.learner.runtime.config import PpoConfig
from training.learner.runtime.jobdir import BadInput, TrainingFailed
from training.learner.runtime.processes import Processes
from training.learner.text.control_tokens import control_tokens
from training.learner.text.messages import Prompt, encode_reply, encode_text, render

pytestmark = pytest.mark.slow

BETA = 0.05
GAME = {
    "environment": guessing.ENVIRONMENT,
    "rewards": [],
    "max_completion_tokens": guessing.MAX_TURN,
    "kl_coefficient": BETA,
}


def game_job(folder, **settings):
    return ppo_job(folder, ("a",), **(GAME | settings))


def played(folder, count=48, **settings):
    """Return a context and the episodes that its policy played."""
    job = game_job(folder, batch_episodes=count, **settings)
    context = ppo.load_context(PpoConfig.from_json(json.loads((job / "config.json").read_text())), Processes())
    prompt = Prompt({"messages": [{"role": "user", "content": "a"}]}, [1], False)
    return context, *sample_episodes(context, context.policy, [prompt] * count, range(count))


@pytest.mark.full
def test_ppo_learns_a_question_whose_reward_comes_in_the_next_turn(tmp_path):
    job = game_job(tmp_path / "job", steps=80, batch_episodes=128, learning_rate=1e-2, gae_lambda=1.0)
    ppo.main(job)
    reference, _ = load_policy(str(tmp_path / "policy"))
    learned, _ = load_policy(str(job / "model"))
    best, with_the_references_first_turn = guessing.best_objectives(reference, BETA)
    assert with_the_references_first_turn < 0.95 * best
    assert guessing.objective(learned, reference, BETA) >= 0.95 * best


def test_the_enumerated_optimum_is_above_every_policy(tmp_path):
    reference, _ = load_policy(str(policy_folder(tmp_path / "reference")))
    best, one_turn = guessing.best_objectives(reference, BETA)
    others = [load_policy(str(policy_folder(tmp_path / str(seed), seed=seed)))[0] for seed in (1, 2)]
    for policy in (reference, *others):
        assert guessing.objective(policy, reference, BETA) < best
    assert one_turn < best


def test_only_the_policys_tokens_have_outputs_and_they_are_those_of_the_whole_text(tmp_path):
    context, episodes, answers = played(tmp_path / "job")
    assert {len(turns) for turns in episodes.turns} == {1, 2}
    scored = rollout.score_episodes(context, episodes, answers)
    for prompt, completion, turns, found in zip(*episodes[:3], scored.policy, strict=True):
        assert len(found) == sum(turn.end - turn.start for turn in turns)
        expected = sum(
            float(log_prob(context.policy, [*prompt, *completion[: turn.start]], completion[turn.start : turn.end]))
            for turn in turns
        )
        assert float(found.sum()) == pytest.approx(expected, abs=1e-4)
    assert torch.equal(scored.lengths(), torch.tensor([len(row) for row in scored.policy]))


def test_the_environments_reward_is_earned_at_the_end_of_its_turn(tmp_path):
    context, episodes, answers = played(tmp_path / "job", gamma=0.9, gae_lambda=0.8)
    turns = [[turn._replace(reward=10.0 * number + 1) for number, turn in enumerate(row)] for row in episodes.turns]
    scored = rollout.score_episodes(context, episodes._replace(turns=turns), answers)
    _, returns, *_ = rollout.gae_targets(scored, 0.0, context.settings)
    for row, values, found, finished in zip(turns, scored.values, returns, scored.finished, strict=True):
        earned = torch.zeros(len(values))
        ends = torch.tensor([turn.end - turn.start for turn in row]).cumsum(0) - 1
        for end, turn in zip(ends, row, strict=True):
            earned[end] += turn.reward
        _, expected = generalized_advantages(earned, values, torch.tensor([len(values)]), 0.9, 0.8)
        assert torch.allclose(found, expected, atol=1e-5), finished
    assert scored.scores.tolist() == [sum(turn.reward for turn in row) for row in turns]


def test_a_run_with_an_environment_resumes_to_the_same_bits(tmp_path, monkeypatch):
    whole, parts = (game_job(tmp_path / name, steps=3, batch_episodes=8) for name in ("whole", "parts"))
    ppo.main(whole)
    asked = iter([False, False, False, True])
    monkeypatch.setattr(Processes, "any", lambda self, flag: next(asked, False))
    with pytest.raises(ppo.Stopped):
        ppo.main(parts)
    monkeypatch.undo()
    ppo.main(parts)
    assert (whole / "model/model.safetensors").read_bytes() == (parts / "model/model.safetensors").read_bytes()


@pytest.mark.parametrize("make", [chatml, gemma, phi3, llama3])
def test_a_dialogue_has_the_tokens_of_the_chat_template(make):
    """The text of a turn, its end, and the reply are together what the template writes for the whole dialogue."""
    tokenizer = make()
    messages = [{"role": "user", "content": "where is my parcel"}]
    answer, reply = "which parcel", "the <|end|> one"
    dialogue = [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": reply}]
    turn = [*encode_text(tokenizer, answer), control_tokens(tokenizer).end_of_turn]
    played = [*render(tokenizer, messages), *turn, *encode_reply(tokenizer, messages, reply)]
    assert played == render(tokenizer, dialogue)


# ---- the dialogue with a simulated user ----


def unused_writer(path):
    raise AssertionError(path)


def dialogue(load_writer=unused_writer, **options):
    entry = {"name": "dialogue", **options}
    check_environment(entry)
    return make_environment(entry, EnvironmentContext(load_writer))


def user_turns_of(environment, *turns, **row):
    """Return the user's answer to each of the policy's turns; None where the dialogue ended."""
    environment.reset(seed=7, options={"messages": [{"role": "user", "content": "hello"}], **row})
    steps = [environment.step(turn) for turn in turns]
    return [None if terminated or truncated else message for message, _, terminated, truncated, _ in steps]


def test_a_scripted_user_says_its_lines_in_order_and_then_ends_the_dialogue():
    assert user_turns_of(dialogue(lines=["one", "two"], turns=5), "x", "y", "z") == ["one", "two", None]
    assert user_turns_of(dialogue(lines=["one", "two"], turns=2), "x", "y") == ["one", None]
    assert user_turns_of(dialogue(lines=["one"], turns=3), "x", "y", user_turns=["of the prompt"]) == [
        "of the prompt",
        None,
    ]
    assert user_turns_of(dialogue(lines=["bye now"], turns=3, end_word="bye"), "x") == [None]


def test_a_simulated_user_reads_the_dialogue_with_the_roles_swapped():
    read = []

    def load_writer(path):
        return lambda messages, number: read.append((path, messages, number)) or "fine"

    user = dialogue(load_writer, user="checkpoint", model="folder", instruction="Be short.", turns=3)
    assert user_turns_of(user, "how are you", "good") == ["fine", "fine"]
    assert read[1] == (
        "folder",
        [
            {"role": "system", "content": "Be short."},
            {"role": "assistant", "content": "hello"},
            {"role": "user", "content": "how are you"},
            {"role": "assistant", "content": "fine"},
            {"role": "user", "content": "good"},
        ],
        7 + 2,
    )


def test_a_checkpoint_answers_the_policy_in_ppo(tmp_path):
    user = policy_folder(tmp_path / "user", seed=9)
    environment = {"name": "dialogue", "user": "checkpoint", "model": str(user), "instruction": "", "turns": 3}
    _, episodes, answers = played(tmp_path / "job", environment=environment, rewards=[{"name": "length", "target": 1}])
    assert {len(turns) for turns in episodes.turns} == {1, 2, 3}
    messages = {message["content"] for answer in answers for message in answer.row["messages"][2::2]}
    assert len(messages) > 2


@pytest.fixture
def endpoint():
    with chat_endpoint() as served:
        yield served


def test_an_endpoint_answers_as_the_user(endpoint):
    url, asked, keys = endpoint
    assert user_turns_of(dialogue(user="endpoint", url=url, model="known"), "how are you") == ["how are you!"]
    ((path, body),) = asked
    assert keys == [None]
    assert path == "/v1/chat/completions" and body["model"] == "known"
    with pytest.raises(TrainingFailed, match="gave no answer"):
        user_turns_of(dialogue(user="endpoint", url=url, model="unknown"), "x")
    with pytest.raises(TrainingFailed, match=r"the simulated user at http://127\.0\.0\.1:9 gave no answer"):
        user_turns_of(dialogue(user="endpoint", url="http://127.0.0.1:9", model="known"), "x")


def test_the_endpoints_key_is_sent_to_no_other_address_and_is_in_no_message(endpoint, monkeypatch):
    url, asked, keys = endpoint
    monkeypatch.setenv(KEY, "sk-hidden")
    assert user_turns_of(dialogue(user="endpoint", url=url, model="known"), "how are you") == ["how are you!"]
    for model in ("elsewhere", "repeats the key"):
        with pytest.raises(TrainingFailed, match="gave no answer: HTTP Error") as failure:
            user_turns_of(dialogue(user="endpoint", url=url, model=model), "x")
        assert "sk-hidden" not in "".join(traceback.format_exception(failure.value))
    assert keys == ["Bearer sk-hidden"] * 3 and {path for path, _ in asked} == {"/v1/chat/completions"}
    monkeypatch.setenv(KEY, "sk-hid\nden")
    with pytest.raises(BadInput, match="has characters that no key has") as refusal:
        user_turns_of(dialogue(user="endpoint", url=url, model="known"), "x")
    assert "sk-hid" not in str(refusal.value)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"name": "chess"}, "environment must name one of dialogue, python, single_turn, not 'chess'"),
        ({}, "environment must name one of"),
        ({"name": "dialogue", "turns": 0}, "turns of the environment dialogue must be at least 1"),
        ({"name": "dialogue", "user": "nobody"}, "must be one of script, checkpoint, endpoint"),
        ({"name": "dialogue", "moves": 3}, "the environment dialogue has no setting 'moves'"),
        ({"name": "python"}, "the environment python needs the setting make"),
    ],
)
def test_settings_of_an_environment_are_checked_with_a_sentence(entry, sentence):
    with pytest.raises(BadInput, match=re.escape(sentence)):
        PpoConfig(model="m", environment=entry, rewards=[])


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"name": "dialogue", "user": "endpoint"}, "needs the settings url and model"),
        ({"name": "dialogue", "user": "checkpoint"}, "needs the setting model, a folder"),
        ({"name": "python", "make": "tests.learner.worlds.guessing:Nothing"}, "cannot make"),
        ({"name": "python", "make": "builtins:dict"}, "needs a class with reset and step"),
    ],
)
def test_an_environment_that_cannot_be_made_is_refused_with_a_sentence(entry, sentence):
    with pytest.raises(BadInput, match=sentence):
        make_environment(entry, EnvironmentContext(unused_writer))


def test_without_rewards_an_environment_must_give_them():
    with pytest.raises(BadInput, match="rewards must contain at least one term"):
        PpoConfig(model="m", rewards=[])
