"""The return of a truncated dialogue is not known: algorithms without a critic leave it out, q does not use it."""

import dataclasses
import json
import math

import pytest
import torch

from tests.learner.worlds.letters import policy_folder, ppo_job
from tests.learner.worlds.spoken import LETTERS_PROMPT
from tests.learner.worlds.truncated import NOTHING, SCRIPT, cut_short
from training.learner import ppo, sample
from training.learner.estimators import ALGORITHMS
from training.learner.policy import dialogues, rollout, updates
from training.learner.policy.advantages import advantages_of_ended
from training.learner.policy.completion_figures import figures_of_dialogue
from training.learner.policy.losses import kl_k3
from training.learner.runtime.jobdir import BadInput, JobDirectory
from training.learner.text.messages import Prompt


def estimates(algorithm, rewards, truncated, size=4, baseline=0.0):
    found = advantages_of_ended(
        ALGORITHMS[algorithm], torch.tensor(rewards), torch.tensor([bool(one) for one in truncated]), size, baseline
    )
    return found.advantages.tolist(), [int(one) for one in found.is_estimated]


def test_a_truncated_dialogue_is_no_part_of_the_comparison_of_the_others():
    # Of the rewards 1, 3 and 8 by hand: rloo 1 − 5.5, 3 − 4.5, 8 − 2; grpo with the mean 4 and the deviation √13.
    rewards, truncated = [1.0, 3.0, 8.0, 5.0], [0, 0, 0, 1]
    assert estimates("rloo", rewards, truncated) == (pytest.approx([-4.5, -1.5, 6.0, 0.0]), [1, 1, 1, 0])
    by_grpo = [-0.832, -0.277, 1.109, 0.0]
    assert estimates("grpo", rewards, truncated) == (pytest.approx(by_grpo, abs=1e-3), [1, 1, 1, 0])
    assert estimates("reinforce", rewards, truncated, baseline=2.0) == ([-1.0, 1.0, 6.0, 0.0], [1, 1, 1, 0])


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_prompts_with_fewer_than_two_dialogues_that_ended_have_no_advantages(algorithm):
    # Prompts of which one, none, all and two of three ended. By hand of 9 and 5: rloo 9 − 5, grpo (9 − 7) / √8.
    rewards = [1.0, math.nan, math.nan, math.nan, math.nan, math.nan, 2.0, 2.0, 2.0, 9.0, math.nan, 5.0]
    truncated = [0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0]
    advantages, is_estimated = estimates(algorithm, rewards, truncated, size=3)
    apart = {"rloo": 4.0, "grpo": 2 / math.sqrt(8)}[algorithm]
    assert advantages == pytest.approx([0.0] * 9 + [apart, 0.0, -apart], abs=1e-4)
    assert is_estimated == [0] * 6 + [1] * 3 + [1, 0, 1]


@pytest.mark.parametrize("algorithm", ["rloo", "grpo", "reinforce"])
def test_without_truncated_dialogues_the_advantages_are_those_of_the_estimator_to_the_bit(algorithm):
    rewards = torch.randn(24, generator=torch.Generator().manual_seed(0))
    found = advantages_of_ended(ALGORITHMS[algorithm], rewards, torch.zeros(24, dtype=torch.bool), 4, 0.3)
    assert torch.equal(found.advantages, ALGORITHMS[algorithm].advantages(rewards, 4, 0.3)) and found.is_estimated.all()


def with_truncated(*truncated, scores):
    """Return a rollout of dialogues of one token."""
    count, one = len(scores), [torch.zeros(1)] * len(scores)
    episodes = rollout.Episodes([[1]] * count, [[0]] * count, None, [[] if cut else None for cut in truncated])
    return rollout.Rollout(episodes, [True] * count, torch.tensor(scores), one, one, one, [], {}, torch.zeros(count))


