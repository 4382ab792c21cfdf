"""Folders that lack a part of the expected model are refused with a sentence, not filled with random weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from tests.learner.worlds.words import words_folder
from training.learner.models.loading import load_critic, load_policy, load_tokenizer
from training.learner.models.reward_model import load_reward_model, new_reward_model, save_reward_model
from training.learner.models.saving import save_model
from training.learner.runtime.jobdir import BadInput
from training.learner.text.bpe import learn_tokenizer

LAYER = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def policy(tmp_path):
    return words_folder(tmp_path / "policy")


def cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def without_a_layer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[LAYER]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def of_another_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))


@pytest.mark.slow
@pytest.mark.parametrize("damage", [cut_short, without_a_layer, of_another_shape])
@pytest.mark.parametrize("load", [load_policy, load_critic])
def test_a_damaged_folder_is_refused(policy, damage, load):
    load(str(policy))
    damage(policy)
    with pytest.raises(BadInput, match="no model could be loaded from"):
        load(str(policy))


def test_a_reward_model_is_no_policy_and_a_policy_no_reward_model(policy, tmp_path):
    _, tokenizer = load_policy(str(policy))
    save_reward_model(new_reward_model(str(policy), heads=0, seed=0), tokenizer, tmp_path / "reward")
    with pytest.raises(BadInput, match="lm_head"):
        load_policy(str(tmp_path / "reward"))
    with pytest.raises(BadInput, match="is not a reward model"):
        load_reward_model(str(policy))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma"])
def test_a_saved_tokenizer_splits_text_the_same_beside_any_model(tmp_path, kind):
    saved = learn_tokenizer(["thanks for 2026 parcels"] * 9, 300)
    saved.save_pretrained(tmp_path)
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    loaded, text = load_tokenizer(str(tmp_path)), "thanks, 2026\n\n e\u0301"
    assert len(loaded) == len(saved)
    assert loaded(text).input_ids == saved(text).input_ids


def test_a_saved_model_samples_from_the_whole_distribution_by_default(policy, tmp_path):
    """transformers serve, and generate, take `do_sample` and `top_k` from the folder."""
    save_model(*load_policy(str(policy)), tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert (saved["do_sample"], saved["top_k"]) == (True, 0)


def test_pickled_weights_are_never_read(policy):
    torch.save(load_file(policy / "model.safetensors"), policy / "pytorch_model.bin")
    (policy / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="no model could be loaded from"):
        load_policy(str(policy))


def test_code_in_a_models_folder_is_never_run(policy):
    code = "from pathlib import Path\nfrom transformers import LlamaConfig as C, LlamaForCausalLM as M\n"
    (policy / "own.py").write_text(f"{code}Path({str(policy / 'ran')!r}).touch()\n")
    config = json.loads((policy / "config.json").read_text())
    named = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M", "AutoModel": "own.M"}
    (policy / "config.json").write_text(json.dumps(config | {"auto_map": named}))
    load_policy(str(policy))
    load_critic(str(policy))
    assert not (policy / "ran").exists()
