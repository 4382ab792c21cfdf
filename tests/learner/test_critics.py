"""Critics: what they say, and what they learn."""

import torch
from one_batch import gradients, prepared

from training.learner.scoring import ValueHead


def test_a_shared_critic_says_its_values_in_the_policy_s_own_pass(tmp_path):
    run, scored = prepared(tmp_path, critic="shared")
    assert isinstance(run.critic, ValueHead) and len(list(run.critic.parameters())) == 2
    expected = run.critic.score(states_of(run.policy, scored.episodes))[:, 0]
    torch.testing.assert_close(torch.cat(scored.values), expected, atol=1e-5, rtol=0)
    whole = gradients(run, scored, range(24))
    for one, other in zip(whole, gradients(run, scored, range(24), micro_batch_tokens=7), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    louder = gradients(run, scored, range(24), value_coefficient=0.2)
    assert not torch.equal(whole[0], louder[0])  # the critic moves the trunk, too
    torch.testing.assert_close(2 * whole[-1], louder[-1])  # the head's own gradient is of the value loss alone


def states_of(model, episodes):
    """Where each completion token was decided, one row at a time by a plain pass."""
    model.set_attn_implementation("eager")
    rows = []
    for prompt, completion in zip(*episodes, strict=True):
        with torch.no_grad():
            rows.append(model.base_model(torch.tensor([[*prompt, *completion]]))[0][0, len(prompt) - 1 : -1])
    model.set_attn_implementation("accord_flat")
    return torch.cat(rows)
