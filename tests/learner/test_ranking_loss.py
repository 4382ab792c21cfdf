"""The loss of comparisons: its gradients, its tie parameter, and recovery of known utilities."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from tests.learner.worlds.words import ranking_rows, words_folder, words_tokenizer
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packing import PromptGroup
from training.learner.models.reward_model import RewardModel, new_reward_model, raw_scores_of_groups
from training.learner.preferences.ranking_data import Comparison, Ranking, read_rankings
from training.learner.preferences.ranking_loss import (
    TieParameter,
    TrainingItem,
    batch_loss,
    bootstrap_weights,
    contrast_loss,
    tie_parameter,
    total_weight,
)
from training.learner.reward import accumulate_gradients, plan_steps
from training.learner.runtime.config import RewardConfig
from training.learner.runtime.optimization import adamw, take_step
from training.learner.runtime.processes import Processes


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return str(words_folder(tmp_path_factory.mktemp("policies") / "policy"))


def settings(**values) -> RewardConfig:
    return RewardConfig(model="somewhere", **values)


def comparisons(count: int = 8, **values) -> list[Comparison]:
    return read_rankings(words_tokenizer(), ranking_rows(count), settings(**values)).train


def items_of(batch: list[Comparison], contrast: bool = False) -> list[TrainingItem]:
    if not contrast:
        return [TrainingItem(one) for one in batch]
    pairs = zip(batch, batch[1:] + batch[:1], strict=True)
    return [
        TrainingItem(one, other.group.prompt, tuple(range(len(one.group.completions)))[::-2]) for one, other in pairs
    ]


def gradients(
    policy: str, batch: list[Comparison], contrast: bool = False, micro_batches=None, **values
) -> dict[str, torch.Tensor]:
    micro_batches = micro_batches or MicroBatches(4096)
    chosen = settings(**values)
    model = new_reward_model(policy, heads=3, seed=0)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    tie = TieParameter(0.2, learns=True)
    accumulate_gradients(
        model,
        tie,
        items_of(batch, contrast),
        chosen,
        bootstrap_weights(batch, 3, seed=0),
        Processes(),
        micro_batches,
    )
    return {name: p.grad for name, p in [*model.named_parameters(), ("tie", tie.logit)]}


@pytest.mark.slow
def test_a_fresh_model_has_loss_ln_2_and_accuracy_one_half(policy):
    batch, tie = comparisons(), TieParameter(0.0, learns=False)
    model = new_reward_model(policy, heads=3, seed=0)
    bootstrap = bootstrap_weights(batch, 3, seed=0)
    chosen = settings(tie_model="none")
    items, micro_batches = items_of(batch, True), MicroBatches(4096)
    measured = accumulate_gradients(model, tie, items, chosen, bootstrap, Processes(), micro_batches)
    assert measured["loss"] == measured["contrast_loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert measured["accuracy"] == 0.5


@pytest.mark.slow
def test_gradients_are_the_same_in_micro_batches_and_in_one(policy):
    batch = comparisons()
    whole, parts = gradients(policy, batch, True), gradients(policy, batch, True, MicroBatches(1))
    assert whole["tie"].abs() > 0
    for name, gradient in whole.items():
        assert torch.allclose(gradient, parts[name], atol=1e-5, rtol=1e-4), name


@pytest.mark.slow
def test_gradients_are_the_same_after_memory_ran_out(policy, monkeypatch):
    batch = comparisons()
    whole, forward = gradients(policy, batch, True), RewardModel.features
    passes: list[int] = []

    def features(model, groups):
        passes.append(sum(group.tokens for group in groups))
        if len(passes) > 1 and passes[-1] > 180:  # the first pass succeeds, and leaves a part of the gradient
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(model, groups)

    monkeypatch.setattr(RewardModel, "features", features)
    found = gradients(policy, batch, True, MicroBatches(500))
    assert max(passes[-2:]) <= 180 < max(passes)
    for name, gradient in whole.items():
        assert torch.allclose(gradient, found[name], atol=1e-5, rtol=1e-4), name


@pytest.mark.slow
def test_a_rankings_weight_multiplies_its_part_of_the_loss(policy):
    one, two = comparisons(2)
    heavy = replace(two, rankings=(replace(two.rankings[0], weight=3.0),))
    together = gradients(policy, [one, heavy])
    parts = [gradients(policy, [one]), gradients(policy, [two])]
    name = "network.score.weight"
    assert torch.allclose(together[name], (parts[0][name] + 3 * parts[1][name]) / 4, atol=1e-6)


@pytest.mark.slow
def test_plackett_luce_equals_pairs_for_two_and_not_for_more(policy):
    two = [c for c in read_rankings(words_tokenizer(), ranking_rows(8, completions=2), settings()).train
           if c.rankings[0].is_strict]  # fmt: skip
    four = [c for c in comparisons(40) if c.rankings[0].is_strict]
    assert two
    assert four
    name = "network.score.weight"
    for batch, equal in ((two, True), (four, False)):
        pairs = gradients(policy, batch, tie_model="none")[name]
        orders = gradients(policy, batch, tie_model="none", strict_orders="plackett_luce")[name]
        assert torch.allclose(pairs, orders, atol=1e-6) == equal


@pytest.mark.slow
def test_plackett_luce_leaves_tied_rankings_to_the_tie_model(policy):
    tied = [c for c in comparisons(40) if not c.rankings[0].is_strict][:3]
    pairs, orders = gradients(policy, tied), gradients(policy, tied, strict_orders="plackett_luce")
    assert torch.allclose(pairs["network.score.weight"], orders["network.score.weight"])


def test_the_tie_parameter_starts_at_the_share_of_tied_pairs():
    rankings = [Ranking((1, 1, 2), (0, 1, 2), "a", 1.0, None), Ranking((1, 2), (0, 1), "a", 1.0, None)]
    assert tie_parameter(rankings, settings()).share == pytest.approx(1 / 4)
    fixed = tie_parameter(rankings, settings(tie_share=0.1))
    assert fixed.share == pytest.approx(0.1)
    assert not fixed.logit.requires_grad
    strict = tie_parameter(rankings[1:], settings())
    assert (strict.logit.item(), strict.logit.requires_grad) == (-math.inf, False)


def test_the_contrast_is_the_mean_over_a_comparisons_completions_times_its_weight():
    one, two = comparisons(2)
    heavy = replace(two, rankings=two.rankings * 3)
    first = len(one.group.completions)
    raw = torch.zeros(first + len(two.group.completions))
    raw[[first, first + 2]] = torch.tensor([math.log(3.0), math.log(7.0)])
    found = contrast_loss(raw, torch.zeros(2), [TrainingItem(one), TrainingItem(heavy, one.group.prompt, (2, 0))])
    assert found.item() == pytest.approx(3 * (math.log(4 / 3) + math.log(8 / 7)) / 2, rel=1e-5)
    assert contrast_loss(raw, torch.zeros(0), [TrainingItem(one), TrainingItem(two)]).item() == 0.0


@pytest.mark.slow
def test_the_contrast_teaches_that_a_completion_belongs_to_its_prompt(policy):
    def comparison(number: int, topic: int) -> Comparison:
        ranking = Ranking((1, 1), (0, 1), "a", 1.0, None)
        return Comparison(number, PromptGroup((5, topic), ((20, topic, 1), (21, 22, topic, 1))), (ranking,))

    batch = [comparison(number, 10 + number % 4) for number in range(8)]
    model = new_reward_model(policy, heads=0, seed=0)
    optimizer = adamw(model, weight_decay=0.0)
    for step in range(1, 31):
        accumulate_gradients(
            model,
            TieParameter(0.5, False),
            items_of(batch, contrast=True),
            settings(),
            {},
            Processes(),
            MicroBatches(4096),
        )
        take_step(optimizer, model.parameters(), 3e-3, 1.0, step)
    own = raw_scores_of_groups(model, [PromptGroup((5, t), ((20, t, 1),)) for t in range(10, 14)], 1000)[0]
    other = raw_scores_of_groups(
        model, [PromptGroup((5, 10 + (t - 9) % 4), ((20, t, 1),)) for t in range(10, 14)], 1000
    )[0]
    assert (own > other).all()


def test_the_other_prompt_is_another_one_and_changes_with_the_pass():
    batch = comparisons(12)
    plan = plan_steps(batch, settings(epochs=2, batch_rankings=4))
    assert [len(step) for step in plan] == [4] * 6
    seen = [item for step in plan for item in step]
    assert all(item.other_prompt not in ((), item.comparison.group.prompt) for item in seen)
    assert {(len(item.comparison.group.completions), len(item.places)) for item in seen} <= {
        (4, 2),
        (3, 2),
        (2, 1),
    }
    partners = {(item.comparison.prompt_id, item.other_prompt) for item in seen}
    assert len(partners) > 12


def test_a_single_prompt_has_no_contrast():
    ((item,),) = plan_steps(comparisons(1), settings(epochs=1))
    assert item.places == ()
    assert item.sizes == [item.comparison.group.sizes]


def test_bootstrap_weights_are_a_prompts_own_with_mean_one():
    batch = comparisons(30)
    weights = bootstrap_weights(batch, heads=40, seed=1)
    assert set(weights) == {comparison.prompt_id for comparison in batch}
    together = torch.stack(list(weights.values()))
    assert together.mean().item() == pytest.approx(1.0, abs=0.1)
    assert (together >= 0).all()
    assert torch.equal(bootstrap_weights(batch[::-1], 40, seed=1)[5], weights[5])


UTILITIES = [0.0, 0.8, -0.6, 1.5]


def drawn_rankings(count: int) -> list[tuple[list[int], list[int]]]:
    """(places, ranks) of strict orders drawn from Luce's choices with UTILITIES, of 2 to 4 completions."""
    random = np.random.default_rng(3)
    rows = []
    for _ in range(count):
        places = random.choice(4, size=random.integers(2, 5), replace=False)
        noisy = np.array(UTILITIES)[places] + random.gumbel(size=len(places))
        rows.append((places.tolist(), (np.argsort(np.argsort(-noisy)) + 1).tolist()))
    return rows


