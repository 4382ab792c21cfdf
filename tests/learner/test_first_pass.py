"""The first minibatch reuses the pass that scored it, if memory allows, with the same result as a pass of its own."""

import pytest
import torch

from tests.learner.worlds.letters import PROMPTS, ppo_job
from tests.learner.worlds.one_batch import prepared, scored_answers
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packing import sizes_of
from training.learner.models.slot_budget import attention_slots
from training.learner.models.token_outputs import PolicyTrunkCritic
from training.learner.policy import rollout, updates

pytestmark = pytest.mark.slow


def first_gradients(folder, monkeypatch, **settings):
    """Return gradients and metrics of a run's first minibatch, and the number of the policy's passes since sampling."""
    ppo_job(folder / "job", PROMPTS)  # which draws a policy if there is none
    context, scored = prepared(folder, **settings)
    chosen = next(updates.minibatches(1, context.settings))
    asked = count_passes(monkeypatch, context.policy)
    scored = rollout.score_episodes(context, scored.episodes, scored_answers(scored), chosen)
    targets = rollout.compute_targets(scored, 0.5, None, context.settings)
    measured = updates.accumulate_gradients(context, scored, targets, chosen, 0.5, is_first=True)
    models = {"policy": context.policy} | ({"critic": context.critic} if context.critic else {})
    found = {f"{kind}.{name}": p.grad for kind, model in models.items()
             for name, p in model.named_parameters() if p.grad is not None}  # fmt: skip
    assert not scored.first_pass  # its memory is free
    return found, measured, len(asked)


def count_passes(monkeypatch, policy):
    asked = []
    compute = rollout.compute_token_outputs

    def counted(model, *arguments, **options):
        if model is policy:
            asked.append(1)
        return compute(model, *arguments, **options)

    for module in (rollout, updates):
        monkeypatch.setattr(module, "compute_token_outputs", counted)
    return asked


@pytest.mark.parametrize(
    "options",
    [{}, {"critic": "shared", "minibatches": 2}, {"algorithm": "rloo", "completions_per_prompt": 4}, {"lora_rank": 2}],
    ids=["separate critic", "shared critic, two minibatches", "rloo", "adapters"],
)
def test_the_first_minibatch_learns_by_the_pass_that_scored_it(tmp_path, monkeypatch, options):
    kept, measured, passes = first_gradients(tmp_path, monkeypatch, **options)
    monkeypatch.setattr(rollout, "fits_one_pass", lambda *_: False)
    apart, expected, more_passes = first_gradients(tmp_path, monkeypatch, **options)
    assert passes == more_passes - 1
    assert kept.keys() == apart.keys() and measured["approx_kl"] == 0
    for name, gradient in kept.items():
        torch.testing.assert_close(gradient, apart[name], atol=1e-6, rtol=1e-4)
    assert measured == pytest.approx(expected, abs=1e-6)


def test_the_first_pass_is_kept_if_its_graph_fits_into_a_micro_batch(tmp_path):
    context, scored = prepared(tmp_path, critic_model="")
    tokens = attention_slots(sizes_of(scored.episodes))
    shared, answers = context._replace(critic=PolicyTrunkCritic(context.policy)), scored_answers(scored)
    for one, budget, kept in ((shared, tokens, 1), (context, tokens, 0), (context, 2 * tokens, 1), (context, 4, 0)):
        one = one._replace(micro_batches=MicroBatches(budget))
        assert len(rollout.score_episodes(one, scored.episodes, answers, range(24)).first_pass) == kept


def test_the_first_minibatch_is_learned_from_after_its_kept_pass_ran_out_of_memory(tmp_path, monkeypatch):
    expected, *_ = first_gradients(tmp_path, monkeypatch)
    context, scored = prepared(tmp_path)
    scored = rollout.score_episodes(context, scored.episodes, scored_answers(scored), range(24))
    assert scored.first_pass
    failed = []

    def refuse(gradient):
        failed.append(1)
        if len(failed) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    context.policy.get_input_embeddings().weight.register_hook(refuse)
    targets = rollout.compute_targets(scored, 0.5, None, context.settings)
    updates.accumulate_gradients(context, scored, targets, range(24), 0.5, is_first=True)
    assert context.micro_batches.halvings == 1 and len(failed) > 1
    for name, parameter in context.policy.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[f"policy.{name}"], atol=1e-6, rtol=1e-4)