def test_the_baseline_of_reinforce_is_a_mean_of_dialogues_that_ended():
    settings = rollout.PpoConfig(
        model="m", rewards=[{"name": "missing_eos"}], algorithm="reinforce", baseline_decay=0.9
    )
    batch = with_truncated(0, 1, 0, scores=[1.0, 50.0, 3.0])
    assert [float(row) for row in rollout.compute_targets(batch, 0.1, None, settings).advantages] == [-1.0, 0.0, 1.0]
    first = ppo.adapt(ppo.AdaptiveState(0.1), batch, settings)
    assert first.baseline == 2.0
    none_ended = with_truncated(1, 1, scores=[50.0, 60.0])
    assert ppo.adapt(first, none_ended, settings) == first
    assert ppo.adapt(ppo.AdaptiveState(0.1), none_ended, settings).baseline is None
    targets = rollout.compute_targets(none_ended, 0.1, None, settings)
    assert [float(row) for row in targets.advantages] == [0.0, 0.0] and targets.is_estimated == [False, False]


@pytest.fixture(scope="module")
def rloo(tmp_path_factory):
    """A context without a critic, and its first rollout; the reference is another model than the policy."""
    context, episodes, answers = cut_short(tmp_path_factory.mktemp("rloo"), "none")
    with torch.no_grad():
        context.reference.transformer.wte.weight.mul_(1.1)
    return context, rollout.score_episodes(context, episodes, answers)


def gradient_and_metrics(context, scored, minibatch, **changes):
    context = context._replace(settings=dataclasses.replace(context.settings, **changes))
    targets = rollout.compute_targets(scored, 0.5, None, context.settings)
    metrics = updates.accumulate_gradients(context, scored, targets, minibatch, 0.5, is_first=False)
    gradient = torch.cat([p.grad.flatten() for p in context.policy.parameters() if p.grad is not None])
    context.policy.zero_grad()
    return gradient, metrics


def parts_of(scored, context):
    """Return the indices of the episodes with an advantage, and of the others."""
    is_estimated = rollout.compute_targets(scored, 0.5, None, context.settings).is_estimated
    return ([i for i in range(64) if is_estimated[i] == wanted] for wanted in (True, False))


@pytest.mark.slow
@pytest.mark.parametrize("kl_placement", ["reward", "loss"])
def test_truncated_dialogues_neither_change_nor_shorten_the_policy_gradient(rloo, kl_placement):
    """A KL penalty in the reward is left out with it; a KL loss, which needs no return, is a mean over all tokens."""
    context, scored = rloo
    estimated, others = parts_of(scored, context)
    truncated = {i for i, cut in enumerate(scored.episodes.truncated()) if cut}
    assert truncated <= set(others) and len(estimated) > 8 and len(truncated) > 8
    alone, of_alone = gradient_and_metrics(context, scored, estimated, kl_placement=kl_placement)
    together, metrics = gradient_and_metrics(context, scored, range(64), kl_placement=kl_placement)
    if kl_placement == "loss":
        alone += kl_gradient(context, scored, range(64)) - kl_gradient(context, scored, estimated)
    assert alone.norm() > 0.01
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-4)
    assert metrics["policy_loss"] == pytest.approx(of_alone["policy_loss"], rel=1e-4)


def kl_gradient(context, scored, chosen):
    """Return the gradient of β = 0.5 times the mean k3 over the tokens of these episodes."""
    outputs = rollout.forward(context, context.policy, None, scored.episodes.select(chosen))
    reference = torch.cat([scored.reference[i] for i in chosen])
    (0.5 * kl_k3(outputs.log_probs, reference).mean()).backward()
    gradient = torch.cat([p.grad.flatten() for p in context.policy.parameters() if p.grad is not None])
    context.policy.zero_grad()
    return gradient


def test_a_minibatch_of_truncated_dialogues_gives_no_gradient_and_no_nan(rloo):
    context, scored = rloo
    _, others = parts_of(scored, context)
    gradient, metrics = gradient_and_metrics(context, scored, others)
    assert not gradient.any() and metrics["policy_loss"] == 0.0
    assert all(map(math.isfinite, metrics.values())) and metrics["entropy"] > 0


