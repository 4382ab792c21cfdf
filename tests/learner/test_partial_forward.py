"""The partial pass equals transformers' own pass, gradients included."""

import pytest
import torch

from tests.learner.worlds.letters import tiny_model
from training.learner.models.loading import computing_in
from training.learner.models.log_probs import token_scores
from training.learner.models.packed_attention import forward_packed
from training.learner.models.packed_layouts import causal_layout
from training.learner.models.packing import Episodes, pack_sequences
from training.learner.models.partial_forward import is_supported, states_at
from training.learner.models.token_outputs import linear_head, score_tokens

KNOWN = ("llama", "mistral", "qwen2", "qwen3")
LENGTHS = (3, 17, 5, 16, 40, 4, 9, 33, 20, 38)  # of several parts of like lengths
SEQUENCES = [[(7 * row + 3 * place) % 64 for place in range(length)] for row, length in enumerate(LENGTHS)]


def gradients(model, output):
    """Return the gradients of some function of the output."""
    model.zero_grad()
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
    (output * weights).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KNOWN)
def test_states_and_gradients_are_those_of_the_model_s_own_pass(kind):
    model, batch = tiny_model(kind), pack_sequences(SEQUENCES)
    assert is_supported(model.base_model)
    places = torch.tensor([2, 2, 80, 7, 41, 42, 130, 80])  # in any order, some more than once
    found = states_at(model, batch, places)
    expected = forward_packed(model.base_model, batch).last_hidden_state[0, places]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    ours, theirs = gradients(model, found), gradients(model, expected)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-4, rtol=1e-4, msg=name)


def test_biases_grouped_heads_and_tied_embeddings_are_supported():
    model = tiny_model("llama", attention_bias=True, mlp_bias=True, tie_word_embeddings=True, num_key_value_heads=1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    batch, places = pack_sequences(SEQUENCES), torch.arange(50)
    scores = token_scores(states_at(model, batch, places), linear_head(model), places, 0.8, with_entropy=True)
    logits = forward_packed(model, batch).logits[0, places] / 0.8
    expected = logits.log_softmax(-1)[places, places]
    torch.testing.assert_close(scores.log_probs, expected, atol=1e-5, rtol=1e-5)
    ours, theirs = gradients(model, scores.log_probs), gradients(model, expected)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-3, rtol=1e-3, msg=name)


@pytest.mark.parametrize("learned", ["log_probs", "entropy", "both"])
def test_the_gradients_of_log_probabilities_and_of_entropy_are_right(learned):
    """Compare with the gradients of the formulas, in double precision."""
    generator = torch.Generator().manual_seed(0)
    states, head = (torch.randn(size, 5, generator=generator).double().requires_grad_() for size in (6, 9))
    tokens = torch.tensor([0, 8, 3, 3, 1, 7])

    def function(states, head):
        logits = states @ head.T
        log_probs = logits.log_softmax(-1)
        parts = {"log_probs": log_probs[range(6), tokens], "entropy": -(log_probs.exp() * log_probs).sum(-1)}
        return sum(parts.values()) if learned == "both" else parts[learned]

    scores = token_scores(states.float(), head.float(), tokens, 1.0, with_entropy=True)
    ours = scores.log_probs + scores.entropy if learned == "both" else getattr(scores, learned)
    theirs, weights = function(states, head), torch.randn(6, generator=generator)
    torch.testing.assert_close(ours, theirs.float(), atol=1e-5, rtol=1e-5)
    for one, other in zip(
        *(torch.autograd.grad(y @ weights.to(y), (states, head)) for y in (ours, theirs)), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_many_rows_are_computed_in_chunks(monkeypatch):
    model = tiny_model()
    episodes = Episodes([[5, 6, 7], [8]], [[1, 2, 3, 0], [4, 5, 6, 7, 8, 9]])
    whole = score_tokens(model, episodes, with_entropy=True)
    expected = gradients(model, whole.log_probs)
    for name, size in (
        ("CHUNK_LOGITS", 3 * 64),
        ("MIN_CHUNK_ROWS", 1),
        ("SOFTMAX_LOGITS", 2 * 64),
        ("VOCABULARY_SLICE", 5),
    ):
        monkeypatch.setattr(f"training.learner.models.log_probs.{name}", size)
    with torch.no_grad():
        unlearned = score_tokens(model, episodes, with_entropy=True)
    torch.testing.assert_close(torch.stack(unlearned), torch.stack(whole), atol=1e-6, rtol=0)
    parts = score_tokens(model, episodes, with_entropy=True)
    torch.testing.assert_close(torch.stack(parts), torch.stack(whole), atol=1e-6, rtol=0)
    for name, gradient in gradients(model, parts.log_probs).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("kind", KNOWN)
def test_under_autocast_it_stays_as_near_as_the_model_s_own_pass(kind):
    model, batch, places = tiny_model(kind), pack_sequences(SEQUENCES), torch.arange(0, 180, 3)
    exact = forward_packed(model.base_model, batch).last_hidden_state[0, places]
    with computing_in("bfloat16"):
        ours, theirs = (
            states_at(model, batch, places),
            forward_packed(model.base_model, batch).last_hidden_state[0, places],
        )
        scores = token_scores(ours, linear_head(model), places % 64, 1.0, with_entropy=True)
    (scores.log_probs.sum() + scores.entropy.sum()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert 0 < (ours - exact).abs().mean() <= 1.5 * (theirs - exact).abs().mean()


@pytest.mark.parametrize("kind", ["gpt2", "gemma", "gemma2", "gemma3_text"])
def test_other_kinds_go_through_their_own_pass(kind):
    model, batch, places = tiny_model(kind), pack_sequences(SEQUENCES), torch.tensor([3, 100])
    assert not is_supported(model.base_model) and linear_head(model) is None
    expected = forward_packed(model.base_model, batch).last_hidden_state[0, places]
    assert torch.equal(states_at(model, batch, places), expected)


def test_a_replaced_layer_uses_its_own_forward_pass():
    model = tiny_model()
    model.model.layers[1] = type("Other", (type(model.model.layers[1]),), {})(model.config, 1)
    assert not is_supported(model.base_model)


def test_rows_of_like_lengths_are_attended_together():
    lengths = torch.tensor(LENGTHS)
    total = int(lengths.sum())
    layout = causal_layout(torch.arange(total), lengths, torch.ones(total, dtype=torch.bool), "cpu")
    assert [group.key_rows.shape for group in layout.groups] == [(4, 40), (4, 17), (2, 4)]
    assert len(layout.slots.unique()) == total
