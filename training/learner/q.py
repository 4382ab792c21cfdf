"""q: learn the values of tokens from existing completions, and a policy that prefers the better ones.

    python -m training.learner.q JOB_DIR
    accelerate launch --num_processes 2 -m training.learner.q JOB_DIR

Files in:

    config.json        settings that differ from the defaults below; `model` is required
    completions.jsonl  {"messages": [{"role": "user", "content": "..."}], "completion": "...", "reward": 0.5}

A completion may have any author: an earlier policy, a person, another model. Without `"reward"` the reward terms of
the settings score it, which may need `"references": ["..."]`. Rewards of rows and those of the terms must have one
scale. `"finished": false` means that a text was cut off, so that it gets no EOS token. Rows with `"split": "held_out"`
are used for evaluation only. A dialogue has its "turns" instead of "completion": the policy's tokens of all turns are
actions, and the next state after a turn is the one after the user's answer. The reward belongs to the last token.
`"truncated": true` means that a dialogue would have gone on: its reward is not used, and its last token, whose next
state is not known, is no part of any loss. Without the key a completion came to its end.

Files out:

    model/         the policy, a Hugging Face folder
    metrics.jsonl  one line per step: first the losses of the values, then those of the policy; speed
    samples_at_steps.jsonl  completions of the first held-out prompts at the start and at each evaluation of step 5
    measured_samples.jsonl  as ppo writes it, if the settings have reward terms
    result.json    rewards of the data, the weights, and, if the settings have reward terms, reward and KL of the policy
                   on the evaluation prompts and the objective as in ppo; written last
    state/         state to resume from

Steps:

1. Load the policy, the values and their target network; read, score and encode the completions.
2. Plan the batches of both phases, make the optimizers, and load the state of an earlier run.
3. Values: `value_epochs` passes over the replay buffer. Q of a token learns from the value of the next state, or the
   reward at the end; V of a state is an expectile of the target network's Q of the data's tokens.
4. Weights: min(exp((Q − V)/β), max_weight) for every token, by the target network.
5. Policy: `policy_epochs` passes over the replay buffer, each token's log-likelihood weighted.
6. Metrics, evaluation on held-out completions, saved state, in both phases.
7. Answer the evaluation prompts; write the model and the result.

Nothing that is learned from is sampled. SIGTERM stops the program between two steps with its state saved; the same
command resumes. Every random choice is a function of the seed and the pass, so a resumed run ends in the same bits as
one without a stop.

The policy of step 5 is π(a|s) ∝ μ(a|s)·exp(A(s, a)/β), where μ wrote the data. With `state_value: soft` and data of the
reference this is the best policy for reward − β·KL. The expectile needs no β in the values; its policy is close to the
best one, and τ must be higher the smaller β is (training/LOG.md).

| detail | published | here |
|---|---|---|
| one-step target, target network | Watkins 1989, Mnih et al. 2015 | followed; the target is a moving average |
| selection and valuation apart | van Hasselt et al. 2016 | `bootstrap: double_q`; else no token is selected |
| two Q heads, the lower is used | Fujimoto et al. 2018 | followed, as in ILQL (Snell et al. 2023) |
| dueling | Wang et al. 2016, equation 9 | followed; A is bilinear in token embeddings (values/network.py) |
| expectile state value | Kostrikov et al. 2022, "IQL" | followed |
| conservative term | Kumar et al. 2020; Snell et al. 2023 | followed; small: an expectile reads logged tokens only |
| policy is logits + Q in sampling | Snell et al. 2023, "ILQL" | changed: weighted likelihood, an ordinary model |
| values and policy learn at once | Kostrikov et al. 2022 | changed: one after the other; weights are computed once |
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from training.learner.models.context_length import max_positions
from training.learner.models.generic_forward import path_summary
from training.learner.models.gradient_checkpointing import checkpoint_layers
from training.learner.models.loading import freeze, load_policy
from training.learner.models.lora import AdapterView, SharedBase, lora_config
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.reward_model import load_reward_model
from training.learner.models.saving import save_model
from training.learner.policy.context import as_ppo_settings
from training.learner.policy.dialogues import environment_factory
from training.learner.policy.evaluation import measure_policy
from training.learner.policy.fixed_samples import FixedSamples
from training.learner.policy.reference import base_of, load_reference, load_trained_policy
from training.learner.policy.rollout import TrainingContext
from training.learner.rewards.reward_function import Scoring, check_scoring_positions, reward_function
from training.learner.runtime.config import PpoConfig, QConfig
from training.learner.runtime.jobdir import JobDirectory, Stopped
from training.learner.runtime.optimization import (
    adamw,
    check_finite,
    learning_rate_factor,
    load_state,
    peak_learning_rate,
    save_state,
    take_step,
)
from training.learner.runtime.processes import Processes
from training.learner.runtime.program import run_program
from training.learner.runtime.start import start_program
from training.learner.sampling.sampler import check_positions, sampling_params_for
from training.learner.text.messages import Prompt
from training.learner.values.logged import (
    check_differing,
    check_some_end,
    is_trained_on,
    prompts_to_answer,
    read_completions,
    replay_buffer,
    rewards_of,
)
from training.learner.values.losses import effective_share
from training.learner.values.network import ValueNetwork, follow
from training.learner.values.replay import ReplayBuffer, plan_batches
from training.learner.values.updates import (
    VALUE_METRICS,
    ValueContext,
    WeightedTokens,
    policy_batch,
    token_advantages,
    value_batch,
    weigh_tokens,
)


class Models(NamedTuple):
    """The models of a run. base: the shared base with LoRA, else None."""

    policy: Any
    tokenizer: Any
    base: SharedBase | None
    scoring: Scoring | None  # the reward model and its tokenizer; None without a reward model


class Data(NamedTuple):
    """Completions to train on and held-out ones, with their rewards, and the prompts that are answered at the end."""

    train: ReplayBuffer
    held_out: ReplayBuffer
    prompts: list[Prompt]
    truncated_prompts: int
    cut_off_completions: int
    truncated_dialogues: int


def main(job_dir: Path) -> None:
    start = start_program(job_dir, QConfig)
    if start is None:
        return
    settings, job, processes, stop, started = start

    # 1. Models, and completions with their rewards as tokens.
    models = load_models(settings)
    values, target = (load_values(settings, models, name) for name in ("values", "target"))
    target.load_state_dict(values.state_dict())
    context = ValueContext(
        settings, processes, models.policy, values, freeze(target), MicroBatches(settings.micro_batch_tokens)
    )
    data = load_data(settings, models, job, processes)

    # 2. Batches of both phases, optimizers, and the state of an earlier run.
    value_plan = plan_batches(data.train, settings.batch_completions, settings.value_epochs, settings.seed)
    policy_plan = plan_batches(
        data.train, settings.batch_completions, settings.policy_epochs, settings.seed, settings.value_epochs
    )
    total = len(value_plan) + len(policy_plan)
    optimizers = {name: adamw(model, settings.weight_decay) for name, model in trained_models(context).items()}
    rates = peak_rates(settings, context)
    parts = trained_models(context) | {"target": target}
    parts |= {f"{name}_optimizer": optimizer for name, optimizer in optimizers.items()}
    step = 0
    if job.state is not None:
        step, _ = load_state(job.state, parts)
    job.truncate_metrics(step)
    samples = FixedSamples(models.policy, models.tokenizer, job.rows("completions.jsonl"), settings)
    if step == 0:
        samples.write(job, 0)
    weighted: WeightedTokens | None = None

    while step < total:
        step += 1
        learns_values = step <= len(value_plan)
        if learns_values:
            # 3. Values, and their target network.
            name, plan, place = "values", value_plan, step
            batch = value_batch(context, data.train, plan[place - 1])
            metrics = dict(zip(VALUE_METRICS, batch, strict=True))
        else:
            # 4. Weights, once; a resumed run computes the same from the saved target network.
            if weighted is None:
                weighted = weigh_tokens(token_advantages(context, data.train), data.train, settings)
                check_finite("the mean weight of the tokens", weighted.mean, step)
            # 5. Policy.
            name, plan, place = "policy", policy_plan, step - len(value_plan)
            batch = policy_batch(context, data.train, weighted, plan[place - 1])
            metrics = dict(zip(("policy_loss", "imitation_loss"), batch, strict=True))
        for metric, value in metrics.items():
            check_finite(metric, value, step)
        rate = rates[name] * learning_rate_factor(place, len(plan), settings)
        model = trained_models(context)[name]
        norm = take_step(optimizers[name], model.parameters(), rate, settings.max_gradient_norm, step)
        if learns_values:
            follow(target, values, settings.target_decay)

        # 6. Metrics, evaluation, saved state; stop if requested.
        metrics |= {"learning_rate": rate, "gradient_norm": norm, "completions": float(len(plan[place - 1]))}
        metrics["tokens"] = float(sum(data.train.episodes.select(plan[place - 1]).lengths()))
        is_last = step in (len(value_plan), total)
        due = is_last or settings.is_evaluated_after(step, total)
        if data.held_out.episodes.prompts and due:
            metrics |= evaluate(context, data.held_out, learns_values)
        job.append_metrics(step, total, **metrics)
        if due and not learns_values:  # until then the policy is the one at the start
            samples.write(job, step)
        stopping = processes.any(stop.received)
        if stopping or step % settings.save_every == 0:
            save_state(job, step, parts, {})
        if stopping and step < total:
            raise Stopped

    # 7. Answers to the evaluation prompts, the model, then the result.
    if weighted is None:  # resumed after the last step
        weighted = weigh_tokens(token_advantages(context, data.train), data.train, settings)
    result = summary(job, data, weighted, settings) | policy_result(settings, job, models, data, processes)
    job.save_folder("model", lambda folder: save_model(models.policy, models.tokenizer, folder))
    result |= {"steps": step, "seconds": time.monotonic() - started, "processes": processes.count}
    job.write_result({"program": "q"} | result | path_summary(models.policy))
    processes.close()


def load_models(settings: QConfig) -> Models:
    """Load the policy and the reward model. Raises BadInput if one cannot be loaded."""
    policy, tokenizer = load_trained_policy(settings)
    base = base_of(policy)
    scoring = load_reward_model(settings.reward_model, settings.dtype, base) if settings.reward_model else None
    return Models(policy, tokenizer, base, scoring)


def load_values(settings: QConfig, models: Models, name: str) -> ValueNetwork:
    """Return a value network on a copy of the policy's trunk, or with LoRA on an adapter of that name."""
    if models.base is None:
        trunk, _ = load_policy(settings.model)
        if settings.gradient_checkpointing:
            checkpoint_layers(trunk)
        return ValueNetwork(trunk, settings.seed)
    return ValueNetwork(AdapterView(models.base, name, lora_config(settings), settings.seed), settings.seed)


