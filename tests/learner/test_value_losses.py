"""Value-based learning over tokens: targets, losses and weights against numbers computed by hand or by scipy."""

import itertools
import math

import numpy as np
import pytest
import scipy
import torch

from tests.learner.worlds import spoken
from tests.learner.worlds.letters import tiny_model
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packing import Episodes, Turn, pack_episodes
from training.learner.models.token_outputs import score_tokens
from training.learner.runtime.config import QConfig
from training.learner.runtime.processes import Processes
from training.learner.values.losses import (
    advantage_weights,
    effective_share,
    expectile_loss,
    soft_value_loss,
    td_targets,
)
from training.learner.values.network import ValueNetwork, follow
from training.learner.values.replay import GROUP, ReplayBuffer, merge_equal, plan_batches
from training.learner.values.updates import ValueContext, policy_batch, token_advantages, value_batch, weigh_tokens

TARGETS = torch.tensor([0.0, 1.0, 2.0, 10.0], dtype=torch.float64)


def test_the_target_is_the_next_state_s_value_and_the_score_at_the_end():
    scores, values, lengths = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.2, 0.4, 9.0]), torch.tensor([3, 1])
    one_step = td_targets(scores, values, lengths, gamma=0.9, td_lambda=0.0)
    torch.testing.assert_close(one_step, torch.tensor([0.9 * 0.2, 0.9 * 0.4, 1.0, -2.0]))
    mixed = td_targets(scores, values, lengths, gamma=0.9, td_lambda=0.5)
    torch.testing.assert_close(mixed, torch.tensor([0.3735, 0.63, 1.0, -2.0]))  # 0.9·(0.1 + 0.315), 0.9·(0.2 + 0.5)
    whole = td_targets(scores, values, lengths, gamma=1.0, td_lambda=1.0)
    torch.testing.assert_close(whole, torch.tensor([1.0, 1.0, 1.0, -2.0]))


def test_before_the_end_of_a_truncated_dialogue_the_target_is_the_last_state_value():
    scores, values, lengths = torch.tensor([7.0, 7.0, 1.0]), torch.tensor([0.5, 0.2, 0.4, 9.0, 0.3, 0.6]), [3, 1, 2]
    truncated = torch.tensor([True, True, False])
    one_step, mixed = (td_targets(scores, values, torch.tensor(lengths), 0.9, td_lambda, truncated).tolist()
                       for td_lambda in (0.0, 0.5))  # fmt: skip
    # The third and the fourth number stand in place of targets that are not known.
    assert one_step == pytest.approx([0.9 * 0.2, 0.9 * 0.4, 0.4, 9.0, 0.9 * 0.6, 1.0])
    assert mixed == pytest.approx([0.9 * (0.1 + 0.18), 0.9 * 0.4, 0.4, 9.0, 0.9 * (0.3 + 0.5), 1.0])


A, B, C, EOS = 2, 3, 4, 0
FIRST, LATER = [Turn(0, 2)], [Turn(0, 2), Turn(3, 5)]


def logged_chain(ended):
    """Return a buffer of dialogues A EOS, user's 1, then B EOS with reward 1 or C EOS with reward 3.

    Three more were truncated: two after the first turn, and one after B EOS. ended: treat them as ended with reward 0.
    """
    two_turns = [[A, EOS, 1, B, EOS], [A, EOS, 1, C, EOS], [A, EOS, 1, B, EOS]]
    truncated = [None, None, [], [], []]
    episodes = Episodes(
        [[1]] * 5, [*two_turns, [A, EOS], [A, EOS]], [LATER, LATER, LATER, FIRST, FIRST], None if ended else truncated
    )
    return merge_equal(episodes, torch.tensor([1.0, 3.0, 0.0, 0.0, 0.0]))


def tabular_q(buffer, gamma):
    """Return Q by beginning of a completion: sweeps of td_targets over the buffer, with V the mean of logged Q."""
    rows = [
        [tuple(completion[: place + 1]) for turn in turns for place in range(turn.start, turn.end)]
        for completion, turns in zip(buffer.episodes.completions, buffer.episodes.turns, strict=True)
    ]
    actions = list(itertools.chain(*rows))
    counts, truncated = buffer.token_counts(range(len(rows))).tolist(), buffer.truncated()
    q = dict.fromkeys(actions, 0.0)

    def mean(pairs):
        pairs = [(value, count) for value, count in pairs if count]
        return sum(value * count for value, count in pairs) / sum(count for _, count in pairs) if pairs else 0.0

    for _ in range(6):
        values = [mean([(q[other], count) for other, count in zip(actions, counts, strict=True)
                        if other[:-1] == action[:-1]]) for action in actions]  # fmt: skip
        targets = td_targets(buffer.rewards, torch.tensor(values), buffer.lengths(), gamma, 0.0, truncated).tolist()
        q = {action: mean([(target, count) for other, target, count in zip(actions, targets, counts, strict=True)
                           if other == action]) for action in actions}  # fmt: skip
    return q


