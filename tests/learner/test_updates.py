"""Updates from one batch: the same for any micro-batches, as many steps as set, limited by max_update_kl."""

import itertools

import pytest
import torch

from tests.learner.worlds.letters import PROMPTS, metrics, ppo_job
from tests.learner.worlds.one_batch import gradients, prepared
from training.demo.settings import ROUND
from training.learner import ppo
from training.learner.models.token_outputs import score_tokens
from training.learner.policy import rollout, updates
from training.learner.runtime.config import PpoConfig, RewardConfig, SftConfig
from training.learner.runtime.jobdir import TrainingFailed
from training.learner.runtime.optimization import (
    adam_epsilon,
    adamw,
    learning_rate_factor,
    peak_learning_rate,
    take_step,
)
from training.learner.runtime.program import help_text

pytestmark = pytest.mark.slow


def test_gradients_do_not_depend_on_micro_batches(tmp_path):
    context, scored = prepared(tmp_path)
    context.policy.double(), context.critic.double()  # in float32 sums of another order differ by 1e-5
    chosen = list(range(3, 21))
    assert len({len(completion) for completion in scored.episodes.completions}) > 1
    whole = gradients(context, scored, chosen)
    for budget in (1, 7, 20):
        for one, other in zip(whole, gradients(context, scored, chosen, micro_batch_tokens=budget), strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-8)


def test_gradients_do_not_depend_on_how_many_completions_of_a_prompt_are_read_together(tmp_path):
    context, scored = prepared(tmp_path)
    chosen, apart = list(range(12)), [list(range(start, 12, 6)) for start in range(6)]
    together = gradients(context, scored, chosen)
    sizes = [sum(len(scored.episodes.completions[i]) for i in part) for part in apart]
    parts = [gradients(context, scored, part) for part in apart]
    for one, *others in zip(together, *parts, strict=True):
        expected = sum(size * other for size, other in zip(sizes, others, strict=True)) / sum(sizes)
        torch.testing.assert_close(one, expected, atol=1e-6, rtol=1e-4)


def test_a_minibatch_weighs_every_token_the_same(tmp_path):
    context, scored = prepared(tmp_path)
    halves = [list(range(12)), list(range(12, 24))]
    sizes = [sum(len(scored.episodes.completions[i]) for i in half) for half in halves]
    whole = gradients(context, scored, halves[0] + halves[1])
    parts = [gradients(context, scored, half) for half in halves]
    for together, first, second in zip(whole, *parts, strict=True):
        expected = (sizes[0] * first + sizes[1] * second) / sum(sizes)
        torch.testing.assert_close(together, expected, atol=1e-6, rtol=1e-4)


def test_the_entropy_bonus_adds_the_gradient_of_the_mean_entropy(tmp_path):
    context, scored = prepared(tmp_path, temperature=0.7)
    chosen, policy = list(range(3, 21)), list(context.policy.parameters())
    plain, rewarded = (gradients(context, scored, chosen, entropy_coefficient=bonus) for bonus in (0.0, 0.5))
    entropy = score_tokens(context.policy, scored.episodes.select(chosen), 0.7, with_entropy=True).entropy.mean()
    for one, other, own in zip(plain, rewarded, torch.autograd.grad(entropy, policy), strict=False):
        torch.testing.assert_close(other, one - 0.5 * own, atol=1e-6, rtol=1e-4)  # what is minimised falls
    assert all(torch.equal(*pair) for pair in zip(plain[len(policy) :], rewarded[len(policy) :], strict=True))


def test_whitened_rewards_have_deviation_one_over_the_batch_s_tokens_and_keep_their_mean(tmp_path):
    context, scored = prepared(tmp_path, gamma=1.0, gae_lambda=1.0, whiten_rewards=True)
    scored = scored._replace(reference=[row - 0.1 for row in scored.policy],  # KL 0.1 a token
                             values=[torch.zeros_like(row) for row in scored.values])  # fmt: skip
    returns = rollout.compute_targets(scored, 0.5, None, context.settings).returns
    rows = [torch.full([len(row)], -0.05) for row in scored.policy]
    for row, score in zip(rows, scored.scores, strict=True):
        row[-1] += score
    every = torch.cat(rows)
    for found, row in zip(returns, rows, strict=True):
        whitened = (row - every.mean()) / every.std(correction=0) + every.mean()
        torch.testing.assert_close(found, whitened.flip(0).cumsum(0).flip(0), atol=1e-4, rtol=1e-4)


