"""Frozen models hold their matrices in the computing dtype: the same bits from half the memory."""

import pytest
import torch
from safetensors.torch import load_file
from test_kinds import FAST, GENERIC, model_of
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from tests.learner.worlds.letters import PROMPTS, policy_folder, ppo_job
from tests.learner.worlds.words import ranking_rows, reward_job, words_folder
from training.learner import ppo, reward
from training.learner.models import frozen
from training.learner.models.frozen import hold_frozen
from training.learner.models.loading import computing_in, load_frozen_policy
from training.learner.models.packing import Episodes
from training.learner.models.token_outputs import score_tokens

EPISODES = Episodes([[5, 6, 7], [5, 6, 7], [8, 3]], [[9, 4], [3, 3, 5, 2], [7]])
DTYPES = ("float32", "bfloat16")
KINDS = ["llama", "gpt2", "qwen3_moe", "gpt_oss", "nemotron_h"]


def rounded(model):
    """The model with weights that all exist in bfloat16, as those of a published model."""
    for weight in model.parameters():
        weight.data = weight.data.bfloat16().float()
    return model


def outputs(model):
    with torch.no_grad(), computing_in("bfloat16"):
        return torch.stack(score_tokens(model, EPISODES, with_entropy=True))


def matrices(model):
    """The matrices of all linear layers, but not of a head that is tied to an embedding."""
    return [module.weight for module in model.base_model.modules() if isinstance(module, nn.Linear | Conv1D)]


@pytest.mark.parametrize(
    "kind", [*KINDS, *(pytest.param(kind, marks=pytest.mark.full) for kind in [*FAST, *GENERIC] if kind not in KINDS)]
)
def test_log_probs_and_entropy_keep_their_bits(kind):
    model = rounded(model_of(kind))
    before = outputs(model)
    hold_frozen(model, "bfloat16")
    assert {weight.dtype for weight in matrices(model)} == {torch.bfloat16}
    assert all(weight.dtype == torch.float32 for weight in model.parameters() if weight.ndim == 1)
    assert torch.equal(outputs(model), before)


def test_a_matrix_with_other_numbers_stays_float32():
    model = rounded(model_of("llama"))
    own = model.model.layers[0].mlp.up_proj
    own.weight.data[3, 4] += 1e-6
    hold_frozen(model, "bfloat16")
    assert own.weight.dtype == torch.float32
    assert model.model.layers[0].mlp.gate_proj.weight.dtype == torch.bfloat16


def test_a_frozen_policy_of_a_bfloat16_folder_takes_half_the_memory(tmp_path):
    folder = str(in_bfloat16(policy_folder(tmp_path / "policy", kind="llama")))
    sizes = [sum(w.nbytes for w in load_frozen_policy(folder, dtype)[0].parameters()) for dtype in DTYPES]
    assert sizes[1] < 0.52 * sizes[0]


def in_bfloat16(folder):
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"lora_rank": 2}], ids=["full", "lora"])
def test_the_programs_learn_the_same_bits_with_models_in_float32(changes, tmp_path, monkeypatch):
    (tmp_path / "words").mkdir()
    for folder in (policy_folder(tmp_path / "policy", kind="llama"), words_folder(tmp_path / "words" / "policy")):
        in_bfloat16(folder)
    saved = []
    for name in ("held", "float32"):
        if name == "float32":
            monkeypatch.setattr(frozen, "convert", lambda module, dtype: None)
        own = {"dtype": "bfloat16", "learning_rate": 0.02, **changes}
        job = ppo_job(tmp_path / name, PROMPTS, steps=2, batch_episodes=8, **own)
        ppo.main(job)
        rankings = reward_job(tmp_path / "words" / name, ranking_rows(8), epochs=1, **own)
        reward.main(rankings)
        saved.append([load_file(folder / "model" / "model.safetensors") for folder in (job, rankings)])
    for held, expected in zip(*saved, strict=True):
        assert held.keys() == expected.keys()
        assert all(torch.equal(weight, expected[name]) for name, weight in held.items())
