"""ppo in a world that can be enumerated: it starts at the reference, ends near the optimum, and reports errors."""

import json

import numpy as np
import pytest
import scipy
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.learner.worlds import letters
from tests.learner.worlds.letters import (
    PROMPTS,
    REWARD,
    best_policy,
    damaged_policy,
    log_probs,
    metrics,
    objective,
    on_reward_model,
    policy_folder,
    ppo_job,
)
from tests.learner.worlds.one_batch import prepared, scored_answers
from training.learner import ppo
from training.learner.estimators import ALGORITHMS
from training.learner.models.packing import Episodes
from training.learner.policy import rollout
from training.learner.policy.evaluation import paired_gain
from training.learner.runtime.config import PpoConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory, TrainingFailed

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_before_training_log_probs_equal_those_of_the_reference_and_the_sampler(tmp_path, algorithm):
    each = 1 if ALGORITHMS[algorithm].needs_critic else 4
    job = ppo_job(tmp_path / "job", PROMPTS, algorithm=algorithm, completions_per_prompt=each, steps=2,
                  batch_episodes=32, epochs=2, minibatches=2, learning_rate=0.01, temperature=0.8)  # fmt: skip
    ppo.main(job)
    first, second = metrics(job)
    assert first["kl"] == 0.0  # to the bit
    assert first["first_approx_kl"] == 0.0 and second["first_approx_kl"] == 0.0
    assert first["approx_kl"] > 0 and second["kl"] != 0.0  # it has learned something since


def test_the_first_minibatch_clips_nothing(tmp_path):
    job = ppo_job(tmp_path / "job", PROMPTS, steps=1, batch_episodes=32, epochs=1, micro_batch_tokens=9)
    ppo.main(job)
    (only,) = metrics(job)
    assert only["clip_fraction"] == 0 and only["approx_kl"] == 0 and only["updates"] == 1
    assert only["policy_loss"] == pytest.approx(0, abs=1e-6)  # −mean of whitened advantages at ratio 1


def test_log_probabilities_of_the_sampler_and_of_the_passes_agree(tmp_path):
    context, scored = prepared(tmp_path, temperature=0.7)
    expected = log_probs_of(context.policy, scored.episodes, 0.7)
    torch.testing.assert_close(torch.cat(scored.policy), expected, atol=1e-5, rtol=0)
    assert torch.equal(torch.cat(scored.policy), torch.cat(scored.reference))


def log_probs_of(model, episodes, temperature):
    """Return log-probs of one row at a time by a plain pass."""
    rows = []
    for prompt, completion in zip(episodes.prompts, episodes.completions, strict=True):
        model.set_attn_implementation("eager")
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1] / temperature
        rows.append(logits.log_softmax(-1)[range(len(completion)), completion])
    return torch.cat(rows)


def test_a_reward_that_is_not_finite_stops_the_run_with_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(letters, "reward", lambda answers: [float("nan")] * len(answers))
    job = ppo_job(tmp_path / "job", PROMPTS, steps=2, batch_episodes=8)
    with pytest.raises(TrainingFailed, match="the reward is nan at step 1"):
        ppo.main(job)
    assert JobDirectory(job).result() is None


@pytest.mark.parametrize("part", ["model", "reference_model"])
def test_a_policy_with_nan_weights_stops_the_run_with_a_sentence(tmp_path, part):
    folder = damaged_policy(tmp_path / "damaged")
    job = ppo_job(tmp_path / "job", steps=1, batch_episodes=8, eval_prompts=1, optimum_samples=4, **{part: str(folder)})
    with pytest.raises(TrainingFailed, match="log-probability is nan at step 1"):
        ppo.main(job)


@pytest.mark.parametrize(
    ("quantity", "part"),
    [("the policy's log-probability", "policy"), ("the reference's log-probability", "reference"),
     ("the value", "critic")],
)  # fmt: skip
def test_a_quantity_that_is_not_finite_is_named(tmp_path, quantity, part):
    context, scored = prepared(tmp_path)
    with torch.no_grad():
        next(getattr(context, part).parameters()).fill_(float("inf"))
    with pytest.raises(TrainingFailed, match=f"{quantity} is nan at step 7"):
        rollout.check_rollout(rollout.score_episodes(context, scored.episodes, scored_answers(scored)), 7)