def test_values_before_truncated_dialogues_are_those_of_dynamic_programming():
    # With γ = 0.9 by hand: Q(B) = 0.9·1, Q(C) = 0.9·3, V = (2·0.9 + 2.7) / 3 = 1.5 before them, then 1.35 and 1.215.
    q = tabular_q(logged_chain(ended=False), 0.9)
    expected = [1.0, 3.0, 0.9, 2.7, 1.35, 1.215]
    written = [(A, EOS, 1, B, EOS), (A, EOS, 1, C, EOS), (A, EOS, 1, B), (A, EOS, 1, C), (A, EOS), (A,)]
    assert [q[action] for action in written] == pytest.approx(expected)
    # As ended with reward 0: Q = (1 + 0) / 2 after B, V = (2·0.45 + 2.7) / 3 = 1.2, then (3·0.9·1.2 + 2·0) / 5.
    as_ended = tabular_q(logged_chain(ended=True), 0.9)
    assert [as_ended[action] for action in written] == pytest.approx([0.5, 3.0, 0.45, 2.7, 0.648, 0.5832])


def test_the_expectile_loss_weighs_what_is_above():
    loss = expectile_loss(torch.tensor([1.0, 1.0]), torch.tensor([3.0, 0.0]), 0.8)
    torch.testing.assert_close(loss, torch.tensor([3.2, 0.2]))


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.9])
def test_the_expectile_loss_is_least_at_the_expectile(expectile):
    def loss(value):
        return float(expectile_loss(torch.full((4,), value, dtype=torch.float64), TARGETS, expectile).mean())

    least = scipy.optimize.minimize_scalar(loss, bounds=(-1, 11), method="bounded", options={"xatol": 1e-9}).x
    assert least == pytest.approx(scipy.stats.expectile(TARGETS.numpy(), expectile), abs=1e-5)


def test_the_soft_value_loss_is_least_at_the_soft_maximum_and_linear_far_above():
    def loss(value):
        return float(soft_value_loss(torch.full((4,), value, dtype=torch.float64), TARGETS, 4.0).mean())

    least = scipy.optimize.minimize_scalar(loss, bounds=(-1, 11), method="bounded", options={"xatol": 1e-9}).x
    assert least == pytest.approx(4.0 * math.log(np.exp(TARGETS.numpy() / 4.0).mean()), abs=1e-5)
    far = soft_value_loss(torch.zeros(2, dtype=torch.float64), torch.tensor([5.0, 7.0], dtype=torch.float64), 1.0)
    assert far.tolist() == pytest.approx([math.exp(5) - 6, math.exp(5) * 3 - 8])


def test_weights_are_exponentials_of_advantages_up_to_a_maximum():
    weights = advantage_weights(torch.tensor([0.0, 0.2, -0.1, 1.0]), 0.1, 20.0)
    assert weights.tolist() == pytest.approx([1.0, math.exp(2), math.exp(-1), 20.0])
    assert effective_share(torch.tensor([1.0, 1.0, 1.0])) == pytest.approx(1.0)
    assert effective_share(torch.tensor([3.0, 1.0])) == pytest.approx(16 / 20)


def network(seed=0, **changes):
    """Return a value network whose heads are random."""
    made = ValueNetwork(tiny_model(vocabulary=5, **changes), seed)
    with torch.no_grad():
        for part in (made.scalars, made.directions):
            part.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(seed + 1))
    return made


EPISODES = Episodes([[1], [1], [2]], [[3, 4, 0], [2, 0], [1, 1, 1]])


def all_values(net, outputs):
    """Return Q [heads, states, tokens] by the formula, in float64."""
    embedding = net.embedding.detach().double()
    advantages = outputs.directions.detach().double() @ embedding.T
    return outputs.levels.detach().double()[:, :, None] + advantages - advantages.mean(-1, keepdim=True)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_q_is_dueling_and_the_conservative_term_that_of_its_definition(kind):
    net = network(kind=kind)
    outputs = net.read(pack_episodes(EPISODES))
    q = all_values(net, outputs)
    assert outputs.tokens.tolist() == [3, 4, 0, 2, 0, 1, 1, 1] and not torch.allclose(q[0], q[1])
    torch.testing.assert_close(q.mean(-1), outputs.levels.double())  # the mean over the tokens is the level
    for token in range(5):
        of_token = net.action_values(outputs, torch.full_like(outputs.tokens, token))
        torch.testing.assert_close(of_token.double(), q[..., token], atol=1e-5, rtol=1e-4)
    logged = q.gather(-1, outputs.tokens.expand(2, -1)[..., None])[..., 0]
    expected = q.logsumexp(-1) - logged
    torch.testing.assert_close(net.conservative_losses(outputs).double(), expected, atol=1e-5, rtol=1e-4)
    assert net.best_tokens(outputs).tolist() == q.mean(0).argmax(-1).tolist()


