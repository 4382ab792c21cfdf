"""The world of the learner's benchmarks is what its documentation says: completions that end by chance, not by text."""

import pytest
import torch

from tests.benchmarks.learner import ppo, world


@pytest.mark.parametrize("size", ["0.1M", "1M", "5M"])
def test_a_completion_ends_after_about_forty_tokens_whatever_was_said(size):
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
    assert ppo.holds({"reward": reward, "kl": kl} | errors, peer) is equal
