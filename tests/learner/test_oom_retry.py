"""Memory that runs out: micro-batches become smaller by themselves, and nothing that is learned changes."""

import pytest
import torch

from tests.learner.worlds.letters import LETTERS, PROMPTS, ppo_job
from tests.learner.worlds.one_batch import gradients, prepared
from training.learner import ppo
from training.learner.models.imitation import accumulate_gradients
from training.learner.models.loading import load_policy
from training.learner.models.oom_retry import MicroBatches
from training.learner.policy import dialogues, rollout
from training.learner.runtime.jobdir import JobDirectory, TrainingFailed
from training.learner.runtime.processes import Processes
from training.learner.text.demonstrations import Example

pytestmark = pytest.mark.slow


def allocator_of(model, tokens):
    """Let the model fail with more tokens in one forward pass; return the list of token counts of failed passes."""
    failed = []

    def refuse(module, arguments, options):
        count = (options["input_ids"] if "input_ids" in options else arguments[0]).numel()
        if count > tokens:
            failed.append(count)
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate for {count} tokens")

    model.base_model.register_forward_pre_hook(refuse, with_kwargs=True)
    return failed


def test_gradients_are_the_same_after_memory_ran_out(tmp_path):
    context, scored = prepared(tmp_path)
    context.policy.double(), context.critic.double()  # in float32 sums of another order differ by 1e-5
    chosen = list(range(3, 21))
    whole = gradients(context, scored, chosen)
    context = context._replace(micro_batches=MicroBatches(4096))
    failed = allocator_of(context.critic, 12)  # the policy's passes succeed first: half a gradient is left behind
    for one, other in zip(whole, gradients(context, scored, chosen), strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-8)
    assert len(failed) == context.micro_batches.halvings >= 2
    assert context.micro_batches.size <= sum(scored.episodes.select(chosen).lengths()) // 4


def test_a_backward_pass_that_fails_leaves_nothing_behind(tmp_path):
    context, scored = prepared(tmp_path)
    chosen = list(range(18))
    whole = gradients(context, scored, chosen)
    context = context._replace(micro_batches=MicroBatches(30))
    passes = []

    def refuse(gradient):
        passes.append(1)
        if len(passes) == 2:  # the second micro-batch, after the first has added its part
            raise torch.OutOfMemoryError("CUDA out of memory.")

    context.policy.get_input_embeddings().weight.register_hook(refuse)
    for one, other in zip(whole, gradients(context, scored, chosen), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    assert context.micro_batches.halvings == 1 and len(passes) > 2


def test_the_policy_s_activations_are_gone_before_the_critic_s_pass(tmp_path):
    context, scored = prepared(tmp_path)
    policy_has_learned = []
    weight = context.policy.get_input_embeddings().weight
    context.critic.base_model.register_forward_pre_hook(lambda *_: policy_has_learned.append(weight.grad is not None))
    gradients(context, scored, list(range(18)))
    assert policy_has_learned == [True]


@pytest.mark.slow
def test_sampling_and_scoring_go_on_in_smaller_parts(tmp_path, capfd):
    context, scored = prepared(tmp_path)
    roomy = torch.cat(scored.policy)
    context = context._replace(micro_batches=MicroBatches(4096), sampling_rows=MicroBatches(24, unit="completions"))
    failed = allocator_of(context.policy, 10)
    allocator_of(context.reference, 10)
    prompts = [rollout.Prompt({"messages": []}, [i + 1], False) for i in range(4)]
    again = rollout.score_episodes(
        context,
        *dialogues.sample_episodes(context, context.policy, *rollout.prompts_of_step(prompts, 1, context.settings)),
    )
    assert failed and again.episodes == scored.episodes
    torch.testing.assert_close(torch.cat(again.policy), roomy, atol=1e-5, rtol=0)
    assert "at once from here on" in capfd.readouterr().err


def test_a_single_row_that_does_not_fit_ends_the_program_with_a_sentence(tmp_path, monkeypatch):
    job = ppo_job(tmp_path / "job", PROMPTS, steps=1, batch_episodes=8)
    load_context = ppo.load_context

    def without_memory(*arguments):
        context = load_context(*arguments)
        allocator_of(context.reference, 1)
        return context

    monkeypatch.setattr(ppo, "load_context", without_memory)
    with pytest.raises(TrainingFailed, match="memory ran out on a single row of up to 4 tokens: CUDA out of memory"):
        ppo.main(job)
    assert JobDirectory(job).result() is None


def test_other_errors_are_not_treated_as_out_of_memory():
    def fail(size):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        MicroBatches(8).attempt([1, 2], fail)


def test_the_host_s_allocator_counts_too():
    sizes = []

    def allocate(size):
        sizes.append(size)
        if size > 2:
            torch.empty(2**60)
        return size

    assert MicroBatches(100).attempt([3, 1, 2], allocate) == 1
    assert sizes == [100, 3, 1]


def test_sft_learns_the_same_after_memory_ran_out(tmp_path):
    job = ppo_job(tmp_path / "job")
    policy, _ = load_policy(str(job.parent / "policy"))
    examples = [Example([1, *range(1, 1 + size), 0], [1.0] * (size + 1)) for size in (1, 4, 2, 3)]
    assert max(max(example.tokens) for example in examples) < len(LETTERS)
    found = []
    for limit in (100, 7):
        failed = allocator_of(policy, limit)
        loss = accumulate_gradients(policy, examples, 14.0, "float32", Processes(), MicroBatches(50))
        found.append((loss, policy.get_input_embeddings().weight.grad.clone()))
        policy.zero_grad()
    assert failed
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-6, rtol=1e-4)