def trained_models(context: ValueContext) -> dict[str, Any]:
    return {"values": context.values, "policy": context.policy}


def peak_rates(settings: QConfig, context: ValueContext) -> dict[str, float]:
    """Return the peak learning rates of values and policy."""
    rate = peak_learning_rate(settings, context.policy)
    return {"values": settings.value_learning_rate or rate, "policy": rate}


def load_data(settings: QConfig, models: Models, job: JobDirectory, processes: Processes) -> Data:
    """Read, score and divide the completions. Raises BadInput if they cannot be used."""
    positions = max_positions(models.policy.config)
    completions = read_completions(models.tokenizer, job.rows("completions.jsonl"), settings, positions)
    learned = [one for one in completions if one.is_learned]
    held_out = [one for one in learned if not is_trained_on(one)]
    train = [one for one in learned if is_trained_on(one)][-settings.buffer_completions :]
    for one in completions:
        check_positions(models.policy, [one.prompt.tokens], len(one.tokens))
    check_some_end(train)
    prompts = prompts_to_answer(held_out or train, settings)
    if settings.eval_prompts and settings.rewards:
        check_positions(models.policy, [prompt.tokens for prompt in prompts], settings.max_completion_tokens)
    if models.scoring is not None:
        rows = [one.prompt.row for one in completions]
        check_scoring_positions(models.scoring, rows, models.tokenizer, reward_settings(settings))
    reward = None
    if settings.rewards:
        reward = reward_function(reward_settings(settings), models.tokenizer, models.scoring)
    rewards, held_out_rewards = (rewards_of(part, reward, processes) for part in (train, held_out))
    buffer = replay_buffer(train, rewards)
    check_differing(buffer)
    return Data(
        train=buffer,
        held_out=replay_buffer(held_out, held_out_rewards),
        prompts=prompts,
        truncated_prompts=sum(one.prompt.truncated for one in completions),
        cut_off_completions=sum(not one.finished for one in completions),
        truncated_dialogues=sum(one.is_truncated for one in completions),
    )


