"""A reward model that continues the last round's: where its weights start, its passes, and what is refused."""

import json

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.learner.worlds.words import ranking_rows, reward_job, words_folder, words_tokenizer
from training.learner import reward
from training.learner.models.continued_start import move_towards
from training.learner.models.reward_model import new_reward_model, save_reward_model
from training.learner.preferences.ranking_data import RankingData
from training.learner.preferences.reward_results import cross_fitted
from training.learner.runtime.config import RewardConfig
from training.learner.runtime.jobdir import BadInput

pytestmark = pytest.mark.slow

QUICK = {"learning_rate": 3e-3, "epochs": 4, "batch_rankings": 8, "ensemble_heads": 3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The job directory of a full training."""
    folder = reward_job(tmp_path_factory.mktemp("reward") / "job", ranking_rows(48, held_out=16), **QUICK)
    reward.main(folder)
    return folder


def rows_of(job, name):
    return [json.loads(line) for line in (job / name).read_text().splitlines()]


def test_the_weights_start_at_a_share_of_the_way_from_the_policy(tmp_path):
    policy = str(words_folder(tmp_path / "policy"))
    last = new_reward_model(policy, 3, 0)
    with torch.no_grad():
        for value in last.network.parameters():
            value.add_(2.0)
    last.network.config.reward_anchor = 4.0
    save_reward_model(last, words_tokenizer(), tmp_path / "last")
    model, origin = new_reward_model(policy, 3, 1), new_reward_model(policy, 3, 1)
    move_towards(model, str(tmp_path / "last"), 0.25)
    for value, first in zip(model.network.parameters(), origin.network.parameters(), strict=True):
        assert torch.allclose(value, first + 0.5, atol=1e-6)
    assert model.raw_anchor == 1.0
    assert torch.equal(model.ensemble.prior, origin.ensemble.prior)


def test_a_continued_training_starts_with_the_last_models_accuracy_and_makes_its_own_passes(trained, tmp_path):
    (tmp_path / "policy").symlink_to(trained.parent / "policy")
    last = str(trained / "model")
    job = reward_job(
        tmp_path / "job", ranking_rows(48, held_out=16), **QUICK, last_reward_model=last, continued_epochs=1
    )
    reward.main(job)
    lines, result = rows_of(job, "metrics.jsonl"), json.loads((job / "result.json").read_text())
    assert len(lines) == 32 // 8 and len(rows_of(trained, "metrics.jsonl")) == 4 * 32 // 8
    assert lines[0]["accuracy"] > 0.75 and rows_of(trained, "metrics.jsonl")[0]["accuracy"] == 0.5
    assert result["start"] == "last_reward_model"
    assert json.loads((trained / "result.json").read_text())["start"] == "model"


def test_a_last_model_of_another_architecture_or_vocabulary_is_refused(trained, tmp_path):
    words = words_tokenizer()
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128, "vocab_size": len(words)}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(tmp_path / "gpt2")
    words.save_pretrained(tmp_path / "gpt2")
    policy = str(trained.parent / "policy")
    with pytest.raises(BadInput, match="does not have the architecture"):
        move_towards(new_reward_model(policy, 3, 0), str(tmp_path / "gpt2"), 1.0)

    other = words_tokenizer()
    other.add_tokens(["unknown"])
    other.save_pretrained(tmp_path / "gpt2")
    settings = RewardConfig(model=policy, last_reward_model=str(tmp_path / "gpt2"))
    with pytest.raises(BadInput, match="must have the same tokenizer"):
        reward.continue_last(new_reward_model(policy, 3, 0), words, settings)


def test_an_adapter_cannot_continue_a_reward_model():
    with pytest.raises(BadInput, match="cannot continue another one"):
        RewardConfig(model="policy", last_reward_model="last", lora_rank=4)


def test_a_trunk_that_has_learned_from_rankings_gives_no_surprise(trained):
    data = RankingData(train=[])
    model = new_reward_model(str(trained / "model"), 3, 0)
    assert cross_fitted(model, data, RewardConfig(model="policy"), 4096) == {}
