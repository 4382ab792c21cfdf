"""Reward models: new, saved, loaded, scored in every arrangement, and their uncertainty."""

import json
import math

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from tests.learner.worlds.words import words_folder
from training.learner.models.loading import load_tokenizer
from training.learner.models.packing import PromptGroup
from training.learner.models.reward_model import (
    Ensemble,
    RewardModel,
    load_reward_model,
    new_reward_model,
    raw_scores_of_groups,
    save_reward_model,
    score,
    score_groups,
    set_normalisation,
)
from training.learner.preferences.losses import pair_losses, pairs_of_rankings
from training.learner.runtime.jobdir import BadInput

GROUPS = [
    PromptGroup((5, 6, 7, 8), ((9, 10, 1), (11, 1), (12, 13, 14, 15, 16, 1))),
    PromptGroup((20, 21), ((22, 23, 1),)),
]
SEQUENCES = [[*group.prompt, *completion] for group in GROUPS for completion in group.completions]


@pytest.fixture
def policy(tmp_path):
    return str(words_folder(tmp_path / "policy"))


def trained(path: str, heads: int = 4) -> RewardModel:
    """A model whose head and members differ, as after training."""
    model = new_reward_model(path, heads=heads, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.network.score.weight.copy_(torch.randn(1, 32, generator=generator))
        if model.ensemble:
            model.ensemble.learned.copy_(torch.randn(heads, 32, generator=generator) / 10)
    return model


@pytest.mark.slow
def test_the_features_of_a_text_are_those_at_its_last_token_and_the_mean_of_its_tokens(policy):
    model = new_reward_model(policy, heads=0, seed=0).requires_grad_(False)
    features, plain = model.text_features(GROUPS), AutoModel.from_pretrained(policy).eval()
    expected = []
    for group, completion in [(one, completion) for one in GROUPS for completion in one.completions]:
        with torch.no_grad():
            states = plain(torch.tensor([[*group.prompt, *completion]])).last_hidden_state[0, len(group.prompt) :]
        expected.append(torch.cat([states[-1], states.mean(0)]))
    assert torch.allclose(features, torch.stack(expected), atol=1e-5)
    assert torch.allclose(features[:, :32], model.features(GROUPS))


@pytest.mark.slow
def test_a_fresh_model_starts_at_loss_ln_2_exactly(policy):
    model = new_reward_model(policy, heads=4, seed=0)
    raw, _ = raw_scores_of_groups(model, GROUPS, 100)
    pairs = pairs_of_rankings([[2, 1, 3]], [[0, 1, 2]], [1.0], [0.0])
    losses = pair_losses(raw, pairs, "rao_kupper", torch.tensor(-math.inf))
    assert (raw == 0).all()
    assert losses.tolist() == pytest.approx([math.log(2)] * 3, abs=1e-7)


def test_a_completion_scores_the_same_alone_in_a_batch_and_packed_with_its_prompt(policy):
    model = trained(policy)
    alone = torch.cat([score(model, [sequence]) for sequence in SEQUENCES])
    assert torch.allclose(score(model, SEQUENCES), alone, atol=1e-5)
    assert torch.allclose(score_groups(model, GROUPS).mean, alone, atol=1e-5)
    assert torch.allclose(score_groups(model, GROUPS, token_budget=1).mean, alone, atol=1e-5)


def test_scores_are_in_the_order_of_the_completions_for_any_batches(policy):
    model = trained(policy)
    shuffled = [GROUPS[1], GROUPS[0], GROUPS[1]]
    parts = [score_groups(model, [group]).mean for group in shuffled]
    assert torch.allclose(score_groups(model, shuffled, token_budget=20).mean, torch.cat(parts), atol=1e-5)


@pytest.mark.slow
def test_plain_transformers_computes_the_same_raw_scores_padded_on_either_side(policy, tmp_path):
    model, tokenizer = trained(policy), load_tokenizer(policy)
    save_reward_model(model, tokenizer, tmp_path / "reward")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward").eval()
    assert plain.config.num_labels == 1
    raw, _ = raw_scores_of_groups(model, GROUPS, 100)
    for side, extra in (("right", 0), ("left", 0), ("left", 3)):
        tokenizer.padding_side = side
        length = max(map(len, SEQUENCES)) + extra
        batch = tokenizer.pad({"input_ids": SEQUENCES}, padding="max_length", max_length=length, return_tensors="pt")
        positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        with torch.no_grad():
            assert torch.allclose(plain(**batch, position_ids=positions).logits[:, 0], raw, atol=1e-5)


@pytest.mark.slow
def test_a_pad_token_that_is_the_end_token_changes_no_score(tmp_path):
    shared = trained(str(words_folder(tmp_path / "policy", pad_is_eos=True)))
    settings = json.loads((tmp_path / "policy" / "config.json").read_text())
    (tmp_path / "policy" / "config.json").write_text(json.dumps(settings | {"pad_token_id": 0}))
    apart = trained(str(tmp_path / "policy"))
    assert settings["pad_token_id"] == settings["eos_token_id"] == 1
    assert torch.equal(score(shared, SEQUENCES), score(apart, SEQUENCES))
    ended, cut = score(shared, [[5, 6, 1]]), score(shared, [[5, 6]])
    assert ended.item() != cut.item()


def test_the_end_token_learns_also_when_it_is_the_pad_token(tmp_path):
    model = trained(str(words_folder(tmp_path / "policy", pad_is_eos=True)))
    model.raw_scores(model.features(GROUPS)).sum().backward()
    assert model.network.get_input_embeddings().weight.grad[1].abs().sum() > 0


@pytest.mark.slow
def test_plain_transformers_reads_the_end_token_too_when_it_is_also_the_pad_token(tmp_path):
    path = str(words_folder(tmp_path / "policy", pad_is_eos=True))
    model, tokenizer = trained(path), load_tokenizer(path)
    save_reward_model(model, tokenizer, tmp_path / "reward")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward").eval()
    with torch.no_grad():
        logit = plain(torch.tensor([SEQUENCES[0]])).logits[0, 0]
    assert logit.item() == pytest.approx(raw_scores_of_groups(model, GROUPS, 100)[0][0].item(), abs=1e-5)


@pytest.mark.slow
def test_a_saved_model_scores_the_same_with_its_deviation_and_normalisation(policy, tmp_path):
    model, tokenizer = trained(policy), load_tokenizer(policy)
    set_normalisation(model, torch.tensor([1.0, 3.0]))
    before = score_groups(model, GROUPS)
    save_reward_model(model, tokenizer, tmp_path / "reward")
    loaded, _ = load_reward_model(str(tmp_path / "reward"))
    after = score_groups(loaded, GROUPS)
    assert torch.equal(after.mean, before.mean)
    assert torch.equal(after.deviation, before.deviation)
    assert (before.deviation > 0).all()
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    saved = json.loads((tmp_path / "reward" / "config.json").read_text())
    assert (saved["reward_shift"], saved["reward_scale"]) == (2.0, 1.0)
    assert "accord_packed" not in json.dumps(saved)


def test_normalised_scores_have_mean_zero_and_deviation_one_on_the_reference_samples(policy):
    model = trained(policy)
    raw, _ = raw_scores_of_groups(model, GROUPS, 100)
    set_normalisation(model, raw)
    normal = score_groups(model, GROUPS).mean
    assert normal.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert normal.std(correction=0).item() == pytest.approx(1.0, abs=1e-6)
    assert torch.allclose(normal * model.scale + model.shift, raw, atol=1e-5)


def test_equal_reference_samples_leave_the_scale_at_one(policy):
    model = trained(policy)
    set_normalisation(model, torch.tensor([2.5]))
    assert (model.shift, model.scale) == (2.5, 1.0)


def test_the_score_is_the_mean_of_the_ensemble_and_members_differ_by_their_priors(policy):
    model = trained(policy, heads=5)
    raw, members = raw_scores_of_groups(model, GROUPS, 100)
    assert members.shape == (4, 5)
    assert torch.allclose(members.mean(1), raw, atol=1e-5)
    assert torch.allclose(score_groups(model, GROUPS).deviation, members.std(1), atol=1e-6)


@pytest.mark.slow
def test_without_an_ensemble_the_deviation_is_zero(policy):
    model = trained(policy, heads=0)
    assert model.ensemble is None
    assert score_groups(model, GROUPS).deviation.tolist() == [0.0] * 4


@pytest.mark.slow
def test_the_ensemble_sends_no_gradient_into_the_trunk_or_the_main_head(policy):
    model = trained(policy)
    model.members(model.features(GROUPS)).square().sum().backward()
    assert model.ensemble.learned.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.network.parameters())


