"""The benchmarks' models have the documented properties: completions end by chance, not by text."""

import pytest
import torch

from tests.benchmarks.learner import machine, ppo, rloo, world


@pytest.mark.slow
@pytest.mark.parametrize("size", ["0.1M", "1M", "5M"])
def test_the_end_probability_is_about_one_in_forty_after_any_text(size):
    model = world.policy(size).eval()
    texts = torch.randint(2, world.VOCABULARY, (8, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        chances = model(texts).logits.softmax(-1)[:, :, world.END]
    assert chances.min() > 1 / 120 and chances.max() < 3 / 40


@pytest.mark.parametrize(
    ("reward", "kl", "equal"),
    [(0.5, 0.7, True), (0.4, 0.6, True), (0.2, 0.7, False), (0.9, 1.3, False), (0.0, 0.0, False)],
    ids=["the same", "within chance", "less reward", "more KL", "nothing learned"],
)
def test_quality_is_equal_at_no_less_reward_and_no_more_kl(reward, kl, equal):
    errors = {"reward_error": 0.06, "kl_error": 0.08}  # two of the difference: 0.17 and 0.23
    peer = {"reward": 0.5, "kl": 0.7} | errors
    assert ppo.is_equal_quality({"reward": reward, "kl": kl} | errors, peer) is equal


@pytest.mark.parametrize("size", ["0.1M", "1M"])
def test_the_count_of_weights_equals_that_of_the_model(size):
    model = world.policy(size)
    layers = sum(m.weight.numel() for m in model.model.layers.modules() if isinstance(m, torch.nn.Linear))
    assert machine.trunk_weights(size) == layers
    assert machine.policy_weights(size) == layers + model.lm_head.weight.numel()
    with torch.no_grad():
        cache = model(torch.ones(1, 1, dtype=torch.long), use_cache=True).past_key_values
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert machine.cache_bytes(size) == 4 * held


def test_shares_of_the_peak_by_hand():
    """Four completions of a prompt: a quarter of its 40 tokens for each; one pass of updates, no critic."""
    best = {"operations": 1e9, "bytes": 1e6}
    assert machine.Need(operations=2e6).share(100, best) == pytest.approx(0.2)
    assert machine.Need(bytes=5e3).share(100, best) == pytest.approx(0.5)
    trunk, vocabulary = 32 * 8 * 16 + 3 * 32 * 128, 32 * 2048
    written = (1 - 0.975**64) * 40
    read = 10 + written
    passes = 2 * 2 * (trunk * read + vocabulary * written) + 2 * trunk * read
    updates = 6 * (trunk * read + vocabulary * written)
    assert rloo.needs("rloo", "0.1M", "ours").operations == pytest.approx(passes + updates)
