"""ppo in a world that can be written down: it starts where it should, steps as it should, and ends near the optimum."""

import itertools
import json

import pytest
import small_world
import torch
from safetensors.torch import load_file
from small_world import best_policy, log_probs, objective, policy_folder, ppo_job
from transformers import AutoModelForCausalLM

from training.learner import ppo, rollout, updates
from training.learner.config import PpoConfig
from training.learner.data import Prompt
from training.learner.jobdir import BadInput, JobDirectory, TrainingFailed
from training.learner.memory import MicroBatches
from training.learner.optimization import adamw, learning_rate_factor, take_step
from training.learner.processes import Processes
from training.learner.rewards import Answer
from training.learner.scoring import ValueHead

PROMPTS = ("a", "b", "c", "d")


def metrics(job):
    return JobDirectory(job).metrics()


def prepared(folder, **settings):
    """A run and its first batch of episodes, scored; a critic's values are random, not all zero."""
    job = ppo_job(folder / "job", PROMPTS, **({"batch_episodes": 24, "steps": 1} | settings))
    settings = PpoConfig.from_json(json.loads((job / "config.json").read_text()))
    run = ppo.prepare(settings, Processes())
    if run.critic is not None:
        with torch.no_grad():
            run.critic.score.weight.normal_()
    prompts = [Prompt({"messages": []}, [i + 1], False) for i in range(4)]
    episodes, answers = rollout.write_episodes(run, run.policy, *rollout.prompts_of_step(prompts, 1, settings))
    return run, rollout.score_episodes(run, episodes, answers)


def gradients(run, scored, chosen, **changes):
    run = run._replace(settings=PpoConfig.from_json(run.settings.to_json() | changes))
    if "micro_batch_tokens" in changes:
        run = run._replace(micro_batches=MicroBatches(run.settings.micro_batch_tokens))
    targets = rollout.targets_of(scored, 0.5, None, run.settings)
    updates.accumulate_gradients(run, scored, targets, chosen, 0.5, is_first=False)
    found = [p.grad.clone() for model in (run.policy, run.critic) if model for p in model.parameters()
             if p.grad is not None]  # fmt: skip
    run.policy.zero_grad()
    run.critic.zero_grad()
    return found


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo", "reinforce"])
def test_at_first_nothing_differs_from_the_reference_or_from_the_sampling_policy(tmp_path, algorithm):
    each = 1 if algorithm == "ppo" else 4
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
    run, scored = prepared(tmp_path, temperature=0.7)
    expected = log_probs_of(run.policy, scored.episodes, 0.7)
    torch.testing.assert_close(torch.cat(scored.policy), expected, atol=1e-5, rtol=0)
    assert torch.equal(torch.cat(scored.policy), torch.cat(scored.reference))


def log_probs_of(model, episodes, temperature):
    """One row at a time by a plain pass."""
    rows = []
    for prompt, completion in zip(*episodes, strict=True):
        model.set_attn_implementation("eager")
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1] / temperature
        rows.append(logits.log_softmax(-1)[range(len(completion)), completion])
    return torch.cat(rows)