def test_a_new_network_gives_no_state_a_value_and_its_heads_differ():
    net = ValueNetwork(tiny_model(vocabulary=5), seed=3)
    outputs = net.read(pack_episodes(EPISODES))
    q = net.action_values(outputs, outputs.tokens)
    assert not outputs.values.any() and float(q.detach().abs().max()) < 0.5 and not torch.equal(q[0], q[1])


def test_the_target_network_follows_by_a_moving_average():
    slow, fast = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    expected = 0.9 * slow.weight.detach() + 0.1 * fast.weight.detach()
    follow(slow, fast, 0.9)
    torch.testing.assert_close(slow.weight.detach(), expected)


def context(**settings):
    settings = QConfig(model="m", rewards=[], **settings)
    return ValueContext(settings, Processes(), None, network(0), network(5), MicroBatches(4096))


BUFFER = ReplayBuffer(EPISODES, torch.tensor([1.0, -0.5, 2.0]), torch.tensor([1.0, 3.0, 1.0]))


SINGLE = [range(len(completion)) for completion in EPISODES.completions]


@pytest.mark.parametrize("bootstrap", ["state_value", "double_q"])
@pytest.mark.parametrize(
    ("episodes", "written", "td_lambda"),
    [
        (EPISODES, SINGLE, 0.0),
        (spoken.EPISODES, spoken.WRITTEN, 0.0),
        (spoken.EPISODES._replace(unanswered=[[], [], None]), spoken.WRITTEN, 0.6),
    ],
)
def test_the_losses_of_a_batch_are_those_of_its_tokens_one_by_one(bootstrap, episodes, written, td_lambda):
    """Compute every number from Q and V of each completion alone, with the counts as weights.

    After the last token of a turn, the next state is the one before the first token of the policy's next turn. The last
    token of a truncated dialogue has no losses.
    """
    made = context(bootstrap=bootstrap, expectile=0.8, gamma=0.9, conservative_weight=0.1, td_lambda=td_lambda)
    sums, weight = np.zeros(3), 0.0
    columns = episodes.prompts, episodes.completions, written, [1.0, -0.5, 2.0], [1, 3, 1], episodes.truncated()
    for prompt, completion, places, reward, count, truncated in zip(*columns, strict=True):
        batch = pack_episodes(Episodes([prompt], [completion]))
        fast, slow = made.values.read(batch), made.target.read(batch)
        q, slow_q = all_values(made.values, fast), all_values(made.target, slow)
        values = fast.values.detach().tolist()
        if bootstrap == "double_q":
            values = [float(slow_q[:, t, int(q[:, t].mean(0).argmax())].min()) for t in range(len(values))]
        target = None
        for t, following in zip(reversed(places), [None, *reversed(places[1:])], strict=True):
            token = completion[t]
            if following is None and truncated:
                continue
            if following is None:
                target = reward
            elif target is None:
                target = 0.9 * values[following]
            else:
                target = 0.9 * ((1 - td_lambda) * values[following] + td_lambda * target)
            gap = float(slow_q[:, t, token].min() - fast.values[t])
            conservative = float((q[:, t].logsumexp(-1) - q[:, t, token]).sum())
            losses = [float((q[:, t, token] - target).square().sum()) / 2, (0.8 if gap > 0 else 0.2) * gap**2]
            sums += count * np.array([*losses, conservative])
            weight += count
    found = value_batch(made, BUFFER._replace(episodes=episodes), [0, 1, 2])
    assert found[:3] == pytest.approx(sums / weight, rel=1e-4)
    assert all(parameter.grad is None for parameter in made.target.parameters())
    assert made.values.scalars.weight.grad.abs().sum() > 0


