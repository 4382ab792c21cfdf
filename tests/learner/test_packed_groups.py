"""A packed pass gives every completion the same outputs as a separate pass."""

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from training.learner.models import packed_layouts
from training.learner.models.packed_attention import ATTENTION
from training.learner.models.packing import PromptGroup, pack_groups
from training.learner.models.partial_forward import states_at

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "num_labels": 1,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 1,
}
KINDS = {
    "llama": lambda: LlamaConfig(**SMALL),
    "qwen2": lambda: Qwen2Config(**SMALL),
    "qwen2 with windows": lambda: Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=4, max_window_layers=1),
    "qwen3": lambda: Qwen3Config(**SMALL),
    "mistral with windows": lambda: MistralConfig(**SMALL, sliding_window=4),
    "gpt2": lambda: GPT2Config(
        vocab_size=50, n_embd=32, n_layer=3, n_head=4, n_positions=64, pad_token_id=0, eos_token_id=1, num_labels=1
    ),
    "gemma": lambda: GemmaConfig(**SMALL),
    "gemma2 with windows and soft caps": lambda: Gemma2Config(
        **SMALL, sliding_window=4, query_pre_attn_scalar=8, attn_logit_softcapping=2.0
    ),
    "gemma3 with windows": lambda: Gemma3TextConfig(**SMALL, sliding_window=4, query_pre_attn_scalar=8),
}
GROUPS = [
    PromptGroup(prompt=(5, 6, 7), completions=((8, 9, 1), (10, 1), (11, 12, 13, 14, 15, 16, 1), (1,))),
    PromptGroup(prompt=(), completions=((20, 21),)),
    PromptGroup(prompt=tuple(range(20, 31)), completions=((31, 1), (32, 33, 34, 1))),
]


def model_of(kind: str, attention: str):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(KINDS[kind](), attn_implementation=attention)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_of_packed_completions_are_those_of_each_completion_alone(kind):
    plain = model_of(kind, "eager")
    batch = pack_groups(GROUPS)
    with torch.no_grad():
        packed = states_at(model_of(kind, ATTENTION), batch, batch.last)
        alone = [
            plain.base_model(torch.tensor([[*group.prompt, *completion]])).last_hidden_state[0, -1]
            for group in GROUPS
            for completion in group.completions
        ]
    assert torch.allclose(packed, torch.stack(alone), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["llama", "qwen2 with windows", "qwen3", "mistral with windows", "gpt2", "gemma2 with windows and soft caps"],
)
@pytest.mark.parametrize("is_long", [False, True], ids=["", "as of long prompts"])
def test_gradients_of_packed_completions_are_those_of_each_completion_alone(kind, is_long, monkeypatch):
    if is_long:  # several chunks for a prompt, the first beside the prompt's own keys, the others beside copies
        monkeypatch.setattr(packed_layouts, "CHUNK_TOKENS", (1, 4))
        monkeypatch.setattr(packed_layouts, "MIN_VIEWED_PROMPT", 3)
    packed, plain = model_of(kind, ATTENTION), model_of(kind, "eager")
    batch = pack_groups(GROUPS)
    sequences = [[*group.prompt, *completion] for group in GROUPS for completion in group.completions]
    weights = torch.randn(len(sequences), 32, generator=torch.Generator().manual_seed(0))
    (states_at(packed, batch, batch.last) * weights).sum().backward()
    for sequence, weight in zip(sequences, weights, strict=True):
        (plain.base_model(torch.tensor([sequence])).last_hidden_state[0, -1] * weight).sum().backward()
    for (name, ours), theirs in zip(packed.base_model.named_parameters(), plain.base_model.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4), name


def test_the_prompt_is_computed_once():
    batch = pack_groups(GROUPS)
    assert batch.tokens.shape == (1, sum(group.tokens for group in GROUPS))
    assert GROUPS[0].tokens == 3 + 3 + 2 + 7 + 1


def test_positions_start_again_after_the_prompt():
    batch = pack_groups(GROUPS[:1])
    assert batch.positions[0].tolist() == [0, 1, 2, 3, 4, 5, 3, 4, 3, 4, 5, 6, 7, 8, 9, 3]
    assert batch.last.tolist() == [5, 7, 14, 15]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral with windows"])
def test_the_last_layer_computes_the_last_tokens_only(kind):
    model, seen = model_of(kind, ATTENTION), []
    for layer in model.model.layers:
        layer.mlp.down_proj.register_forward_hook(lambda _, inputs, output: seen.append(len(output)))
    batch = pack_groups(GROUPS)
    states_at(model, batch, batch.last)
    assert seen == [batch.tokens.shape[1]] * 2 + [len(batch.last)]


def test_an_empty_completion_is_refused():
    with pytest.raises(ValueError, match="empty completion"):
        pack_groups([PromptGroup((1, 2), ((3,), ()))])
