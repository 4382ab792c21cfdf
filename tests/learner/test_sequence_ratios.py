"""GSPO and REINFORCE++ against their papers' formulas in plain Python."""

import statistics

import pytest
import torch

from tests.learner.worlds.letters import PROMPTS, metrics, ppo_job
from training.learner import ppo
from training.learner.estimators import ALGORITHMS
from training.learner.models.packing import Episodes
from training.learner.policy import updates
from training.learner.policy.losses import clipped_policy_loss, sequence_log_ratios
from training.learner.policy.rollout import Rollout, Targets
from training.learner.runtime.config import PpoConfig
from training.learner.runtime.jobdir import BadInput

REWARDS = [1.0, 4.0, 2.5, -1.0, 0.0, 0.5]
LENGTHS = [3, 1, 2]


def advantages(algorithm, group_size):
    return ALGORITHMS[algorithm].advantages(torch.tensor(REWARDS, dtype=torch.float64), group_size, 0.0).tolist()


def test_reinforce_plus_plus_standardises_over_the_batch():
    mean, deviation = statistics.mean(REWARDS), statistics.pstdev(REWARDS)
    assert advantages("reinforce_plus_plus", 1) == pytest.approx([(r - mean) / deviation for r in REWARDS], abs=1e-6)


def test_equal_rewards_teach_nothing():
    equal = torch.ones(4)
    for name in ("dr_grpo", "gspo", "reinforce_plus_plus"):
        assert ALGORITHMS[name].advantages(equal, 4, 0.0).tolist() == [0.0] * 4


def test_a_range_whose_upper_end_is_the_nearer_one_is_refused():
    with pytest.raises(BadInput, match="clip_ratio_high is below clip_ratio"):
        PpoConfig.from_json({"model": "m", "reward_model": "r", "clip_ratio": 0.2, "clip_ratio_high": 0.1})


def weights_of(is_estimated):
    """The weights of tokens in a minibatch of three completions of LENGTHS."""
    episodes = Episodes([[5]] * 3, [[7] * length for length in LENGTHS])
    none = [torch.zeros(length) for length in LENGTHS]
    rollout = Rollout(episodes, [True] * 3, torch.zeros(3), none, none, none, [], {}, torch.zeros(3))
    return updates.policy_weights(ALGORITHMS["gspo"], rollout, Targets(none, none, is_estimated), [0, 1, 2])


def test_gspo_is_the_mean_over_completions_with_one_ratio_each():
    """Objective and gradient of equation 5 of Zheng et al. 2025, completion by completion."""
    random = torch.Generator().manual_seed(0)
    old = torch.randn(6, generator=random, dtype=torch.float64)
    new = (old + 0.3 * torch.randn(6, generator=random, dtype=torch.float64)).requires_grad_()
    of_episode = [0.8, -1.1, 0.4]

    objective = 0.0
    for ours, theirs, advantage in zip(new.split(LENGTHS), old.split(LENGTHS), of_episode, strict=True):
        ratio = (ours.exp().prod() / theirs.exp().prod()) ** (1 / len(ours))
        objective = objective + torch.minimum(ratio * advantage, ratio.clamp(0.9, 1.1) * advantage) / len(LENGTHS)
    (expected,) = torch.autograd.grad(-objective, new)

    weights = weights_of([True] * 3)
    of_tokens = torch.tensor(
        [number for number, length in zip(of_episode, LENGTHS, strict=True) for _ in range(length)]
    )
    loss, _ = clipped_policy_loss(old + sequence_log_ratios(new, old, LENGTHS), old, of_tokens, 0.1)
    by_token = torch.tensor([weights[i] for i, length in enumerate(LENGTHS) for _ in range(length)])
    total = (by_token * loss).sum() / sum(LENGTHS)
    assert float(total.detach()) == pytest.approx(-float(objective.detach()))
    torch.testing.assert_close(torch.autograd.grad(total, new)[0], expected)


def test_only_completions_with_an_advantage_count_in_the_mean():
    assert weights_of([True, False, True]) == {0: 1.0, 1: 3.0, 2: 1.5}


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["gspo", "dr_grpo", "reinforce_plus_plus"])
def test_the_reward_rises(algorithm, tmp_path):
    job = ppo_job(tmp_path / "job", PROMPTS, steps=12, batch_episodes=32, completions_per_prompt=4, epochs=2,
                  learning_rate=0.01, algorithm=algorithm, clip_ratio_high=0.28)  # fmt: skip
    ppo.main(job)
    rewards = [line["reward"] for line in metrics(job) if "reward" in line]
    assert sum(rewards[-3:]) > sum(rewards[:3]) + 0.3
