"""Every kind of model is exact, by the packed pass or by its own forward pass, or is refused with a sentence."""

import functools
import json
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from tests.learner.worlds.letters import LETTERS, letters_tokenizer, metrics, ppo_job
from training.learner import ppo
from training.learner import sample as sample_program
from training.learner.models.context_length import max_positions
from training.learner.models.generic_forward import path_of
from training.learner.models.loading import prepare
from training.learner.models.packed_attention import ATTENTION
from training.learner.models.packing import Episodes
from training.learner.models.token_outputs import PolicyTrunkCritic, compute_token_outputs, score_tokens
from training.learner.models.verdict import verdict_on
from training.learner.runtime.jobdir import BadInput, JobDirectory
from training.learner.sampling.sampler import SamplingParams, check_positions, sample

pytestmark = pytest.mark.slow

BASE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 64,
}  # fmt: skip
FAST: dict[str, dict[str, Any]] = {
    "llama": BASE,
    "qwen2": BASE,
    "qwen3": BASE,
    "mistral": BASE | {"sliding_window": 4},
    "gemma2": BASE | {"sliding_window": 4},
    "gemma3_text": BASE | {"sliding_window": 4},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64},
    "gpt_neox": BASE,
    "olmo": BASE,
    "olmo2": BASE,
    "qwen3_moe": BASE | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "mixtral": BASE | {"num_local_experts": 4},
    "phi3": BASE
    | {
        "max_position_embeddings": 64,
        "original_max_position_embeddings": 32,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0, 1.0, 1.0, 1.0],
            "long_factor": [3.0, 3.0, 3.0, 3.0],
            "original_max_position_embeddings": 32,
        },
    },
    "llama:dynamic": BASE
    | {
        "max_position_embeddings": 32,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
    },
    "gemma3": {
        "text_config": BASE | {"sliding_window": 4},
        "vision_config": {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        "mm_tokens_per_image": 4,
        "image_token_index": 63,
        "boi_token_index": 62,
        "eoi_token_index": 61,
    },
    "gemma4_text": BASE
    | {
        "sliding_window": 4,
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0,
        "vocab_size_per_layer_input": 64,
        "global_head_dim": 8,
    },
    "gemma4": {
        "text_config": BASE
        | {
            "sliding_window": 4,
            "hidden_size_per_layer_input": 0,
            "num_kv_shared_layers": 0,
            "vocab_size_per_layer_input": 64,
            "global_head_dim": 8,
        },
        "vision_config": None,
        "audio_config": None,
        "image_token_id": 60,
        "video_token_id": 61,
        "audio_token_id": 62,
    },
    "granite": BASE,
    "cohere": BASE,
    "olmoe": BASE | {"num_experts": 4, "num_experts_per_tok": 2},
    "phi": BASE,
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 64,
        "word_embed_proj_dim": 32,
    },
    "olmo3": BASE | {"sliding_window": 4},
    "smollm3": BASE,
}
GENERIC: dict[str, dict[str, Any]] = {
    "gpt_oss": BASE | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
    "qwen3_5_text": BASE
    | {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    },
    "qwen3_next": BASE
    | {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    },
    "lfm2": BASE | {"layer_types": ["conv", "full_attention"]},
    "nemotron_h": BASE
    | {
        "layers_block_type": ["mamba", "attention"],
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 8,
    },
    "granitemoehybrid": BASE
    | {
        "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
        "mamba_chunk_size": 8,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 32,
    },
    "jamba": BASE
    | {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "num_experts": 4,
        "mamba_d_state": 8,
        "use_mamba_kernels": False,
    },
    "falcon_mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "vocab_size": 64},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "vocab_size": 64},
    "mamba2": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "state_size": 8,
        "vocab_size": 64,
        "num_heads": 8,
        "head_dim": 8,
        "n_groups": 1,
        "chunk_size": 8,
    },
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64},
    "codegen": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "vocab_size": 64},
    "xglm": {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4, "vocab_size": 64},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "vocab_size": 64},
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "vocab_size": 64,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
    },
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64},
    "stablelm": BASE,
    "nemotron": BASE,
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "vocab_size": 64},
    "qwen3_5": {
        "text_config": BASE
        | {
            "layer_types": ["linear_attention", "full_attention"],
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
        "vision_config": {
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 32,
        },
        "image_token_id": 60,
        "video_token_id": 61,
    },
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 64, "attention_hidden_size": 32},
    "bamba": BASE
    | {
        "attn_layer_indices": [1],
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
        "mamba_chunk_size": 8,
    },
}
EPISODES = Episodes(
    [[5, 6, 7], [5, 6, 7], [9, 10, 11, 12, 13, 14, 3, 8]],
    [[1, 2, 3, 9, 8, 7, 6, 5, 4, 30], [4, 5], [6, 21, 33, 2, 14]],
)


def model_of(kind: str, **changes: Any) -> Any:
    """A random model, its attention sinks and biases included, with logits as far apart as a trained one's."""
    torch.manual_seed(0)
    settings = (FAST | GENERIC)[kind] | changes
    if "text_config" not in settings:
        settings |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind.split(":")[0], **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(4)
            elif float(parameter.std()) == 0:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@functools.cache
def plain_and_prepared(kind: str) -> tuple[Any, Any]:
    """Return the unchanged model and the prepared one. Both are made once per kind, because the probe takes longest."""
    return model_of(kind), prepare(model_of(kind), kind)


@torch.no_grad()
def own_log_probs(model: Any) -> torch.Tensor:
    """Return log-probs by an unchanged model's own forward pass, on each sequence alone."""
    found = []
    for prompt, completion in zip(EPISODES.prompts, EPISODES.completions, strict=True):
        logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0].log_softmax(-1)
        found.append(logits[len(prompt) - 1 : -1].gather(1, torch.tensor(completion)[:, None])[:, 0])
    return torch.cat(found)