def test_every_epoch_takes_each_episode_once_in_a_new_order():
    settings = PpoConfig(model="m", rewards=[{"name": "missing_eos"}], batch_episodes=12, epochs=3, minibatches=4)
    chosen = list(updates.minibatches(5, settings))
    assert len(chosen) == 12 and all(len(part) == 3 for part in chosen)
    orders = [[*itertools.chain(*chosen[4 * epoch : 4 * epoch + 4])] for epoch in range(3)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert list(updates.minibatches(6, settings)) != chosen


def test_optimiser_steps_are_epochs_times_minibatches(tmp_path):
    job = ppo_job(tmp_path / "job", PROMPTS, steps=2, batch_episodes=12, epochs=3, minibatches=4)
    ppo.main(job)
    assert [line["updates"] for line in metrics(job)] == [12, 12]


def test_updates_stop_before_the_policy_has_moved_too_far(tmp_path):
    options = {"steps": 1, "batch_episodes": 32, "epochs": 8, "learning_rate": 0.02}
    ppo.main(ppo_job(tmp_path / "free", PROMPTS, **options))
    ppo.main(ppo_job(tmp_path / "bounded", PROMPTS, **options, max_update_kl=0.01))
    assert metrics(tmp_path / "free")[0]["updates"] == 8
    bounded = metrics(tmp_path / "bounded")[0]
    assert 1 <= bounded["updates"] < 8 and bounded["approx_kl"] <= 0.01


def test_the_learning_rate_follows_its_schedule(tmp_path):
    job = ppo_job(tmp_path / "job", PROMPTS, steps=5, batch_episodes=8, epochs=1, learning_rate=0.01,
                  warmup_fraction=0.2, final_learning_rate_fraction=0.2)  # fmt: skip
    ppo.main(job)
    assert [line["learning_rate"] for line in metrics(job)] == pytest.approx([0.01, 0.01, 0.008, 0.006, 0.004])


def test_a_warm_up_rises_to_the_highest_rate_in_its_last_step():
    settings = PpoConfig(model="m", rewards=[{"name": "missing_eos"}], warmup_fraction=0.5)
    factors = [learning_rate_factor(step, 8, settings) for step in range(1, 9)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_gradients_are_clipped_to_their_norm_and_refused_if_not_finite():
    layer = torch.nn.Linear(2, 1)
    optimizer = adamw(layer, 0.0)
    layer.weight.grad, layer.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append((layer.weight.grad.clone(), layer.bias.grad.clone())))
    assert take_step(optimizer, layer.parameters(), 0.1, 1.0, 1) == pytest.approx(5.0)
    assert seen[0][0].tolist()[0] == pytest.approx([0.6, 0]) and seen[0][1].item() == pytest.approx(0.8)
    before = layer.weight.clone()
    layer.weight.grad = torch.tensor([[float("nan"), 0.0]])
    with pytest.raises(TrainingFailed, match="norm is nan at step 2"):
        take_step(optimizer, layer.parameters(), 0.1, 1.0, 2)
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize(
    ("weights", "rate", "epsilon"),
    [(1e6, 1e-4, 1e-5), (124e6, 3e-5, 1e-8), (500e6, 1e-5, 1e-8), (1e9, 3e-6, 1e-8), (7e9, 3e-6, 1e-8)],
)
def test_default_rate_and_epsilon_follow_the_models_size_and_adapters_learn_ten_times_as_fast(weights, rate, epsilon):
    model = torch.nn.Linear(int(weights) // 1000, 1000, bias=False, device="meta")
    least = {"model": "m", "rewards": [{"name": "missing_eos"}]}
    assert peak_learning_rate(PpoConfig(**least), model) == rate
    assert peak_learning_rate(RewardConfig(model="m", lora_rank=8), model) == pytest.approx(10 * rate)
    assert adam_epsilon(PpoConfig(**least), model) == epsilon
    explicit = PpoConfig(**least, learning_rate=7e-4, adam_epsilon=1e-6, lora_rank=8)
    assert (peak_learning_rate(explicit, model), adam_epsilon(explicit, model)) == (7e-4, 1e-6)
    assert peak_learning_rate(SftConfig(architecture={"model_type": "llama"}), model) == 1e-4


def test_the_demo_sets_its_learning_rates_and_the_help_states_the_defaults():
    assert (ROUND["reward"]["learning_rate"], ROUND["ppo"]["learning_rate"]) == (1e-3, 3e-4)
    assert ROUND["ppo"]["adam_epsilon"] == 1e-5
    text = help_text("", PpoConfig)
    assert "1e-4 below 30 million, 3e-5 below 300 million, 1e-5 below a billion, 3e-6 above; ten times" in text
    assert "0: 1e-5 below 30 million weights" in text