def test_priors_are_fixed_by_the_seed_and_have_the_documented_size():
    ensemble = Ensemble(heads=50, width=99, seed=3)
    assert ensemble.prior.std().item() == pytest.approx(0.1 / 10, rel=0.05)  # prior_scale / sqrt(width + 1)
    assert torch.allclose(Ensemble(50, 99, seed=3, prior_scale=0.5).prior, 5 * ensemble.prior)
    assert torch.equal(ensemble.prior, Ensemble(50, 99, seed=3).prior)
    assert not torch.equal(ensemble.prior, Ensemble(50, 99, seed=4).prior)
    assert [name for name, _ in ensemble.named_parameters()] == ["learned"]


@pytest.mark.slow
def test_continuing_from_a_reward_model_keeps_its_head_and_ensemble(policy, tmp_path):
    model, tokenizer = trained(policy), load_tokenizer(policy)
    save_reward_model(model, tokenizer, tmp_path / "reward")
    again = new_reward_model(str(tmp_path / "reward"), heads=4, seed=9)
    assert torch.equal(again.network.score.weight, model.network.score.weight)
    assert torch.equal(again.ensemble.prior, model.ensemble.prior)


def test_scoring_no_answers_returns_an_empty_tensor(policy):
    assert score(trained(policy), []).shape == (0,)


def test_a_missing_folder_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(BadInput, match="no model could be loaded"):
        new_reward_model(str(tmp_path / "nowhere"), heads=2, seed=0)