def test_after_a_failure_the_run_resumes_and_ends_as_if_it_had_not_failed(tmp_path, monkeypatch):
    options = {"steps": 3, "batch_episodes": 8, "epochs": 1, "save_every": 1}
    ppo.main(ppo_job(tmp_path / "straight", PROMPTS, **options))
    job, sound, calls = ppo_job(tmp_path / "job", PROMPTS, **options), letters.reward, []

    def breaks_down(answers):
        calls.append(1)
        return [float("inf")] * len(answers) if len(calls) == 3 else sound(answers)

    monkeypatch.setattr(letters, "reward", breaks_down)
    with pytest.raises(TrainingFailed, match="the reward is inf at step 3; the last saved state is kept"):
        ppo.main(job)
    assert [line["step"] for line in metrics(job)] == [1, 2] and JobDirectory(job).result() is None
    ppo.main(job)
    ours, theirs = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("job", "straight"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("algorithm", ["ppo", "reinforce"])
def test_one_prompt_one_episode_and_one_token_are_enough(tmp_path, algorithm):
    job = ppo_job(tmp_path / "job", ["a"], steps=2, batch_episodes=1, max_completion_tokens=1, algorithm=algorithm)
    ppo.main(job)
    assert [line["completion_tokens"] for line in metrics(job)] == [1, 1]


def test_completions_cut_off_and_prompts_truncated_are_counted(tmp_path):
    job = ppo_job(tmp_path / "job", ["a b c", "a"], steps=2, batch_episodes=8, max_prompt_tokens=2, epochs=1)
    ppo.main(job)
    result = JobDirectory(job).result()
    assert result["truncated_prompts"] == 1
    cut_off = sum((1 - line["ended_fraction"]) * 8 for line in metrics(job))
    assert result["cut_off_completions"] == cut_off > 0


@pytest.mark.parametrize("given", [[1.0], ["good"] * 8, None, [None] * 8, [[1.0]] * 8, (1.0 for _ in range(8))])
def test_a_reward_term_must_give_one_number_per_answer(tmp_path, monkeypatch, given):
    monkeypatch.setattr(letters, "reward", lambda answers: given)
    with pytest.raises(BadInput, match="one number for each of 8 answers"):
        ppo.main(ppo_job(tmp_path / "job", PROMPTS, steps=1, batch_episodes=8))


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["reward", "loss"])
def test_with_the_kl_penalty_alone_the_policy_returns_to_the_reference(tmp_path, monkeypatch, placement):
    policy_folder(tmp_path / "reference", seed=1)
    policy_folder(tmp_path / "policy", seed=2)
    monkeypatch.setattr(letters, "reward", lambda answers: [0.0] * len(answers))
    ppo.main(ppo_job(tmp_path / "job", steps=15, batch_episodes=128, learning_rate=0.01, algorithm="rloo",
                     completions_per_prompt=128, kl_coefficient=1.0, kl_placement=placement, epochs=2,
                     reference_model=str(tmp_path / "reference")))  # fmt: skip
    lines = metrics(tmp_path / "job")
    assert lines[0]["kl"] > 0.5 and abs(lines[-1]["kl"]) < 0.2 * lines[0]["kl"]


def test_the_adaptive_coefficient_rises_while_kl_is_above_its_target(tmp_path):
    job = ppo_job(tmp_path / "job", PROMPTS, steps=4, batch_episodes=32, learning_rate=0.02, kl_coefficient=0.001,
                  kl_target=0.01, kl_horizon=320)  # fmt: skip
    ppo.main(job)
    lines = metrics(job)
    assert lines[1]["kl_coefficient"] == pytest.approx(0.001 * 0.98)  # the first KL is 0, below the target
    assert lines[1]["kl"] > 0.01
    assert lines[2]["kl_coefficient"] == pytest.approx(0.001 * 0.98 * 1.02)


def test_reinforce_s_moving_baseline_is_of_earlier_batches():
    settings = PpoConfig(model="m", rewards=[{"name": "missing_eos"}], baseline_decay=0.9, algorithm="reinforce")

    def scored(*scores):
        count, one = len(scores), [torch.zeros(1)] * len(scores)
        episodes = Episodes([[1]] * count, [[0]] * count)
        return rollout.Rollout(
            episodes, [True] * count, torch.tensor(scores), one, one, one, [], {}, torch.zeros(count)
        )

    first = ppo.adapt(ppo.AdaptiveState(0.1), scored(1.0, 3.0), settings)
    assert first.baseline == 2.0
    assert rollout.compute_targets(scored(5.0, 7.0), 0.1, first.baseline, settings).advantages[1].tolist() == [5.0]
    assert ppo.adapt(first, scored(12.0), settings).baseline == pytest.approx(3.0)


def test_the_explained_variance_compares_values_with_returns():
    def batch(values, returns):
        rows = [torch.tensor(values[:2]), torch.tensor(values[2:])]
        targets = rollout.Targets([], [torch.tensor(returns[:2]), torch.tensor(returns[2:])], [True] * 2)
        zeros = torch.zeros(2)
        return rollout.Rollout(None, [True] * 2, zeros, [], [], rows, [], {}, zeros), targets

    # Returns −1, 1, 3, 5 have the variance 5. Errors 1, −1, 1, −1 have the variance 1.
    explained = ppo.critic_metrics(*batch([-2.0, 2.0, 2.0, 6.0], [-1.0, 1.0, 3.0, 5.0]))
    assert explained == {"explained_variance": pytest.approx(1 - 1 / 5)}
    assert ppo.critic_metrics(*batch([0.5] * 4, [1.0, 2.0, 3.0, 4.0])) == {"explained_variance": 0.0}
    assert ppo.critic_metrics(*batch([0.5] * 4, [1.0] * 4)) == {}, "without variance there is nothing to explain"


