"""A model comes back in the dtype of its folder; float32 weights are the training state's alone."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_kinds import model_of
from transformers import AutoModelForCausalLM

from tests.learner.worlds.letters import PROMPTS, letters_tokenizer, policy_folder, ppo_job
from tests.learner.worlds.words import ranking_rows, reward_job, words_folder
from training.learner import ppo, reward
from training.learner.models.loading import load_policy
from training.learner.models.saving import save_model


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def in_bfloat16(folder: Path) -> Path:
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def check_bfloat16(folder: Path, start: Path) -> None:
    assert {tensor.dtype for tensor in weights(folder).values()} == {torch.bfloat16}
    assert weights(folder).keys() == weights(start).keys()  # a tied head is not saved beside the embedding
    size, before = ((each / "model.safetensors").stat().st_size for each in (folder, start))
    assert abs(size - before) < 100
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"lora_rank": 2}], ids=["full", "lora"])
def test_ppo_saves_a_bfloat16_policy_in_bfloat16_and_resumes_in_float32(changes, tmp_path):
    start = in_bfloat16(policy_folder(tmp_path / "policy"))
    job = ppo_job(tmp_path / "job", PROMPTS, steps=2, batch_episodes=8, save_every=2, learning_rate=0.02, **changes)
    ppo.main(job)
    check_bfloat16(job / "model", start)
    assert any(not torch.equal(part, weights(start)[name]) for name, part in weights(job / "model").items())
    policy = torch.load(job / "state" / "training.pt", weights_only=True)["parts"]["policy"]
    assert {part.dtype for part in policy.values()} == {torch.float32}


@pytest.mark.slow
def test_a_reward_model_of_a_bfloat16_policy_is_saved_in_bfloat16(tmp_path):
    in_bfloat16(words_folder(tmp_path / "policy"))
    job = reward_job(tmp_path / "job", ranking_rows(8), learning_rate=1e-2, epochs=1, ensemble_heads=2)
    reward.main(job)
    assert {tensor.dtype for tensor in weights(job / "model").values()} == {torch.bfloat16}


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_a_bfloat16_folder_loaded_and_saved_holds_the_same_numbers(tied, tmp_path):
    start = in_bfloat16(policy_folder(tmp_path / "policy", kind="llama", tie_word_embeddings=tied))
    model, words = load_policy(str(start))
    assert model.dtype == torch.float32
    save_model(model, words, tmp_path / "saved")
    assert model.dtype == torch.float32 == next(model.parameters()).dtype
    check_bfloat16(tmp_path / "saved", start)
    for name, tensor in weights(start).items():
        assert torch.equal(tensor, weights(tmp_path / "saved")[name])


@pytest.mark.slow
def test_experts_that_are_fused_in_memory_keep_their_dtype_on_disk(tmp_path):
    model_of("qwen3_moe").save_pretrained(tmp_path / "policy")
    letters_tokenizer().save_pretrained(tmp_path / "policy")
    start = in_bfloat16(tmp_path / "policy")
    save_model(*load_policy(str(start)), tmp_path / "saved")
    check_bfloat16(tmp_path / "saved", start)


def test_a_float32_folder_stays_float32(tmp_path):
    start = policy_folder(tmp_path / "policy")
    save_model(*load_policy(str(start)), tmp_path / "saved")
    assert {tensor.dtype for tensor in weights(tmp_path / "saved").values()} == {torch.float32}
