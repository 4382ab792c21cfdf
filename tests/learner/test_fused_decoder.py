"""The fused decoder: the model's own logits, for supported architectures, from the current weights."""

import pytest
import torch
from torch import nn

from tests.learner.worlds.letters import tiny_model
from training.learner.models.forward_decoder import ForwardDecoder, gather_prompts
from training.learner.models.gradient_checkpointing import checkpoint_layers
from training.learner.models.loading import computing_in
from training.learner.models.lora import AdapterView, LoraConfig, SharedBase
from training.learner.sampling.fused_decoder import FusedDecoder
from training.learner.sampling.fused_weights import gather_weights
from training.learner.sampling.sampler import SamplingParams, sample

KNOWN = ("llama", "mistral", "qwen2", "qwen3", "gemma")
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 0, 14], [8], [20, 21, 22, 23, 24, 25, 26, 27, 28]]
STEPS = [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12, 13, 14, 15], [16, 17, 18, 19, 20]]


def logits_of(model, sequences):
    """Return the logits after each sequence's last token, by transformers' eager attention, one at a time."""
    model.set_attn_implementation("eager")
    found = torch.stack([model(torch.tensor([sequence])).logits[0, -1] for sequence in sequences])
    model.set_attn_implementation("accord_packed")
    return found


def fused(model, prompts=PROMPTS, new_tokens=4):
    return FusedDecoder(gather_weights(model), gather_prompts(prompts, model.device), new_tokens)


@torch.inference_mode()
def expect_the_model_s_logits(model, decoder):
    """Check the logits after the prompts and after every step."""
    sequences = PROMPTS
    torch.testing.assert_close(decoder.read_prompts(), logits_of(model, sequences), atol=1e-4, rtol=0)
    for tokens in STEPS:
        sequences = [[*sequence, token] for sequence, token in zip(sequences, tokens, strict=True)]
        expected = logits_of(model, sequences)
        torch.testing.assert_close(decoder.read(torch.tensor(tokens)), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KNOWN)
def test_every_step_gives_the_model_s_logits(kind):
    model = tiny_model(kind)
    expect_the_model_s_logits(model, fused(model))


@pytest.mark.parametrize("kind", KNOWN)
def test_every_step_of_a_policy_with_an_adapter_gives_its_logits(kind):
    view = AdapterView(SharedBase(tiny_model(kind), "here"), "policy", LoraConfig(2, 4.0))
    with torch.no_grad():
        for adapter in view.adapters.values():
            adapter.b.normal_(std=0.1)
    decoder = fused(view)
    with view.base.merged("policy") as model:
        expect_the_model_s_logits(model, decoder)
    checkpoint_layers(view)
    assert gather_weights(view) is None  # less memory was asked for


@pytest.mark.parametrize("kind", KNOWN)
@torch.inference_mode()
def test_dropping_finished_rows_does_not_change_the_others(kind):
    model, kept = tiny_model(kind), torch.tensor([0, 2, 4])
    decoder, whole = fused(model), fused(model)
    for each in (decoder, whole):
        each.read_prompts()
        each.read(torch.tensor(STEPS[0]))
    decoder.keep(kept)
    for tokens in STEPS[1:]:
        expected = whole.read(torch.tensor(tokens))[kept]
        torch.testing.assert_close(decoder.read(torch.tensor(tokens)[kept]), expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_tied_embeddings_grouped_heads_and_equal_prompt_lengths_are_supported():
    model = tiny_model("qwen3", tie_word_embeddings=True, num_key_value_heads=1)
    prompts = [[1, 2, 3], [4, 5, 6]]
    decoder = fused(model, prompts, 1)
    decoder.read_prompts()
    expected = logits_of(model, [[1, 2, 3, 9], [4, 5, 6, 8]])
    torch.testing.assert_close(decoder.read(torch.tensor([9, 8])), expected, atol=1e-4, rtol=0)


def test_the_decoder_uses_the_current_weights_during_training():
    model, params = tiny_model(), SamplingParams(6, frozenset(), temperature=0)
    before = sample(model, PROMPTS, range(5), params, 5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    after = sample(model, PROMPTS, range(5), params, 5)
    assert [c.tokens for c in after] != [c.tokens for c in before]
    with torch.no_grad():
        expected = logits_of(model, [[*p, *c.tokens[:-1]] for p, c in zip(PROMPTS, after, strict=True)]).argmax(-1)
    assert [c.tokens[-1] for c in after] == expected.tolist()


@torch.inference_mode()
def test_under_autocast_it_computes_in_bfloat16_and_stays_near():
    model = tiny_model()
    exact, near = fused(model), None
    exact.read_prompts()
    with computing_in("bfloat16"):
        near = fused(model)
        near.read_prompts()
        rough = near.read(torch.tensor(STEPS[0]))
        forward = ForwardDecoder(model, gather_prompts(PROMPTS, model.device), 1)
        forward.read_prompts()
        own = forward.read(torch.tensor(STEPS[0]))
    assert rough.dtype == torch.bfloat16
    expected = exact.read(torch.tensor(STEPS[0])).log_softmax(-1)
    error = (rough.float().log_softmax(-1) - expected).abs().mean()
    assert 0 < error <= 1.5 * (own.float().log_softmax(-1) - expected).abs().mean()  # as far as the model's own pass


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "gemma3_text"])
def test_other_kinds_go_through_their_own_forward_pass(kind):
    assert gather_weights(tiny_model(kind)) is None


def test_a_model_with_unexpected_modules_is_not_decoded_by_fused_steps():
    assert gather_weights(tiny_model()) is not None
    assert gather_weights(tiny_model("llama", attention_bias=True)) is None  # its output matrix has a bias, too
    patched = tiny_model()
    patched.model.layers[1].mlp.up_proj = nn.Sequential(patched.model.layers[1].mlp.up_proj)
    assert gather_weights(patched) is None
    rotated = tiny_model()
    rotated.model.rotary_emb.rope_type = "dynamic"
    assert gather_weights(rotated) is None
