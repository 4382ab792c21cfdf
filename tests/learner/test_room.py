"""Every model that reads prompts and completions has positions for them, or the program refuses to start."""

import json

import pytest

from tests.learner.worlds.letters import policy_folder, ppo_job, reward_model_folder
from training.learner import ppo, sample
from training.learner.runtime.jobdir import BadInput, JobDirectory

pytestmark = pytest.mark.slow

PROMPTS = ("a", "a b c d")  # one and four tokens
SHORT = {"max_position_embeddings": 6}  # too few for four tokens and three more


@pytest.fixture
def folders(tmp_path):
    reward_model_folder(tmp_path / "reward", **SHORT)
    policy_folder(tmp_path / "short", **SHORT)
    return tmp_path


def scored_by(folder, **settings):
    return {"rewards": [{"name": "reward_model"}], "reward_model": str(folder / "reward")} | settings


@pytest.mark.parametrize(
    ("changes", "who"),
    [
        ({"reference_model": "short"}, "the reference model"),
        ({"critic_model": "short"}, "the critic"),
        ({"critic": "reward_model"}, "the reward model, which the critic is a head on,"),
        ({"critic": "shared", "reward_model": "reward"}, "the reward model"),
    ],
)
def test_ppo_refuses_a_model_with_too_few_positions_before_it_samples(folders, changes, who):
    paths = {key: str(folders / value) for key, value in changes.items() if key != "critic"}
    scored = scored_by(folders) if {"critic"} & set(changes) else {}
    job = ppo_job(folders / "job", PROMPTS, steps=1, batch_episodes=4, **(scored | changes | paths))
    with pytest.raises(BadInput, match=f"up to 7 tokens, {who} has room for 6: set max_"):
        ppo.main(job)
    assert not JobDirectory(job).metrics()


def test_ppo_runs_where_the_prompts_and_completions_just_fit(folders):
    job = ppo_job(folders / "job", PROMPTS[:1], steps=1, batch_episodes=4, **scored_by(folders, critic="reward_model"))
    ppo.main(job)
    assert JobDirectory(job).result()["steps"] == 1


def test_sampling_refuses_a_reward_model_with_too_few_positions(folders):
    job = ppo_job(folders / "job", PROMPTS)
    config = {"model": str(folders / "policy"), "reward_model": str(folders / "reward"), "max_completion_tokens": 3}
    (job / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="up to 7 tokens, the reward model has room for 6"):
        sample.main(job)
