"""The decoder of GPUs: the same logits from a step that can be recorded. The recording itself needs a GPU."""

import pytest
import torch
from test_fused_decoder import KNOWN, PROMPTS, STEPS, expect_the_model_s_logits, fused

from tests.learner.worlds.letters import tiny_model
from training.learner.models.forward_decoder import gather_prompts
from training.learner.models.loading import computing_in
from training.learner.sampling import cuda_graphs
from training.learner.sampling.cuda_graphs import GraphDecoder
from training.learner.sampling.fused_weights import gather_weights
from training.learner.sampling.sampler import SamplingParams, sample

needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs are recorded on a GPU")


@pytest.fixture(autouse=True)
def fill_new_memory_with_nan():
    """PyTorch fills new memory with NaN in its deterministic mode. A step over all columns must not read any."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def repeated(step):
    """Repeat a step as a recording does; its results must not depend on the repetitions."""
    for _ in range(3):
        step()
    return step


def graphed(model, prompts=PROMPTS, new_tokens=4, capture=repeated):
    return GraphDecoder(gather_weights(model), gather_prompts(prompts, model.device), new_tokens, capture)


@pytest.mark.parametrize("kind", KNOWN)
def test_every_step_gives_the_model_s_logits_however_often_it_is_taken(kind):
    model = tiny_model(kind)
    expect_the_model_s_logits(model, graphed(model))


@pytest.mark.parametrize("width", [1, 4, 10])
@pytest.mark.parametrize("kind", ["mistral", "qwen3"])
@torch.inference_mode()
def test_dropped_rows_and_exceeded_widths_record_a_new_step(kind, width, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "WIDTH", width)
    model, kept = tiny_model(kind, sliding_window=5) if kind == "mistral" else tiny_model(kind), torch.tensor([0, 2, 4])
    recorded = []
    decoder, plain = graphed(model, capture=lambda step: recorded.append(step) or step), fused(model)
    for each in (decoder, plain):
        each.read_prompts()
        each.read(torch.tensor(STEPS[0]))
        each.keep(kept)
    for tokens in STEPS[1:]:
        expected = plain.read(torch.tensor(tokens)[kept])
        torch.testing.assert_close(decoder.read(torch.tensor(tokens)[kept]), expected, atol=1e-5, rtol=0)
    # The longest prompt is 9 tokens: columns 9 to 12 are written, one by all rows, three by those that stay.
    assert len(recorded) == {1: 4, 4: 3, 10: 2}[width]


@torch.inference_mode()
def test_a_step_in_bf16_is_the_plain_one():
    model = tiny_model("qwen3")
    with computing_in("bfloat16"):
        decoder, plain = graphed(model), fused(model)
        for each in (decoder, plain):
            each.read_prompts()
        for tokens in STEPS:
            given, expected = (each.read(torch.tensor(tokens)) for each in (decoder, plain))
            torch.testing.assert_close(given.float(), expected.float(), atol=0.02, rtol=0)


@needs_a_gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KNOWN)
@torch.inference_mode()
def test_a_recorded_step_is_the_plain_one(kind, dtype, recwarn):
    model = tiny_model(kind).to("cuda")
    with computing_in(dtype):
        decoder, plain = graphed(model, capture=cuda_graphs.captured), fused(model)
        for each in (decoder, plain):
            each.read_prompts()
        for tokens in STEPS:
            given, expected = (each.read(torch.tensor(tokens, device="cuda")) for each in (decoder, plain))
            torch.testing.assert_close(given.float(), expected.float(), atol=0.02, rtol=0)
    assert not [warning for warning in recwarn if "CUDA graphs" in str(warning.message)]


@needs_a_gpu
def test_a_gpu_samples_the_same_text_as_a_cpu():
    params = SamplingParams(max_new_tokens=12, end_tokens=frozenset({2}), seed=3)
    model = tiny_model("llama")
    here = sample(model, PROMPTS, range(len(PROMPTS)), params, 5)
    there = sample(model.to("cuda"), PROMPTS, range(len(PROMPTS)), params, 5)
    assert [each.tokens for each in there] == [each.tokens for each in here]