def test_gradients_do_not_depend_on_micro_batches(tmp_path):
    run, scored = prepared(tmp_path)
    chosen = list(range(3, 21))
    assert len({len(completion) for completion in scored.episodes.completions}) > 1
    whole = gradients(run, scored, chosen)
    for budget in (1, 7, 20):
        for one, other in zip(whole, gradients(run, scored, chosen, micro_batch_tokens=budget), strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_gradients_do_not_depend_on_how_many_completions_of_a_prompt_are_read_together(tmp_path):
    run, scored = prepared(tmp_path)
    chosen, apart = list(range(12)), [list(range(start, 12, 6)) for start in range(6)]
    together = gradients(run, scored, chosen)
    sizes = [sum(len(scored.episodes.completions[i]) for i in part) for part in apart]
    parts = [gradients(run, scored, part) for part in apart]
    for one, *others in zip(together, *parts, strict=True):
        expected = sum(size * other for size, other in zip(sizes, others, strict=True)) / sum(sizes)
        torch.testing.assert_close(one, expected, atol=1e-6, rtol=1e-4)


def first_gradients(folder, monkeypatch, **settings):
    """What the first minibatch of a run gives; how often the policy was asked since the episodes were written."""
    ppo_job(folder / "job", PROMPTS)  # which draws a policy if there is none
    torch.manual_seed(7)
    run, scored = prepared(folder, **settings)
    chosen = next(updates.minibatches(1, run.settings))
    asked = count_passes(monkeypatch, run.policy)
    scored = rollout.score_episodes(run, scored.episodes, scored_answers(scored), chosen)
    targets = rollout.targets_of(scored, 0.5, None, run.settings)
    measured = updates.accumulate_gradients(run, scored, targets, chosen, 0.5, is_first=True)
    found = {f"{kind}.{name}": p.grad for kind, model in (("policy", run.policy), ("critic", run.critic)) if model
             for name, p in model.named_parameters() if p.grad is not None}  # fmt: skip
    assert not scored.first_pass  # its memory is free
    return found, measured, len(asked)


def count_passes(monkeypatch, policy):
    asked = []
    assess = rollout.assess
    for module in (rollout, updates):
        monkeypatch.setattr(module, "assess", lambda one, *rest, **more: (one is policy and asked.append(1),
                                                                          assess(one, *rest, **more))[1])  # fmt: skip
    return asked


@pytest.mark.parametrize(
    "options",
    [{}, {"critic": "shared", "minibatches": 2}, {"algorithm": "rloo", "completions_per_prompt": 4}, {"lora_rank": 2}],
    ids=["separate critic", "shared critic, two minibatches", "rloo", "adapters"],
)
def test_the_first_minibatch_learns_by_the_pass_that_scored_it(tmp_path, monkeypatch, options):
    kept, measured, passes = first_gradients(tmp_path, monkeypatch, **options)
    monkeypatch.setattr(rollout, "is_small", lambda *_: False)
    apart, expected, more_passes = first_gradients(tmp_path, monkeypatch, **options)
    assert passes == more_passes - 1
    assert kept.keys() == apart.keys() and measured["approx_kl"] == 0
    for name, gradient in kept.items():
        torch.testing.assert_close(gradient, apart[name], atol=1e-6, rtol=1e-4)
    assert measured == pytest.approx(expected, abs=1e-6)


def test_a_pass_is_kept_where_what_it_holds_is_no_more_than_a_micro_batch(tmp_path):
    run, scored = prepared(tmp_path, critic_model="")
    tokens = sum(scored.episodes.lengths())
    shared, answers = run._replace(critic=ValueHead(run.policy)), scored_answers(scored)
    for one, budget, kept in ((shared, tokens, 1), (run, tokens, 0), (run, 2 * tokens, 1), (run, 4, 0)):
        one = one._replace(micro_batches=MicroBatches(budget))
        assert len(rollout.score_episodes(one, scored.episodes, answers, range(24)).first_pass) == kept


def test_the_first_minibatch_is_learned_from_after_its_kept_pass_ran_out_of_memory(tmp_path, monkeypatch):
    expected, *_ = first_gradients(tmp_path, monkeypatch)
    torch.manual_seed(7)
    run, scored = prepared(tmp_path)
    scored = rollout.score_episodes(run, scored.episodes, scored_answers(scored), range(24))
    assert scored.first_pass
    failed = []

    def refuse(gradient):
        failed.append(1)
        if len(failed) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    run.policy.get_input_embeddings().weight.register_hook(refuse)
    targets = rollout.targets_of(scored, 0.5, None, run.settings)
    updates.accumulate_gradients(run, scored, targets, range(24), 0.5, is_first=True)
    assert run.micro_batches.halvings == 1 and len(failed) > 1
    for name, parameter in run.policy.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[f"policy.{name}"], atol=1e-6, rtol=1e-4)


def scored_answers(scored):
    return [Answer({}, [1], completion, "", True) for completion in scored.episodes.completions]


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


