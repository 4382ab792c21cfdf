"""PPO-ptx: the gradient of imitation, mixed into the policy's, and the demonstrations of each optimizer step."""

import json
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from tests.learner.worlds.letters import ppo_job
from tests.learner.worlds.one_batch import prepared
from training.learner import ppo
from training.learner.models.oom_retry import MicroBatches
from training.learner.policy import rollout, updates
from training.learner.runtime.config import PpoConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory
from training.learner.text.demonstrations import Example

pytestmark = pytest.mark.slow

# Token 0 ends a completion. A weight per token after the first: prompt tokens weigh 0.
EXAMPLES = [Example([1, 2, 3, 0], [0.0, 1.0, 1.0]), Example([3, 1, 0], [1.0, 1.0]), Example([2, 2, 0], [0.0, 2.0])]


def policy_gradient(context, scored, imitated, **changes):
    context = context._replace(settings=PpoConfig.from_json(context.settings.to_json() | changes))
    if "micro_batch_tokens" in changes:
        context = context._replace(micro_batches=MicroBatches(changes["micro_batch_tokens"]))
    targets = rollout.compute_targets(scored, 0.5, None, context.settings)
    metrics = updates.accumulate_gradients(
        context, scored, targets, list(range(8)), 0.5, is_first=False, imitated=imitated
    )
    gradient = {name: p.grad.clone() for name, p in context.policy.named_parameters() if p.grad is not None}
    context.policy.zero_grad()
    context.critic.zero_grad()
    return gradient, metrics


@pytest.mark.parametrize("changes", [{}, {"temperature": 0.7}, {"micro_batch_tokens": 8}, {"critic": "shared"}])
def test_the_gradient_is_that_of_ppo_and_the_coefficient_times_that_of_the_mean_log_likelihood(tmp_path, changes):
    context, scored = prepared(tmp_path, **({"critic": "shared"} if "critic" in changes else {}))
    coefficient = 0.3
    changes = {"ptx_coefficient": coefficient} | changes
    without, plain = policy_gradient(context, scored, [], **changes)
    mixed, metrics = policy_gradient(context, scored, EXAMPLES, **changes)

    # The same by transformers' own forward pass, one sequence at a time.
    peer = AutoModelForCausalLM.from_pretrained(tmp_path / "policy", attn_implementation="eager")
    temperature, total, weight = changes.get("temperature", 1.0), 0.0, 0.0
    for tokens, weights, *_ in EXAMPLES:
        logits = peer(torch.tensor([tokens])).logits[0, :-1] / temperature
        losses = F.cross_entropy(logits, torch.tensor(tokens[1:]), reduction="none")
        total, weight = total + (losses * torch.tensor(weights)).sum(), weight + sum(weights)
    (total / weight).backward()
    expected = {name: p.grad for name, p in peer.named_parameters() if p.grad is not None}
    assert metrics["ptx_loss"] == pytest.approx(float(total.detach()) / weight, rel=1e-5)
    assert "ptx_loss" not in plain
    assert {name: metrics[name] for name in plain} == pytest.approx(plain)
    assert expected.keys() <= mixed.keys()
    for name, gradient in mixed.items():
        difference = coefficient * expected[name] if name in expected else torch.zeros_like(gradient)
        torch.testing.assert_close(gradient - without[name], difference, atol=2e-6, rtol=1e-4)


def test_demonstrations_are_used_equally_often_and_depend_only_on_the_step_number():
    settings = PpoConfig(model="m", reward_model="r", batch_episodes=8, minibatches=2, epochs=1, ptx_coefficient=1.0)
    rows = [Example([number, 0], [1.0]) for number in range(6)]
    drawn = [updates.demonstrations_of_update(rows, number, settings) for number in range(9)]
    assert all(len(step) == 4 for step in drawn)
    assert set(Counter(example.tokens[0] for step in drawn for example in step).values()) == {6}
    first_pass = [example.tokens[0] for step in drawn for example in step][:6]
    assert sorted(first_pass) == list(range(6)) and first_pass != list(range(6))
    assert updates.demonstrations_of_update(rows, 5, settings) == drawn[5]
    assert updates.demonstrations_of_update([], 5, settings) == []


def job_with_demonstrations(folder, splits, **settings):
    job = ppo_job(folder, ("a", "b"), steps=6, batch_episodes=8, epochs=1, learning_rate=0.02, **settings)
    rows = [{"messages": [{"role": "user", "content": "a"}], "completion": "d d", "split": split} for split in splits]
    (job / "demonstrations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return job


def test_a_run_imitates_its_demonstrations_beside_the_reward(tmp_path):
    job = job_with_demonstrations(tmp_path / "job", ["train", "held_out"], ptx_coefficient=2.0)
    ppo.main(job)
    losses = [line["ptx_loss"] for line in JobDirectory(job).metrics()]
    assert losses[-1] < 0.7 * losses[0]


def test_held_out_demonstrations_are_no_demonstrations(tmp_path):
    job = job_with_demonstrations(tmp_path / "job", ["held_out"], ptx_coefficient=2.0)
    with pytest.raises(BadInput, match="has only held-out rows"):
        ppo.main(job)
