"""A batch of episodes before its updates: one temperature for all passes, no dropout, KL of completions only."""

import pytest
import torch

from tests.learner.worlds.letters import PROMPTS, log_prob, policy_folder, ppo_job
from tests.learner.worlds.one_batch import prepared
from training.learner import ppo
from training.learner.models.loading import load_policy
from training.learner.models.reward_model import new_reward_model
from training.learner.policy import dialogues, rollout, updates
from training.learner.runtime.jobdir import JobDirectory
from training.learner.runtime.optimization import adamw
from training.learner.runtime.processes import Processes
from training.learner.sampling.sampler import sample
from training.learner.text.messages import Prompt

pytestmark = pytest.mark.slow

DROPOUT = {"resid_pdrop": 0.5, "attn_pdrop": 0.5, "embd_pdrop": 0.5}
CUT = {"temperature": 0.7, "batch_episodes": 24}


def test_the_sampler_writes_by_the_temperature_of_the_passes(tmp_path):
    context, scored = prepared(tmp_path, **CUT)
    written = sample(context.policy, scored.episodes.prompts, range(24), context.params, batch=24)
    assert [completion.tokens for completion in written] == list(scored.episodes.completions)
    own = torch.tensor([value for completion in written for value in completion.log_probs])
    torch.testing.assert_close(own, torch.cat(scored.policy), atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", [{}, {"critic": "shared"}, {"lora_rank": 2}], ids=["whole", "shared", "adapters"])
def test_a_later_minibatch_s_pass_finds_an_unchanged_policy_where_it_was(tmp_path, options):
    """The first minibatch's ratio is 1 by construction; a later minibatch's pass must agree with it."""
    policy_folder(tmp_path / "policy", **DROPOUT)
    context, scored = prepared(tmp_path, **CUT, **options)
    targets = rollout.compute_targets(scored, 0.5, None, context.settings)
    measured = updates.accumulate_gradients(context, scored, targets, range(24), 0.5, is_first=False)
    assert measured["approx_kl"] < 1e-10 and measured["clip_fraction"] == 0


def test_dropout_is_off_during_training(tmp_path):
    policy_folder(tmp_path / "policy", **DROPOUT)
    context, _ = prepared(tmp_path)
    scorer = new_reward_model(str(tmp_path / "policy"), heads=2, seed=0)
    for model in (
        context.policy,
        context.reference,
        context.critic,
        scorer.network,
        load_policy(str(tmp_path / "policy"))[0],
    ):
        found = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
        assert {module.p for module in found} == {0.5} and not any(module.training for module in found)


def test_kl_counts_completion_tokens_and_no_prompt_s(tmp_path):
    policy_folder(tmp_path / "policy")
    policy_folder(tmp_path / "reference", seed=2)
    context, _ = prepared(tmp_path, reference_model=str(tmp_path / "reference"))
    prompts = [Prompt({"messages": []}, tokens, False) for tokens in ([1, 2, 3], [4], [2, 2], [3, 1, 4, 1])]
    episodes, answers = dialogues.sample_episodes(
        context, context.policy, *rollout.prompts_of_step(prompts, 1, context.settings)
    )
    found = rollout.score_episodes(context, episodes, answers).divergences()
    policy, reference = (load_policy(str(tmp_path / name))[0] for name in ("policy", "reference"))
    with torch.no_grad():
        expected = [
            float(log_prob(policy, [*prompt], [*completion]) - log_prob(reference, [*prompt], [*completion]))
            for prompt, completion in zip(episodes.prompts, episodes.completions, strict=True)
        ]
    assert found.tolist() == pytest.approx(expected, abs=1e-4) and len(set(map(len, episodes.completions))) > 1


def test_adam_has_the_published_settings(tmp_path):
    context, _ = prepared(tmp_path, weight_decay=0.3)
    for learner in ppo.trained_models(context):
        groups = learner.optimizer.param_groups
        assert {(group["eps"], group["betas"]) for group in groups} == {(1e-5, (0.9, 0.999))}
        assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
        assert all(p.ndim >= 2 for p in groups[0]["params"]) and all(p.ndim < 2 for p in groups[1]["params"])
    assert {group["eps"] for group in adamw(context.policy, 0.0).param_groups} == {1e-8}


@pytest.mark.parametrize("critic", ["separate", "shared"])
def test_a_critic_without_a_reward_model_starts_at_0(tmp_path, critic):
    job = ppo_job(tmp_path / "job", PROMPTS, steps=1, batch_episodes=8, epochs=1, critic=critic)
    context = ppo.load_context(ppo.PpoConfig.from_json(JobDirectory(job).config()), Processes())
    assert not context.critic.score.weight.any() and not context.critic.score.bias.any()