def scipy_fit(rows: list[tuple[list[int], list[int]]]) -> np.ndarray:
    """Maximum likelihood of pairs, each with its share of its ranking, in plain loops."""

    def cost(free: np.ndarray) -> float:
        utilities, total = np.concatenate([[0.0], free]), 0.0
        for places, ranks in rows:
            pairs = [(i, j) for i in range(len(ranks)) for j in range(len(ranks)) if ranks[i] < ranks[j]]
            gaps = np.array([utilities[places[i]] - utilities[places[j]] for i, j in pairs])
            total += np.log1p(np.exp(-gaps)).mean()
        return total / len(rows)

    return np.concatenate([[0.0], minimize(cost, np.zeros(3)).x])


@pytest.mark.slow
def test_a_model_trained_on_rankings_of_known_utilities_finds_the_maximum_likelihood_differences(policy):
    rows = drawn_rankings(150)
    rankings = tuple(Ranking(tuple(ranks), tuple(places), "a", 1.0, None) for places, ranks in rows)
    group = PromptGroup((5, 6), ((10, 1), (11, 12, 1), (13, 1), (14, 15, 16, 1)))
    batch = [Comparison(0, group, rankings)]
    model = new_reward_model(policy, heads=0, seed=0)
    tie, chosen, optimizer = tie_parameter(rankings, settings()), settings(), adamw(model, weight_decay=0.0)
    for step in range(1, 121):
        accumulate_gradients(model, tie, items_of(batch), chosen, {}, Processes(), MicroBatches(4096))
        take_step(optimizer, model.parameters(), 1e-2 if step < 60 else 1e-3, 10.0, step)
    raw, _ = raw_scores_of_groups(model, [group], 1000)
    assert (raw - raw[0]).tolist() == pytest.approx(scipy_fit(rows).tolist(), abs=0.02)


