"""Gradient checkpointing: the same gradients from less memory, in every program that trains."""

import pytest
import torch
from safetensors.torch import load_file
from test_kinds import EPISODES, FAST, GENERIC, model_of
from torch.autograd.graph import saved_tensors_hooks

from tests.learner.worlds.letters import PROMPTS, policy_folder, ppo_job, tiny_model
from tests.learner.worlds.words import ranking_rows, reward_job, words_folder
from training.learner import ppo, reward
from training.learner.models import log_probs
from training.learner.models.gradient_checkpointing import checkpoint_layers
from training.learner.models.loading import prepare
from training.learner.models.log_probs import token_scores
from training.learner.models.lora import AdapterView, LoraConfig, SharedBase
from training.learner.models.packing import Episodes
from training.learner.models.token_outputs import score_tokens

KINDS = ["llama", "qwen3", "gpt2", "gemma2", "qwen3_moe", "gpt_oss", "nemotron_h"]


def gradients(model):
    scores = score_tokens(model, EPISODES, with_entropy=True)
    (scores.log_probs.sum() + 0.1 * scores.entropy.sum()).backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [*KINDS, *(pytest.param(kind, marks=pytest.mark.full) for kind in [*FAST, *GENERIC] if kind not in KINDS)]
)
def test_the_gradients_are_those_without_it(kind):
    model = prepare(model_of(kind), kind)
    before = gradients(model)
    checkpoint_layers(model)
    after = gradients(model)
    assert before.keys() == after.keys() and before
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient, rtol=1e-5, atol=1e-7)


def test_an_adapter_s_layers_are_computed_again_with_their_adapter():
    view = AdapterView(SharedBase(tiny_model(), "here"), "policy", LoraConfig(2, 4.0))
    with torch.no_grad():
        for adapter in view.adapters.values():
            adapter.b.normal_()
    before = gradients(view)
    checkpoint_layers(view)
    after = gradients(view)
    assert before.keys() == after.keys() and len(before) == 2 * len(view.adapters)
    assert all(torch.equal(after[name], gradient) for name, gradient in before.items())


def test_the_tensors_kept_for_the_gradient_are_a_quarter_or_less():
    """Counted by the autograd graph itself: each storage once, weights left out."""
    model = model_of("llama", num_hidden_layers=8, vocab_size=512)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    episodes = Episodes([[5] * 40] * 4, [[7] * 40] * 4)

    def kept_bytes():
        sizes = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                sizes[storage.data_ptr()] = storage, storage.nbytes()  # kept, or its address could be used again
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            score_tokens(model, episodes).log_probs.sum()
        return sum(size for _, size in sizes.values())

    before = kept_bytes()
    checkpoint_layers(model)
    assert 0 < kept_bytes() < before / 4


def test_probabilities_computed_again_some_rows_at_a_time_give_the_same_gradients(monkeypatch):
    monkeypatch.setattr(log_probs, "CHUNK_LOGITS", 1)
    monkeypatch.setattr(log_probs, "MIN_CHUNK_ROWS", 7)
    random = torch.Generator().manual_seed(0)
    states, head = torch.randn(30, 8, generator=random), torch.randn(50, 8, generator=random)
    tokens = torch.randint(0, 50, (30,), generator=random)
    found = []
    for keeps in (True, False):
        inputs = [part.clone().requires_grad_() for part in (states, head)]
        scores = token_scores(*inputs, tokens, 0.7, with_entropy=True, keeps=keeps)
        (scores.log_probs.sum() + scores.entropy.square().sum()).backward()
        found.append([part.grad for part in inputs])
    for kept, again in zip(*found, strict=True):
        torch.testing.assert_close(again, kept, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"lora_rank": 2}], ids=["full", "lora"])
def test_ppo_and_reward_learn_the_same_weights(changes, tmp_path):
    policy_folder(tmp_path / "policy")
    (tmp_path / "words").mkdir()
    words_folder(tmp_path / "words" / "policy")
    saved = []
    for name, own in (("plain", {}), ("less", {"gradient_checkpointing": True})):
        job = ppo_job(tmp_path / name, PROMPTS, steps=2, batch_episodes=8, learning_rate=0.02, **changes, **own)
        ppo.main(job)
        rankings = reward_job(
            tmp_path / "words" / name, ranking_rows(8), epochs=1, learning_rate=1e-2, **changes, **own
        )
        reward.main(rankings)
        saved.append([load_file(folder / "model" / "model.safetensors") for folder in (job, rankings)])
    for plain, less in zip(*saved, strict=True):
        assert plain.keys() == less.keys()
        for weight, expected in plain.items():
            torch.testing.assert_close(less[weight], expected, rtol=1e-4, atol=1e-6)