@pytest.mark.slow
def test_micro_batches_do_not_change_the_gradient():
    gradients = []
    for size in (4096, 1):
        made = context()._replace(micro_batches=MicroBatches(size))
        value_batch(made, BUFFER, [2, 0, 1])
        gradients.append([p.grad for p in made.values.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_advantages_are_those_of_the_target_network():
    made = context(kl_coefficient=0.5, max_weight=3.0)
    slow = made.target.read(pack_episodes(EPISODES))
    q = all_values(made.target, slow).gather(-1, slow.tokens.expand(2, -1)[..., None])[..., 0].amin(0)
    expected = q - slow.values.detach().double()
    advantages = token_advantages(made, BUFFER)
    assert [len(row) for row in advantages] == [3, 2, 3]
    torch.testing.assert_close(torch.cat(advantages).double(), expected, atol=1e-5, rtol=1e-4)
    weighted = weigh_tokens(advantages, BUFFER, made.settings)
    counts = torch.tensor([1.0] * 3 + [3.0] * 2 + [1.0] * 3, dtype=torch.float64)
    by_hand = (expected / 0.5).exp().clamp(max=3.0)
    assert weighted.mean == pytest.approx(float((counts * by_hand).sum() / counts.sum()), rel=1e-4)


@pytest.mark.slow
def test_the_policy_does_not_learn_the_last_token_of_a_truncated_dialogue():
    """The oracle is the weighted mean over the other tokens, one completion at a time."""
    buffer = BUFFER._replace(episodes=spoken.EPISODES._replace(unanswered=[[], None, None]))
    policy = tiny_model(vocabulary=5)
    made = context(kl_coefficient=0.5)._replace(policy=policy)
    advantages = [torch.linspace(-1, 1, length) for length in buffer.lengths().tolist()]
    weighted = weigh_tokens(advantages, buffer, made.settings)
    losses = policy_batch(made, buffer, weighted, [0, 1, 2])
    found = [p.grad.clone() for p in policy.parameters()]
    sums = torch.zeros(3)
    for i, count in enumerate([1.0, 3.0, 1.0]):
        ((log_probs, *_),) = [score_tokens(policy, buffer.episodes.select([i]))]
        known = slice(-1) if i == 0 else slice(None)
        weights = (advantages[i][known] / 0.5).exp()
        sums = sums + count * torch.stack([-(weights * log_probs[known]).sum(), -log_probs[known].sum(), weights.sum()])
    number = 1.0 * 4 + 3.0 * 2 + 1.0 * 4
    assert losses == pytest.approx([float(sums[0] / sums[2]), float(sums[1] / number)], rel=1e-4)
    assert weighted.mean == pytest.approx(float(sums[2]) / number, rel=1e-5)
    policy.zero_grad()
    (sums[0] / sums[2]).backward()
    for one, parameter in zip(found, policy.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, atol=1e-5, rtol=1e-3)


def test_a_truncated_dialogue_differs_from_one_that_ended_with_the_same_tokens():
    logged = Episodes([[1]] * 4, [[3, 0]] * 4, None, [None, [], [], None])
    buffer = merge_equal(logged, torch.zeros(4))
    assert buffer.counts.tolist() == [2, 2] and buffer.truncated().tolist() == [False, True]
    assert buffer.is_learned([1, 0]).tolist() == [True, False, True, True] and buffer.tokens([0, 1]) == 3
    assert buffer.token_counts([0, 1]).tolist() == pytest.approx([1.0, 1.0, 1.0, 0.0])


def test_equal_completions_are_counted_once_for_each_reward():
    logged = Episodes([[1], [1], [1], [2], [1]], [[3, 0], [3, 0], [3, 0], [3, 0], [4, 0]])
    buffer = merge_equal(logged, torch.tensor([1.0, 1.0, 0.5, 1.0, 1.0]))
    assert buffer.counts.tolist() == [2, 1, 1, 1] and buffer.rewards.tolist() == [1.0, 0.5, 1.0, 1.0]
    assert float(buffer.token_counts(range(4)).mean()) == pytest.approx(1.0)


def test_dialogues_of_the_same_tokens_and_other_speakers_are_different_completions():
    first, other = [Turn(0, 2), Turn(3, 5)], [Turn(0, 2), Turn(4, 5)]
    logged = Episodes([[1]] * 3, [[2, 0, 3, 1, 0]] * 3, [first, other, first])
    buffer = merge_equal(logged, torch.ones(3))
    assert buffer.counts.tolist() == [2, 1] and buffer.episodes.turns == [tuple(first), tuple(other)]
    assert buffer.lengths().tolist() == [4, 3] and buffer.tokens([0, 1]) == 7


def test_a_pass_draws_every_completion_once_with_prompts_together():
    episodes = Episodes([[1]] * 20 + [[2]] * 3, [[3, 0]] * 23)
    buffer = ReplayBuffer(episodes, torch.zeros(23), torch.ones(23))
    plan = plan_batches(buffer, 10, 2, seed=4)
    first, second = (list(itertools.chain(*part)) for part in (plan[:3], plan[3:]))
    assert sorted(first) == sorted(second) == list(range(23)) and first != second
    assert [len(batch) for batch in plan] == [10, 10, 3] * 2
    changes = sum((one < 20) != (other < 20) for one, other in itertools.pairwise(first))
    assert changes <= 2 and GROUP == 8
    assert plan_batches(buffer, 10, 1, seed=4, first=1) == plan[3:]