@pytest.mark.full
@pytest.mark.slow
def test_the_tie_parameter_learned_with_the_scores_predicts_the_share_of_ties(policy):
    batch = comparisons(30)
    model, tie = new_reward_model(policy, heads=0, seed=0), TieParameter(0.02, learns=True)
    optimizer = adamw(model, weight_decay=0.0)
    for step in range(1, 41):
        accumulate_gradients(model, tie, items_of(batch), settings(), {}, Processes(), MicroBatches(4096))
        take_step(optimizer, model.parameters(), 3e-3, 1.0, step)
        tie.step()
    assert tie.share > 0.15


@pytest.mark.slow
def test_the_ensembles_loss_leaves_the_models_own_gradient_as_it_is(policy):
    batch = comparisons()
    alone = new_reward_model(policy, heads=0, seed=0)
    torch.nn.init.normal_(alone.head.weight, generator=torch.Generator().manual_seed(0))
    batch_loss(alone, TieParameter(0.2, True), items_of(batch), settings(), {}).objective.backward()
    together = gradients(policy, batch)
    for name, parameter in alone.named_parameters():
        assert torch.allclose(parameter.grad / total_weight(batch), together[name], atol=1e-6), name


@pytest.mark.slow
def test_each_head_learns_by_its_own_weights_of_the_prompts(policy):
    batch = comparisons(2)
    model = new_reward_model(policy, heads=3, seed=0)

    def learned_by(bootstrap: list[list[float]]) -> torch.Tensor:
        model.zero_grad()
        weights = {one.prompt_id: torch.tensor(row) for one, row in zip(batch, bootstrap, strict=True)}
        tie, micro_batches = TieParameter(0.2, False), MicroBatches(4096)
        accumulate_gradients(model, tie, items_of(batch), settings(), weights, Processes(), micro_batches)
        return model.ensemble.learned.grad.clone()

    # a member's weight is its own less the members' mean: what one of three learns, the others lose a half of each
    one_head, other = learned_by([[0.0, 1.0, 0.0], [0.0] * 3]), learned_by([[0.0] * 3, [0.0, 0.0, 1.0]])
    assert one_head[1].abs().sum() > 0
    assert torch.allclose(one_head, one_head[1] * torch.tensor([[-0.5], [1.0], [-0.5]]), atol=1e-7)
    assert torch.allclose(learned_by([[0.0, 2.0, 0.0], [0.0, 0.0, 3.0]]), 2 * one_head + 3 * other, atol=1e-6)