def test_a_minibatch_weighs_every_token_the_same(tmp_path):
    run, scored = prepared(tmp_path)
    halves = [list(range(12)), list(range(12, 24))]
    sizes = [sum(len(scored.episodes.completions[i]) for i in half) for half in halves]
    whole = gradients(run, scored, halves[0] + halves[1])
    parts = [gradients(run, scored, half) for half in halves]
    for together, first, second in zip(whole, *parts, strict=True):
        expected = (sizes[0] * first + sizes[1] * second) / sum(sizes)
        torch.testing.assert_close(together, expected, atol=1e-6, rtol=1e-4)


def test_every_epoch_takes_each_episode_once_in_a_new_order():
    settings = PpoConfig(model="m", rewards=[{"name": "missing_end"}], batch_episodes=12, epochs=3, minibatches=4)
    chosen = list(updates.minibatches(5, settings))
    assert len(chosen) == 12 and all(len(part) == 3 for part in chosen)
    orders = [[*itertools.chain(*chosen[4 * epoch : 4 * epoch + 4])] for epoch in range(3)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert list(updates.minibatches(6, settings)) != chosen


def test_optimiser_steps_are_epochs_times_minibatches(tmp_path):
    job = ppo_job(tmp_path / "job", PROMPTS, steps=2, batch_episodes=12, epochs=3, minibatches=4)
    ppo.main(job)
    assert [line["updates"] for line in metrics(job)] == [12, 12]


def test_updates_stop_before_the_policy_has_moved_too_far(tmp_path):
    options = {"steps": 1, "batch_episodes": 32, "epochs": 8, "learning_rate": 0.02}
    ppo.main(ppo_job(tmp_path / "free", PROMPTS, **options))
    ppo.main(ppo_job(tmp_path / "bounded", PROMPTS, **options, max_update_kl=0.01))
    assert metrics(tmp_path / "free")[0]["updates"] == 8
    bounded = metrics(tmp_path / "bounded")[0]
    assert 1 <= bounded["updates"] < 8 and bounded["approx_kl"] <= 0.01


def test_the_learning_rate_follows_its_schedule(tmp_path):
    job = ppo_job(tmp_path / "job", PROMPTS, steps=5, batch_episodes=8, epochs=1, learning_rate=0.01,
                  warmup_fraction=0.2, final_learning_rate_fraction=0.2)  # fmt: skip
    ppo.main(job)
    assert [line["learning_rate"] for line in metrics(job)] == pytest.approx([0.01, 0.01, 0.008, 0.006, 0.004])


def test_a_warm_up_rises_to_the_highest_rate_in_its_last_step():
    settings = PpoConfig(model="m", rewards=[{"name": "missing_end"}], warmup_fraction=0.5)
    factors = [learning_rate_factor(step, 8, settings) for step in range(1, 9)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_gradients_are_clipped_to_their_norm_and_refused_if_not_finite():
    layer = torch.nn.Linear(2, 1)
    optimizer = adamw(layer, 0.0)
    layer.weight.grad, layer.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append((layer.weight.grad.clone(), layer.bias.grad.clone())))
    assert take_step(optimizer, layer.parameters(), 0.1, 1.0, 1) == pytest.approx(5.0)
    assert seen[0][0].tolist()[0] == pytest.approx([0.6, 0]) and seen[0][1].item() == pytest.approx(0.8)
    before = layer.weight.clone()
    layer.weight.grad = torch.tensor([[float("nan"), 0.0]])
    with pytest.raises(TrainingFailed, match="norm is nan at step 2"):
        take_step(optimizer, layer.parameters(), 0.1, 1.0, 2)
    assert torch.equal(layer.weight, before)


def test_a_reward_that_is_not_finite_stops_the_run_with_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(small_world, "reward", lambda answers: [float("nan")] * len(answers))
    job = ppo_job(tmp_path / "job", PROMPTS, steps=2, batch_episodes=8)
    with pytest.raises(TrainingFailed, match="the reward is nan at step 1"):
        ppo.main(job)
    assert JobDirectory(job).result() is None


@pytest.mark.parametrize(
    ("quantity", "part"),
    [("the policy's log-probability", "policy"), ("the reference's log-probability", "reference"),
     ("the value", "critic")],
)  # fmt: skip
def test_what_is_not_finite_is_named(tmp_path, quantity, part):
    run, scored = prepared(tmp_path)
    with torch.no_grad():
        next(getattr(run, part).parameters()).fill_(float("inf"))
    answers = [Answer({}, [1], completion, "", True) for completion in scored.episodes.completions]
    with pytest.raises(TrainingFailed, match=f"{quantity} is nan at step 7"):
        rollout.check_rollout(rollout.score_episodes(run, scored.episodes, answers), 7)


def test_the_state_before_a_failure_is_kept_and_once_mended_the_run_ends_as_if_it_had_never_failed(
    tmp_path, monkeypatch
):
    options = {"steps": 3, "batch_episodes": 8, "epochs": 1, "save_every": 1}
    ppo.main(ppo_job(tmp_path / "straight", PROMPTS, **options))
    job, sound, calls = ppo_job(tmp_path / "job", PROMPTS, **options), small_world.reward, []

    def breaks_down(answers):
        calls.append(1)
        return [float("inf")] * len(answers) if len(calls) == 3 else sound(answers)

    monkeypatch.setattr(small_world, "reward", breaks_down)
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


def test_a_term_must_give_every_answer_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr(small_world, "reward", lambda answers: [1.0])
    with pytest.raises(BadInput, match="one number for each of 8 answers"):
        ppo.main(ppo_job(tmp_path / "job", PROMPTS, steps=1, batch_episodes=8))


@pytest.mark.parametrize("placement", ["reward", "loss"])
def test_with_no_reward_but_kl_the_policy_comes_back_to_the_reference(tmp_path, monkeypatch, placement):
    policy_folder(tmp_path / "reference", seed=1)
    policy_folder(tmp_path / "policy", seed=2)
    monkeypatch.setattr(small_world, "reward", lambda answers: [0.0] * len(answers))
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
    settings = PpoConfig(model="m", rewards=[{"name": "missing_end"}], baseline_decay=0.9, algorithm="reinforce")

    def scored(*scores):
        one = [torch.zeros(1)] * len(scores)
        return rollout.Rollout(None, [True] * len(scores), torch.tensor(scores), one, one, one, [])

    first = ppo.adapt(ppo.Adapted(0.1), scored(1.0, 3.0), settings)
    assert first.baseline == 2.0
    assert rollout.targets_of(scored(5.0, 7.0), 0.1, first.baseline, settings).advantages[1].tolist() == [5.0]
    assert ppo.adapt(first, scored(12.0), settings).baseline == pytest.approx(3.0)


def test_evaluation_is_on_held_out_prompts_with_the_same_chances_every_time(tmp_path):
    job = ppo_job(tmp_path / "job", PROMPTS, steps=2, batch_episodes=8, epochs=1, eval_prompts=3, eval_every=1,
                  learning_rate=1e-12)  # fmt: skip
    rows = [json.loads(line) for line in (job / "prompts.jsonl").read_text().splitlines()]
    rows[2]["split"] = "held_out"
    (job / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ppo.main(job)
    result, lines = JobDirectory(job).result(), metrics(job)
    assert lines[0]["eval_reward"] == pytest.approx(lines[1]["eval_reward"])
    assert result["reward"] == pytest.approx(result["reward_reference"]) and result["evaluation_prompts"] == 1
    assert AutoModelForCausalLM.from_pretrained(job / "model").config.model_type == "gpt2"


def test_held_out_prompts_alone_are_refused(tmp_path):
    job = ppo_job(tmp_path / "job", ["a"])
    (job / "prompts.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}], "split": "held_out"}\n')
    with pytest.raises(BadInput, match="no prompt to learn from"):
        ppo.main(job)


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "ppo", "critic_learning_rate": 0.01, "minibatches": 2},
        {"critic": "shared", "critic_learning_rate": 0.01, "minibatches": 2},
        {"algorithm": "rloo", "completions_per_prompt": 256, "minibatches": 2},
    ],
    ids=["ppo", "ppo on one trunk", "rloo"],
)
def test_it_comes_within_two_percent_of_the_best_attainable(tmp_path, options):
    beta = 0.5
    job = ppo_job(tmp_path / "job", steps=60, batch_episodes=256, learning_rate=0.003, kl_coefficient=beta, **options)
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
