"""One base, four roles: adapters that change nothing at first, do not disturb each other, and survive a merge."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.learner.worlds.letters import LETTERS, letters_tokenizer, policy_folder, ppo_job, tiny_model
from tests.learner.worlds.words import ranking_rows, reward_job, words_folder
from training.learner import ppo, reward, sft
from training.learner.models.loading import computing_in, load_policy
from training.learner.models.lora import AdapterView, LoraConfig, SharedBase, critic_view, load_scoring_view
from training.learner.models.packed_attention import forward_packed
from training.learner.models.packing import Episodes, pack_sequences
from training.learner.models.peft_format import read_adapter
from training.learner.models.reward_model import load_reward_model, score
from training.learner.models.token_outputs import critic_values
from training.learner.runtime.config import PpoConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory
from training.learner.runtime.processes import Processes

pytestmark = pytest.mark.slow

SEQUENCES = [[5, 6, 7, 8], [9, 3]]
LORA = LoraConfig(rank=2, alpha=4.0)


def logits(model):
    with torch.no_grad():
        return forward_packed(model, pack_sequences(SEQUENCES)).logits[0]


def learned(role, seed=0):
    """The role as if it had learned: its B is no longer zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for adapter in role.adapters.values():
            adapter.b.normal_(generator=generator)
    return role


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3", "gemma2"])
def test_a_new_adapter_changes_nothing_and_one_that_learned_only_its_own_role(kind):
    model = tiny_model(kind)
    before = logits(model)
    base = SharedBase(model, "here")
    policy, critic, reference = (
        AdapterView(base, "policy", LORA),
        AdapterView(base, "critic", LORA),
        AdapterView(base, "", None),
    )
    assert torch.equal(logits(policy), before)
    assert len(base.layers) == (4 if kind == "gpt2" else 7) * 2
    learned(policy)
    assert (logits(policy) - before).abs().max() > 0.1
    assert torch.equal(logits(critic), before) and torch.equal(logits(reference), before)
    assert not list(reference.parameters()) and not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_merged_folder_gives_plain_transformers_the_same_logits(tmp_path, kind):
    base = SharedBase(tiny_model(kind), "here")
    policy = learned(AdapterView(base, "policy", LORA))
    expected, untouched = logits(policy), {name: w.clone() for name, w in base.model.state_dict().items()}
    policy.save_pretrained(tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", attn_implementation="accord_packed").eval()
    torch.testing.assert_close(logits(plain), expected, atol=2e-4, rtol=1e-5)
    assert all(torch.equal(w, untouched[name]) for name, w in base.model.state_dict().items())
    assert torch.equal(logits(policy), expected)


def test_an_adapter_s_gradient_is_that_of_the_weight_it_stands_for():
    """dL/dB = s·dL/dW·Aᵀ and dL/dA = s·Bᵀ·dL/dW, with dL/dW from a model that holds the merged weights."""
    base = SharedBase(tiny_model(), "here")
    policy = learned(AdapterView(base, "policy", LORA))
    place = "layers.1.self_attn.q_proj"
    adapter, layer = policy.adapters[place.replace(".", "/")], base.layers[place]
    forward_packed(policy, pack_sequences(SEQUENCES)).logits.square().sum().backward()
    with base.merged("policy") as model:
        layer.layer.weight.requires_grad_(True)
        forward_packed(model, pack_sequences(SEQUENCES)).logits.square().sum().backward()
        whole = layer.layer.weight.grad
    scale = LORA.alpha / LORA.rank
    torch.testing.assert_close(adapter.b.grad, scale * whole @ adapter.a.T, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(adapter.a.grad, scale * adapter.b.T @ whole, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_under_autocast_an_adapter_learns_what_it_does_in_float32(kind):
    found = {}
    for dtype in ("float32", "bfloat16"):
        policy = learned(AdapterView(SharedBase(tiny_model(kind), "here"), "policy", LoraConfig(rank=2, alpha=0.1)))
        with computing_in(dtype):
            output = forward_packed(policy, pack_sequences(SEQUENCES)).logits
        output.float().log_softmax(-1)[..., 3].sum().backward()
        found[dtype] = torch.cat([p.grad.flatten() for p in policy.parameters()])
    assert found["bfloat16"].dtype == torch.float32
    assert torch.cosine_similarity(*found.values(), dim=0) > 0.99


def test_an_adapted_layer_allocates_no_second_tensor_of_its_output_width():
    base = SharedBase(tiny_model(), "here")
    policy = learned(AdapterView(base, "policy", LORA))
    layer, states = base.layers["layers.0.mlp.up_proj"], torch.randn(1, 9, 32)
    with base.active_adapter(policy.name):
        expected = layer.layer(states) + states @ layer.adapters["policy"].change().T
        with torch.profiler.profile(profile_memory=True) as profile:
            found = layer(states)
    torch.testing.assert_close(found, expected)
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.key_averages())
    assert allocated < 2 * found.nbytes


def test_an_adapter_begins_the_same_for_one_seed_and_another_for_another():
    drawn = [AdapterView(SharedBase(tiny_model(), "here"), name, LORA, seed).state_dict()
             for name, seed in (("policy", 1), ("policy", 1), ("policy", 2), ("critic", 1))]  # fmt: skip
    first = "adapters.layers/0/mlp/up_proj.a"
    assert torch.equal(drawn[0][first], drawn[1][first])
    assert not torch.equal(drawn[0][first], drawn[2][first]) and not torch.equal(drawn[0][first], drawn[3][first])


def test_the_log_and_the_result_name_the_adapted_matrices_and_the_frozen_share(tmp_path, capsys):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
             "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
             "vocab_size": len(LETTERS), "eos_token_id": 0}  # fmt: skip
    AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3_moe", **sizes)).save_pretrained(tmp_path / "policy")
    letters_tokenizer().save_pretrained(tmp_path / "policy")
    job = ppo_job(tmp_path / "job", steps=1, batch_episodes=4, lora_rank=2, critic="shared")
    ppo.main(job)
    result = JobDirectory(job).result()
    attention, experts, router = 2 * 32 * 32 + 2 * 32 * 16, 4 * 3 * 32 * 32, 4 * 32  # weights of a layer
    share = (experts + router) / (attention + experts + router)
    assert result["lora_adapted"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert result["lora_frozen"] == ["experts.down_proj", "experts.gate_up_proj", "gate"]
    assert result["lora_frozen_share"] == pytest.approx(share)
    assert "q_proj, v_proj; 80% of the matrix weights stay frozen, in experts" in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A reward model that was trained as an adapter on a policy's base."""
    folder = reward_job(tmp_path_factory.mktemp("lora") / "job", ranking_rows(90, held_out=30), lora_rank=4,
                        learning_rate=1e-2, epochs=8, batch_rankings=8, ensemble_heads=3)  # fmt: skip
    reward.main(folder)
    return folder


@pytest.mark.slow
def test_a_reward_model_learns_as_an_adapter(trained):
    assert JobDirectory(trained).result()["held_out_accuracy"] > 0.75
    start, end = (load_file(folder / "model.safetensors") for folder in (trained.parent / "policy", trained / "model"))
    assert torch.equal(start["model.embed_tokens.weight"], end["model.embed_tokens.weight"])  # has no adapter
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.linalg.matrix_rank(end[name] - start[name], rtol=1e-3) == 4


@pytest.mark.slow
def test_its_head_and_scores_survive_save_load_and_merge(trained):
    merged, _ = load_reward_model(str(trained / "model"))
    policy, _ = load_policy(str(trained.parent / "policy"))
    on_base, _ = load_reward_model(str(trained / "model"), base=SharedBase(policy, str(trained.parent / "policy")))
    assert isinstance(on_base.network, AdapterView) and not isinstance(merged.network, AdapterView)
    torch.testing.assert_close(score(on_base, SEQUENCES), score(merged, SEQUENCES), atol=1e-5, rtol=0)
    plain = AutoModelForSequenceClassification.from_pretrained(trained / "model").eval()
    raw = torch.stack([plain(torch.tensor([sequence])).logits[0, 0] for sequence in SEQUENCES]).detach()
    torch.testing.assert_close((raw - merged.shift) / merged.scale, score(on_base, SEQUENCES), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_reward_model_of_another_base_is_loaded_completely(trained, tmp_path):
    words_folder(tmp_path / "other")
    other, _ = load_policy(str(tmp_path / "other"))
    with torch.no_grad():
        other.get_input_embeddings().weight.add_(1)
    other.save_pretrained(tmp_path / "other")
    base = SharedBase(other, str(tmp_path / "other"))
    assert load_scoring_view(base, "reward", str(trained / "model")) is None
    assert not isinstance(load_reward_model(str(trained / "model"), base=base)[0].network, AdapterView)


@pytest.mark.slow
def test_a_critic_starts_from_the_reward_model_on_the_same_base(trained):
    policy, _ = load_policy(str(trained.parent / "policy"))
    base = SharedBase(policy, str(trained.parent / "policy"))
    critic = critic_view(base, str(trained / "model"), LORA, 0)
    model, _ = load_reward_model(str(trained / "model"))
    with torch.no_grad():
        values = critic_values(critic, Episodes([[5, 6, 7, 8]], [[9, 3]]))
    torch.testing.assert_close(values, score(model, [[5, 6, 7, 8], [5, 6, 7, 8, 9]]), atol=1e-5, rtol=0)
    assert all(parameter.requires_grad for parameter in critic.parameters())


@pytest.mark.slow
def test_a_round_holds_one_base_and_its_roles_learn_apart(trained, tmp_path):
    model = str(trained.parent / "policy")
    rows = [{"prompt_id": i, "messages": [{"role": "user", "content": word}]} for i, word in enumerate(["wait", "no"])]
    folder = tmp_path / "ppo"
    folder.mkdir()
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"model": model, "reward_model": str(trained / "model"), "lora_rank": 4, "steps": 2, "batch_episodes": 8,
              "max_completion_tokens": 6, "eval_prompts": 2, "optimum_samples": 0, "learning_rate": 0.01}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    context = ppo.load_context(PpoConfig.from_json(config), Processes())
    assert context.policy.base is context.reference.base is context.critic.base
    ppo.main(folder)
    first, second = JobDirectory(folder).metrics()
    assert first["kl"] == 0.0 and first["first_approx_kl"] == 0.0 and second["kl"] != 0.0
    assert first["value_loss"] > 0 and first["critic_gradient_norm"] > 0
    merged, _ = load_policy(str(folder / "model"))
    again = AdapterView(SharedBase(load_policy(model)[0], model), "policy", LoraConfig(4, 16.0))
    again.load_adapter(read_adapter(folder / "model" / "adapter", again.base.model))
    torch.testing.assert_close(logits(merged), logits(again), atol=1e-4, rtol=1e-4)


def test_a_critic_that_cannot_be_put_on_the_base_is_refused(tmp_path):
    policy_folder(tmp_path / "policy")
    job = ppo_job(tmp_path / "job", lora_rank=2, critic_model=str(tmp_path / "policy"))
    with pytest.raises(BadInput, match="critic_model must be a reward model that was trained as an adapter"):
        ppo.main(job)


def test_sft_learns_as_an_adapter(tmp_path):
    policy_folder(tmp_path / "policy")
    folder = tmp_path / "job"
    folder.mkdir()
    row = {"messages": [{"role": "user", "content": "a"}], "completion": "b c d"}
    (folder / "demonstrations.jsonl").write_text((json.dumps(row) + "\n") * 4)
    config = {"model": str(tmp_path / "policy"), "lora_rank": 2, "learning_rate": 0.02, "epochs": 8, "batch_tokens": 10}
    (folder / "config.json").write_text(json.dumps(config))
    sft.main(folder)
    losses = [line["loss"] for line in JobDirectory(folder).metrics()]
    assert losses[-1] < 0.7 * losses[0] and (folder / "model" / "adapter" / "adapter_model.safetensors").is_file()
    start, end = (load_file(place / "model.safetensors") for place in (tmp_path / "policy", folder / "model"))
    assert torch.equal(start["transformer.wte.weight"], end["transformer.wte.weight"])
    assert not torch.equal(start["transformer.h.0.mlp.c_fc.weight"], end["transformer.h.0.mlp.c_fc.weight"])


def test_with_adapters_a_policy_improves(tmp_path):
    policy_folder(tmp_path / "policy")
    job = ppo_job(tmp_path / "job", steps=12, batch_episodes=128, learning_rate=0.02, kl_coefficient=0.1, epochs=2,
                  algorithm="rloo", completions_per_prompt=128, lora_rank=4)  # fmt: skip
    ppo.main(job)
    objectives = [line["objective"] for line in JobDirectory(job).metrics()]
    assert objectives[-1] > objectives[0] + 0.4