def reward_settings(settings: QConfig) -> PpoConfig:
    """Return settings with which the functions of ppo score and evaluate as q is set."""
    return as_ppo_settings(settings, batch_episodes=settings.batch_completions)


def evaluate(context: ValueContext, held_out: ReplayBuffer, learns_values: bool) -> dict[str, float]:
    """Return the losses on held-out completions: of the values, or of imitation by the policy without weights."""
    batch = range(len(held_out.counts))
    if learns_values:
        return {"held_out_td_loss": value_batch(context, held_out, batch, learns=False)[0]}
    weighted = weigh_tokens(token_advantages(context, held_out), held_out, context.settings)
    weighted_loss, loss = policy_batch(context, held_out, weighted, batch, learns=False)
    return {"held_out_policy_loss": weighted_loss, "held_out_imitation_loss": loss}


def summary(job: JobDirectory, data: Data, weighted: WeightedTokens, settings: QConfig) -> dict[str, Any]:
    """Return the figures of the training: last losses, rewards of the data, and the weights of its tokens."""
    lines, everything = job.metrics(), range(len(data.train.counts))
    weights = torch.cat(weighted.weights)[data.train.is_learned(everything)]
    ended = ~data.train.truncated()
    counts, rewards = data.train.counts[ended], data.train.rewards[ended]
    last: dict[str, Any] = {}
    for line in lines:
        last |= line
    names = ("td_loss", "held_out_td_loss", "policy_loss", "held_out_policy_loss", "held_out_imitation_loss")
    return {name: last[name] for name in names if name in last} | {
        "train_completions": int(data.train.counts.sum()),
        "different_completions": len(data.train.counts),
        "train_prompts": len({tuple(prompt) for prompt in data.train.episodes.prompts}),
        "held_out_completions": int(data.held_out.counts.sum()),
        "data_reward": float((counts * rewards).sum() / counts.sum()),
        "data_reward_best": float(rewards.max()),
        "clipped_weights": float((weights >= settings.max_weight).double().mean()),
        "effective_tokens": effective_share(weights),
        "truncated_prompts": data.truncated_prompts,
        "cut_off_completions": data.cut_off_completions,
        "truncated_dialogues": data.truncated_dialogues,
    }