@pytest.mark.parametrize("kind", [*FAST, *GENERIC])
def test_log_probs_are_those_of_the_models_own_forward_pass_on_each_sequence_alone(kind):
    plain, model = plain_and_prepared(kind)
    expected = own_log_probs(plain)
    assert path_of(model).is_fast == (kind in FAST), path_of(model)
    with torch.no_grad():
        found = compute_token_outputs(model, PolicyTrunkCritic(model), EPISODES, with_entropy=True)
    torch.testing.assert_close(found.log_probs, expected, atol=1e-4, rtol=0)
    assert len(found.values) == len(expected)
    score_tokens(model, EPISODES).log_probs.sum().backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("kind", [*FAST, *GENERIC])
def test_greedy_samples_are_the_likeliest_tokens_of_the_models_own_forward_pass(kind):
    plain, model = plain_and_prepared(kind)
    prompts = [[5, 6, 7], [9, 10, 11, 12, 13, 14, 3, 8], [5, 6, 7]]
    written = sample(model, prompts, [0, 1, 2], SamplingParams(8, frozenset({0}), temperature=0.0), 4)
    for prompt, completion in zip(prompts, written, strict=True):
        # Not generate(), whose cached step is wrong for some kinds.
        logits = plain(input_ids=torch.tensor([[*prompt, *completion.tokens]]), use_cache=False).logits[0]
        assert logits[len(prompt) - 1 : -1].argmax(-1).tolist() == completion.tokens


class Looks(LlamaForCausalLM):
    """A model whose tokens see later ones."""

    def forward(self, input_ids: Any = None, **options: Any) -> Any:
        output = super().forward(input_ids, **options)
        output.logits = output.logits + output.logits.mean(1, keepdim=True)
        return output


class LooksInside(LlamaForCausalLM):
    """A model whose trunk attends to later tokens."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.norm.register_forward_hook(lambda module, args, output: output + output.mean(1, keepdim=True))


@pytest.mark.parametrize("cls", [Looks, LooksInside])
def test_a_model_without_causal_attention_is_refused_with_a_sentence(cls):
    model = cls(AutoConfig.for_model("llama", **BASE)).eval()
    with pytest.raises(BadInput, match="my model: "):
        prepare(model, "my model")


def test_an_argument_of_attention_that_is_not_known_is_an_error():
    model = model_of("gpt_oss")
    model.config._attn_implementation = ATTENTION
    with pytest.raises(ValueError, match="s_aux"):
        model(input_ids=torch.tensor([[1, 2]]))


def test_a_window_longer_than_the_probe_is_found_by_the_layers_kinds():
    model = prepare(model_of("mistral", sliding_window=4096, max_position_embeddings=8192), "m")
    assert path_of(model).is_fast
    model = model_of("mistral", sliding_window=4096, max_position_embeddings=8192)
    model.config.layer_types = ["chunked_attention", "full_attention"]
    assert "chunked_attention" in path_of(prepare(model, "m")).why


@pytest.mark.parametrize("kind", ["phi3", "llama:dynamic"])
def test_texts_longer_than_fixed_rotary_factors_reach_are_refused(kind):
    model = prepare(model_of(kind), kind)
    assert max_positions(model.config) == 32
    with pytest.raises(BadInput, match="room for 32"):
        check_positions(model, [[1] * 30], 3)


@torch.no_grad()
def test_a_short_rows_log_probs_do_not_depend_on_the_longest_row_beside_it():
    model = prepare(model_of("phi3"), "phi3")
    alone = score_tokens(model, Episodes([[1, 2]], [[3, 4]])).log_probs
    beside = score_tokens(model, Episodes([[1, 2], [5] * 30], [[3, 4], [6] * 20])).log_probs[:2]
    torch.testing.assert_close(alone, beside, atol=1e-5, rtol=0)


def test_the_check_prints_the_path_on_which_a_folder_is_computed(tmp_path):
    verdicts = {}
    for kind in ("llama", "lfm2"):
        model_of(kind).save_pretrained(tmp_path / kind)
        letters_tokenizer().save_pretrained(tmp_path / kind)
        verdicts[kind] = verdict_on(str(tmp_path / kind))
    assert verdicts["llama"] == {"verdict": "fast", "scoring": "packed", "decoding": "packed", "why": ""}
    assert verdicts["lfm2"]["verdict"] == "generic" and "packed" in verdicts["lfm2"]["why"]
    assert verdict_on(str(tmp_path))["verdict"] == "refused"


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_ppo_and_sampling_run_on_a_hybrid_and_report_the_generic_path(tmp_path, lora_rank):
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("lfm2", **GENERIC["lfm2"] | {"vocab_size": len(LETTERS), "eos_token_id": 0})
    )
    model.save_pretrained(tmp_path / "policy")
    letters_tokenizer().save_pretrained(tmp_path / "policy")
    job = ppo_job(tmp_path / "job", ("a", "b c"), steps=2, batch_episodes=8, critic="shared", lora_rank=lora_rank)
    ppo.main(job)
    result = JobDirectory(job).result()
    assert result["path"] == "generic: padded rows, cached decoding" and "packed" in result["path_reason"]
    assert abs(metrics(job)[0]["kl"]) < 1e-4  # the policy's first log-probs are the reference's and the sampler's
    config = {"model": str(job / "model"), "max_completion_tokens": 3}
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "config.json").write_text(json.dumps(config))
    (tmp_path / "samples" / "prompts.jsonl").write_text((job / "prompts.jsonl").read_text())
    sample_program.main(tmp_path / "samples")
    assert JobDirectory(tmp_path / "samples").result()["path"].startswith("generic")
