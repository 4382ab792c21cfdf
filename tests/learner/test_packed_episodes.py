"""Episodes in one row: each as if it were alone, a prompt that several share computed once."""

import math

import pytest
import torch

from tests.learner.worlds.letters import KINDS, tiny_model
from training.learner.models import packed_attention, packed_layouts
from training.learner.models.packing import Episodes, by_episode, pack_episodes, sizes_of, within_budget
from training.learner.models.slot_budget import attention_slots, fill_batches
from training.learner.models.token_outputs import PolicyTrunkCritic, compute_token_outputs, scores_and_states_at

SHARED = Episodes(
    [[5, 6, 7], [8], [5, 6, 7], [9, 10, 11], [5, 6, 7], [8]],
    [[1, 2, 3, 0], [4, 5], [6], [7, 8, 9, 10, 11, 0], [0], [1, 1, 1]],
)


def test_a_shared_prompt_is_packed_once():
    batch = pack_episodes(SHARED)
    assert batch.tokens.tolist() == [[5, 6, 7, 1, 2, 3, 0, 6, 0, 8, 4, 5, 1, 1, 1, 9, 10, 11, 7, 8, 9, 10, 11, 0]]
    assert batch.positions[0, 7:15].tolist() == [3, 3, 0, 1, 2, 1, 2, 3]
    assert batch.decisions[:8].tolist() == [2, 3, 4, 5, 9, 10, 2, 17]
    assert batch.decided.tolist() == [token for completion in SHARED.completions for token in completion]


@pytest.mark.slow
@pytest.mark.parametrize("is_long", [False, True], ids=["", "as of long prompts"])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_of_a_completion_do_not_depend_on_others_of_its_prompt(kind, is_long, monkeypatch):
    if is_long:  # several chunks for a prompt, the first beside the prompt's own keys, the second beside a copy
        monkeypatch.setattr(packed_layouts, "CHUNK_TOKENS", (1, 4))
        monkeypatch.setattr(packed_layouts, "MIN_VIEWED_PROMPT", 1)
    model = tiny_model(kind)
    critic = PolicyTrunkCritic(model)
    torch.nn.init.normal_(critic.score.weight)
    together = torch.stack(compute_token_outputs(model, critic, SHARED, 0.8, with_entropy=True))
    each = [
        torch.stack(compute_token_outputs(model, critic, SHARED.select([i]), 0.8, with_entropy=True)) for i in range(6)
    ]
    alone = torch.cat(each, 1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    weights = torch.randn(together.shape, generator=torch.Generator().manual_seed(0))
    parameters = [*model.parameters(), *critic.parameters()]
    found = [torch.autograd.grad((values * weights).sum(), parameters) for values in (together, alone)]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_states_that_a_shared_critic_reads_are_the_trunk_s_last(kind):
    model, batch = tiny_model(kind), pack_episodes(SHARED)
    _, states = scores_and_states_at(model, batch, batch.decisions, batch.decided, 1.0, with_entropy=False)
    model.set_attn_implementation("eager")
    sequence = torch.tensor([SHARED.sequences()[3]])
    torch.testing.assert_close(states[7:13], model.base_model(sequence)[0][0, 2:-1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("episodes", [SHARED, Episodes([[1, 2] * 20] * 16, [[3] * (1 + i % 5) for i in range(16)])])
@pytest.mark.parametrize("budget", [1, 9, 20, 100, 300])
@torch.no_grad()
def test_the_budget_counts_the_slots_that_attention_allocates(episodes, budget, monkeypatch):
    model, allocated = tiny_model(), []
    attention = packed_attention.scaled_attention

    def counted(query, key, *others):
        allocated[-1].append((query.shape[0] * query.shape[2], key.shape[0] * key.shape[2]))
        return attention(query, key, *others)

    monkeypatch.setattr(packed_attention, "scaled_attention", counted)
    monkeypatch.setattr(packed_layouts, "MIN_VIEWED_PROMPT", 40)
    batches = within_budget(episodes, budget)
    for batch in batches:
        part = episodes.select(batch)
        allocated.append([])
        compute_token_outputs(model, None, part)
        groups = pack_episodes(part).layout.groups
        halves = [
            queries + (keys if group.part is None else queries)  # viewed keys take no memory of their own
            for (queries, keys), group in zip(allocated[-1], groups, strict=False)
        ]
        in_first_layer = math.ceil(sum(halves) / 2)
        assert in_first_layer == attention_slots(sizes_of(part))
        assert in_first_layer <= budget or len(batch) == 1
    assert sorted(i for batch in batches for i in batch) == list(range(len(episodes.prompts)))


def test_completions_of_a_prompt_stay_together_where_the_budget_allows():
    assert sorted(map(sorted, within_budget(SHARED, 100))) == [[0, 1, 2, 3, 4, 5]]
    batches = within_budget(
        SHARED, 21
    )  # 10.5 slots of the first prompt, 6.5 of the second, 9 of one alone; padded together
    assert sorted(map(sorted, batches)) == [[0, 2, 4], [1, 5], [3]]
    tight = within_budget(SHARED, 1)
    assert sorted(map(sorted, tight)) == [[0], [1], [2], [3], [4], [5]]


def test_a_long_prompt_is_held_once_for_all_of_its_completions():
    episodes = Episodes([list(range(3500))] * 64, [[1] * 8] * 64)
    assert attention_slots(sizes_of(episodes)) == 3500 + 64 * 8
    assert len(within_budget(episodes, 4096)) == 1
    assert len(within_budget(episodes, 4000)) == 2  # each with the prompt


def test_a_prompt_held_once_for_each_completion_counts_as_often():
    episodes = Episodes([list(range(3500))] * 64, [[1] * 8] * 64)
    assert attention_slots(sizes_of(episodes, shares=False)) == 64 * 3508
    assert len(within_budget(episodes, 4096, shares=False)) == 64


@torch.no_grad()
def test_a_prompt_s_queries_are_computed_once(monkeypatch):
    queries, attention = [], packed_attention.scaled_attention

    def counted(query, key, *others):
        queries.append(query.shape[0] * query.shape[2])
        return attention(query, key, *others)

    monkeypatch.setattr(packed_attention, "scaled_attention", counted)
    model = tiny_model(num_hidden_layers=1, kind="gpt2")  # whose last layer computes all tokens
    compute_token_outputs(model, None, Episodes([list(range(1, 41))] * 9, [[1 + i] * 8 for i in range(9)]))
    assert sum(queries) <= 40 + 2 * 40  # 9 × 8 tokens, in two rows of at most 40 and 32


def test_rows_come_back_in_the_episodes_order():
    first, second = by_episode(
        lambda part: (pack_episodes(part).decided, -pack_episodes(part).decided), SHARED, within_budget(SHARED, 9)
    )
    assert [row.tolist() for row in first] == SHARED.completions
    assert [(-row).tolist() for row in second] == SHARED.completions


@pytest.mark.parametrize("budget", [1, 10, 255, 256, 10_000])
def test_batches_are_filled_with_few_counts_of_their_slots(budget):
    counted = []

    def slots(chosen):
        counted.append(len(chosen))
        return len(chosen)

    batches = fill_batches([1] * 256, budget, slots)
    assert [index for batch in batches for index in batch] == list(range(256))
    assert all(len(batch) == min(budget, 256) for batch in batches[:-1])
    assert sum(counted) <= 256 * 12  # one count per item and batch would add up to 32,896 for a batch of 256