@pytest.mark.slow
def test_the_metrics_count_the_dialogues_that_are_left_out(tmp_path):
    policy_folder(tmp_path / "policy", max_position_embeddings=5)
    job = ppo_job(
        tmp_path / "job", environment=SCRIPT, steps=2, batch_episodes=16, completions_per_prompt=2, algorithm="grpo",
        max_completion_tokens=2, **NOTHING,
    )  # fmt: skip
    ppo.main(job)
    lines, result = JobDirectory(job).metrics(), JobDirectory(job).result()
    assert all(16 > line["left_out_dialogues"] >= line["truncated_dialogues"] > 0 for line in lines)
    assert result["left_out_dialogues"] == sum(line["left_out_dialogues"] for line in lines)


@pytest.mark.slow
def test_an_algorithm_without_a_critic_refuses_dialogues_of_which_none_can_come_to_its_end(tmp_path, monkeypatch):
    """Also without reward terms: the environment's rewards are part of a return that is not known."""
    policy_folder(tmp_path / "policy", max_position_embeddings=4)  # for one turn, and no second one
    monkeypatch.setattr(dialogues, "sample_turns", lambda context, model, texts, numbers: [
        dialogues.Completion([2, 0], [-1.0, -1.0], True) for _ in texts
    ])  # fmt: skip
    job = ppo_job(
        tmp_path / "job", environment=SCRIPT, rewards=[], algorithm="rloo", completions_per_prompt=2, steps=1,
        batch_episodes=4, max_completion_tokens=2, **NOTHING,
    )  # fmt: skip
    with pytest.raises(BadInput, match="none of the first 4 dialogues comes to its end, and rloo learns from no other"):
        ppo.main(job)
    config = json.loads((job / "config.json").read_text()) | {"algorithm": "ppo"}
    (job / "config.json").write_text(json.dumps(config))
    ppo.main(job)  # the critic values what follows


@pytest.mark.slow
def test_samples_say_which_dialogues_are_truncated(tmp_path):
    policy_folder(tmp_path / "policy", max_position_embeddings=5)
    settings = {"model": str(tmp_path / "policy"), "environment": SCRIPT | {"turns": 2}, "max_completion_tokens": 2,
                "completions_per_prompt": 40}  # fmt: skip
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt_id": 1, "messages": LETTERS_PROMPT}) + "\n")
    (tmp_path / "config.json").write_text(json.dumps(settings))
    sample.main(tmp_path)
    rows, result = list(JobDirectory(tmp_path).rows("samples.jsonl")), JobDirectory(tmp_path).result()
    assert {bool(row.get("truncated")) for row in rows} == {True, False}
    for row in rows:
        has_all_turns = len(row.get("turns", ())) == 3
        assert row.get("truncated", False) == (row["ended"] and not has_all_turns)
    truncated, cut_off = result["truncated_dialogues"], result["cut_off_completions"]
    assert truncated == sum(row.get("truncated", False) for row in rows)
    assert result["ended_fraction"] == pytest.approx(1 - (truncated + cut_off) / 40)


def test_an_evaluation_counts_a_dialogue_as_finished_only_if_nothing_cut_it(rloo):
    """Five positions, a prompt of one token and an answer of one: after a turn of two tokens, no further one fits."""
    context, _ = rloo
    two_turns = dataclasses.replace(context.settings, environment=SCRIPT | {"turns": 2})
    context = context._replace(settings=two_turns, new_environment=dialogues.environment_factory(two_turns))
    tools = dialogues.EpisodeContext.of(context)
    figures = []
    for turns in ([([2, 0], True)], [([0], True), ([2, 0], True)], [([2, 3], False)], [([0], True), ([2, 3], False)]):
        dialogue = dialogues.Dialogue(tools, Prompt({"messages": LETTERS_PROMPT}, [1], False), 0)
        for tokens, finished in turns:
            assert not dialogue.is_over
            dialogue.take(dialogues.Completion(tokens, [0.0] * len(tokens), finished))
        assert dialogue.is_over
        one = figures_of_dialogue(context.tokenizer, {}, dialogue)
        figures.append((one["finished"], one["cut_off"], one.get("truncated", 0.0)))
    assert figures == [(0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 1.0, 0.0)]
