"""Every causal kind can be a reward model and a critic, whether or not transformers has a classifier of that kind."""

import pytest
import torch
from test_kinds import model_of
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.learner.worlds.letters import ppo_job, tiny_model
from tests.learner.worlds.words import ranking_rows, reward_job, words_tokenizer
from training.learner import ppo, reward
from training.learner.models.loading import load_critic, load_scalar_model
from training.learner.models.packing import PromptGroup
from training.learner.models.reward_model import load_reward_model, new_reward_model, save_reward_model, score_groups
from training.learner.runtime.jobdir import BadInput, JobDirectory

pytestmark = pytest.mark.slow

KINDS = ("granite", "cohere", "olmoe", "gemma4_text", "lfm2", "llama", "gpt2")
GROUPS = [PromptGroup((5, 6, 7), ((8, 9, 10), (11, 1))), PromptGroup((20, 21), ((22, 23, 1),))]
SEQUENCES = [[*group.prompt, *completion] for group in GROUPS for completion in group.completions]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_scalar_head_on_any_causal_kind_reads_the_models_own_last_state_and_survives_saving(kind, tmp_path):
    policy, head = model_of(kind), torch.randn(1, 32, generator=torch.Generator().manual_seed(1))
    policy.save_pretrained(tmp_path / "policy")
    words = words_tokenizer()
    words.save_pretrained(tmp_path / "policy")
    states = [policy.base_model(torch.tensor([s]), use_cache=False).last_hidden_state[0, -1] for s in SEQUENCES]
    expected = torch.stack(states) @ head[0]

    model = new_reward_model(str(tmp_path / "policy"), heads=0, seed=0)
    assert not score_groups(model, GROUPS).mean.any()
    model.head.weight.copy_(head)
    torch.testing.assert_close(score_groups(model, GROUPS).mean, expected, atol=1e-4, rtol=1e-4)

    save_reward_model(model, words, tmp_path / "reward")
    loaded, _ = load_reward_model(str(tmp_path / "reward"))
    torch.testing.assert_close(score_groups(loaded, GROUPS).mean, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(load_critic(str(tmp_path / "reward")).score.weight, head)
    trunk = AutoModel.from_pretrained(tmp_path / "reward")
    assert all(torch.equal(weight, policy.base_model.state_dict()[name]) for name, weight in trunk.state_dict().items())


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@torch.no_grad()
def test_a_classifier_that_transformers_saved_loads_with_its_head_and_scores_the_same(kind, tmp_path):
    config = tiny_model(kind).config
    config.num_labels = 1
    plain = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    plain.save_pretrained(tmp_path)
    loaded = load_scalar_model(str(tmp_path))
    assert type(loaded) is type(plain)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in plain.state_dict().items())


def test_a_kind_that_is_no_causal_language_model_is_refused_with_a_sentence(tmp_path):
    AutoConfig.for_model("vit").save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="a ViT is not a causal language model"):
        load_scalar_model(str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "lora_rank"), [("cohere", 0), ("olmoe", 0), ("olmoe", 2)])
def test_reward_and_ppo_with_its_default_critic_run_on_a_kind_without_a_classifier(kind, lora_rank, tmp_path):
    torch.manual_seed(0)
    words = words_tokenizer()
    special = {"vocab_size": len(words), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    config = AutoConfig.from_pretrained(_saved(model_of(kind), tmp_path / "small"))
    config.update(special)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "policy")
    words.save_pretrained(tmp_path / "policy")
    ranked = reward_job(tmp_path / "reward", ranking_rows(24, held_out=8), learning_rate=1e-2, epochs=1,
                        batch_rankings=8, ensemble_heads=2, lora_rank=lora_rank)  # fmt: skip
    reward.main(ranked)
    assert JobDirectory(ranked).result()["path"] == "packed"
    settings = {"rewards": [{"name": "reward_model"}], "reward_model": str(ranked / "model"), "lora_rank": lora_rank}
    job = ppo_job(tmp_path / "ppo", ("thanks", "no never"), steps=2, batch_episodes=8, learning_rate=1e-3, **settings)
    ppo.main(job)
    assert JobDirectory(job).result()["steps"] == 2
    assert (job / "model" / "model.safetensors").is_file()


def _saved(model, folder):
    model.save_pretrained(folder)
    return folder