def policy_result(
    settings: QConfig, job: JobDirectory, models: Models, data: Data, processes: Processes
) -> dict[str, Any]:
    """Return reward, KL and objective of the policy on the evaluation prompts, as ppo does.

    None without evaluation prompts, or without reward terms: then nothing can score a new completion.
    """
    if not (settings.eval_prompts and settings.rewards and data.prompts):
        return {}
    as_ppo = reward_settings(settings)
    reference = load_reference(models.policy, models.tokenizer, settings, "")
    model = models.base.model if models.base else models.policy
    context = TrainingContext(
        settings=as_ppo,
        processes=processes,
        policy=models.policy,
        reference=reference,
        critic=None,
        scoring=models.scoring,
        reward=reward_function(as_ppo, models.tokenizer, models.scoring),
        new_environment=environment_factory(as_ppo),
        tokenizer=models.tokenizer,
        params=sampling_params_for(model, models.tokenizer, settings.max_completion_tokens, 1.0, 1.0, settings.seed),
        micro_batches=MicroBatches(settings.micro_batch_tokens),
        sampling_rows=MicroBatches(settings.batch_completions, unit="completions"),
    )
    split = "held_out" if data.held_out.episodes.prompts else "train"
    return measure_policy(context, job, data.prompts, settings.kl_coefficient) | {"evaluated_on": split}


if __name__ == "__main__":
    run_program(main, QConfig)