def test_every_evaluation_uses_held_out_prompts_and_the_same_random_numbers(tmp_path):
    job = ppo_job(tmp_path / "job", PROMPTS, steps=2, batch_episodes=8, epochs=1, eval_prompts=3, eval_every=1,
                  learning_rate=1e-12)  # fmt: skip
    rows = [json.loads(line) for line in (job / "prompts.jsonl").read_text().splitlines()]
    rows[2]["split"] = "held_out"
    (job / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ppo.main(job)
    result, lines = JobDirectory(job).result(), metrics(job)
    assert lines[0]["eval_reward"] == pytest.approx(lines[1]["eval_reward"])
    assert result["reward"] == pytest.approx(result["reward_reference"]) and result["evaluation_prompts"] == 1
    samples = JobDirectory(job).samples_at_steps()
    assert [row["step"] for row in samples] == [0, 1, 2] and len({row["text"] for row in samples}) == 1
    assert {row["messages"][0]["content"] for row in samples} == {rows[2]["messages"][0]["content"]}
    assert [row["reward"] for row in samples] == pytest.approx([lines[0]["eval_reward"]] * 3, abs=1e-4)
    assert AutoModelForCausalLM.from_pretrained(job / "model").config.model_type == "gpt2"


def test_the_metrics_hold_an_evaluation_curve_by_default(tmp_path):
    job = ppo_job(tmp_path / "job", PROMPTS, steps=12, batch_episodes=8, epochs=1, eval_prompts=3)
    ppo.main(job)
    evaluated = [line["step"] for line in metrics(job) if "eval_reward" in line and "eval_kl" in line]
    assert evaluated == [2, 4, 6, 8, 10, 12]


def test_the_interval_of_a_gain_covers_it():
    """Skewed gains, as of a reward model's scores: the normal interval holds the true mean in about 95 % of worlds."""
    chance, covered = np.random.default_rng(0), 0
    for _ in range(1000):
        before, gain = chance.normal(size=64), chance.gamma(2.0, 0.25, size=64) - 0.3
        gain_figures = paired_gain(torch.tensor(before + gain), torch.tensor(before))
        covered += gain_figures["reward_gain_low"] <= 0.2 <= gain_figures["reward_gain_high"]
    assert 920 <= covered <= 970


def test_the_interval_of_a_gain_is_the_normal_one():
    chance = np.random.default_rng(1)
    before, after = chance.normal(size=40), chance.normal(size=40) + 0.5
    gain_figures = paired_gain(torch.tensor(after), torch.tensor(before))
    gains = after - before
    error = scipy.stats.sem(gains)
    low, high = scipy.stats.norm.interval(0.95, gains.mean(), error)
    expected = {
        "reward_gain": gains.mean(),
        "reward_gain_error": error,
        "reward_gain_low": low,
        "reward_gain_high": high,
    }
    assert gain_figures == pytest.approx(expected)


def test_a_gain_over_few_prompts_has_no_interval():
    assert paired_gain(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.5])) == {"reward_gain": 1.0}


def test_held_out_prompts_alone_are_refused(tmp_path):
    job = ppo_job(tmp_path / "job", ["a"])
    (job / "prompts.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}], "split": "held_out"}\n')
    with pytest.raises(BadInput, match="has only held-out prompts"):
        ppo.main(job)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"algorithm": "ppo", "critic_learning_rate": 0.01, "minibatches": 2}, id="ppo", marks=pytest.mark.full
        ),
        pytest.param(
            {"critic": "shared", "critic_learning_rate": 0.01, "minibatches": 2},
            id="ppo on one trunk",
            marks=pytest.mark.full,
        ),
        pytest.param(
            {"critic": "reward_model", "critic_learning_rate": 0.03, "minibatches": 2, "steps": 80},
            id="ppo on a reward model that knows nothing of the reward",
            marks=pytest.mark.full,
        ),
        pytest.param(
            {"algorithm": "rloo", "completions_per_prompt": 256, "minibatches": 2}, id="rloo", marks=pytest.mark.full
        ),
    ],
)
def test_it_comes_within_two_percent_of_the_best_attainable(tmp_path, options):
    beta = 0.5
    if options.get("critic") == "reward_model":
        options = on_reward_model(tmp_path, rewards=[REWARD, {"name": "reward_model", "weight": 0.0}]) | options
    options = {"steps": 60, "batch_episodes": 256, "learning_rate": 0.003, "kl_coefficient": beta} | options
    job = ppo_job(tmp_path / "job", **options)
    ppo.main(job)
    reference, policy = (
        log_probs(AutoModelForCausalLM.from_pretrained(folder), [1]) for folder in (tmp_path / "policy", job / "model")
    )
    assert policy.exp().sum() == pytest.approx(1.0)
    best = best_policy(reference, beta)
    start, reached, highest = (objective(p, reference, beta) for p in (reference, policy, best))
    variation = float((policy.exp() - best.exp()).abs().sum() / 2)
    print(f"J {start:.3f} -> {reached:.3f} of {highest:.3f}, total variation {variation:.3f}")
    assert (reached - start) / (highest - start) >= 0.98
    assert variation < 0.1
