"""ppo: improves a policy against rewards by proximal policy optimisation, while it stays close to a reference.

    python -m training.learner.ppo JOB_DIR
    accelerate launch --num_processes 2 -m training.learner.ppo JOB_DIR

Reads config.json (`PpoConfig`) and prompts.jsonl, rows of `{"prompt_id": 7, "messages": [...], "references": [...]}`;
those with `"split": "held_out"` serve for evaluation only. Writes model/. Every random choice is a function of the seed
and the step, so there is no random state to save, and a run stopped and resumed ends in the same bits.

What is followed of the details published by Huang et al. («The N+ implementation details of RLHF with PPO», 2024, which
reproduces OpenAI's code of 2019; «The 37 implementation details of PPO», 2022), and what is not:

| detail | here |
|---|---|
| reward at the last token, KL penalty at every token | followed; the last token is the end token if there is one |
| scores normalised on the reference's samples | followed: stored in the reward model's folder |
| a completion without end gets a fixed low score | changed: a penalty is taken from its score, still in order |
| KL by k1, adaptive coefficient (error cut at ±0.2) | followed; the coefficient is fixed by default |
| reward whitening that keeps the mean | followed: whiten_rewards; off by default, normalised scores need none |
| advantage whitening over the batch, masked | followed; with the statistics of the whole batch in every process |
| samples of one length, cut at their end token after | changed: completions stop at their end, nothing is padded |
| dropout off | followed, in every model |
| Adam with epsilon 1e-5 | followed, with PyTorch's bias correction (TensorFlow's differs in early steps) |
| learning rate annealed linearly | followed; a step of the schedule is a batch |
| value head on the policy's trunk, zero at first | changed: a critic of its own (InstructGPT), see `load_critic` |
| clipped ratio, clipped value, ½ in the value loss | followed |
| one loss, value coefficient 0.1, no gradient clipping | changed: an optimiser for each needs none; both clip |
| means over the tokens of a micro-batch | changed: of the minibatch on all processes, so no division changes it |
| temperature divides the logits in every pass | followed |
| top-p while training | not offered: the policy that samples must be the one that is improved |
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.learner.config import PpoConfig
from training.learner.data import Prompt, budget_batches, read_prompts, share, shuffled
from training.learner.jobdir import BadInput, JobDirectory, Stopped, StopSignal, run_program
from training.learner.losses import clipped_policy_loss, clipped_value_loss, kl_k3, next_kl_coefficient
from training.learner.models import (
    computing_in,
    end_tokens,
    freeze,
    load_critic,
    load_policy,
    load_tokenizer,
    save_model,
    score_states,
    score_tokens,
)
from training.learner.optimization import adamw, check_finite, learning_rate_factor, load_state, save_state, take_step
from training.learner.processes import Processes
from training.learner.rewards import reward_function, same_tokens
from training.learner.rollout import Actors, Rollout, Targets, score_episodes, targets_of, write_episodes
from training.learner.sampler import Drawing, check_room

EVALUATION_NUMBERS = 2**40  # completions written for evaluation are numbered from here, apart from those learned from


def main(job_dir: Path) -> None:
    processes, stop = Processes(), StopSignal()
    job = JobDirectory(job_dir, processes.is_first)
    processes.wait()
    if job.result() is not None:
        return
    settings = PpoConfig.from_json(job.config())
    started = time.monotonic()

    # 1. The models and the prompts.
    actors = load_actors(settings)
    prompts = read_prompts(actors.tokenizer, job.rows("prompts.jsonl"), settings)
    check_room(actors.policy, [prompt.tokens for prompt in prompts], settings.max_completion_tokens)
    training = [prompt for prompt in prompts if prompt.row.get("split") != "held_out"]
    held_out = [prompt for prompt in prompts if prompt.row.get("split") == "held_out"]
    if not training:
        raise BadInput("prompts.jsonl holds no prompt to learn from, only held-out ones")

    # 2. The optimisers; and where an earlier run stopped.
    rate_of_critic = settings.critic_learning_rate or settings.learning_rate
    optimizers = (adamw(actors.policy, settings.weight_decay, settings.adam_epsilon),
                  adamw(actors.critic, settings.weight_decay, settings.adam_epsilon))  # fmt: skip
    parts = {"policy": actors.policy, "critic": actors.critic}
    parts |= {"policy_optimizer": optimizers[0], "critic_optimizer": optimizers[1]}
    step, kl_coefficient = 0, settings.kl_coefficient
    if job.state is not None:
        step, extra = load_state(job.state, parts)
        kl_coefficient = extra["kl_coefficient"]
    job.truncate_metrics(step)

    while step < settings.steps:
        # 3. Episodes from the newest policy. A stop up to here forgets them: the step will be taken again, the same.
        clock = Clock()
        chosen, numbers = prompts_of_step(training, step + 1, settings)
        episodes, answers = write_episodes(actors.policy, actors, chosen, numbers, settings, processes)
        clock.lap("sampling")
        rollout = score_episodes(actors, episodes, answers, settings, processes)
        clock.lap("scoring")
        if processes.any(stop.received):
            save_state(job, step, parts, {"kl_coefficient": kl_coefficient})
            raise Stopped

        # 4. Epochs of minibatches over them.
        step += 1
        factor = learning_rate_factor(step, settings.steps, settings)
        rates = (settings.learning_rate * factor, rate_of_critic * factor)
        targets = targets_of(rollout, kl_coefficient, settings)
        learned = learn(actors, optimizers, rates, rollout, targets, step, settings, processes)
        clock.lap("learning")

        # 5. Say how it goes, adapt, evaluate, save; stop when told to.
        measured = describe(rollout, kl_coefficient) | learned | {"learning_rate": rates[0]}
        measured |= clock.seconds() | {"episodes": step * settings.batch_episodes}
        measured["episodes_per_second"] = settings.batch_episodes / clock.total()
        if settings.kl_target:
            kl_coefficient = next_kl_coefficient(kl_coefficient, measured["kl"], settings.kl_target,
                                                 settings.kl_horizon, settings.batch_episodes)  # fmt: skip
        if settings.eval_prompts and settings.eval_every and step % settings.eval_every == 0:
            measured |= evaluate(actors, held_out or training, settings, processes)
        job.append_metrics(step, settings.steps, **measured)
        stopping = processes.any(stop.received)
        if stopping or step % settings.save_every == 0:
            save_state(job, step, parts, {"kl_coefficient": kl_coefficient})
        if stopping and step < settings.steps:
            raise Stopped

    # 6. The model, then the result.
    job.save_folder("model", lambda folder: save_model(actors.policy, actors.tokenizer, folder))
    result: dict[str, Any] = {"program": "ppo", "steps": step, "prompts_truncated": sum(p.truncated for p in prompts)}
    result |= (
        {name: job.metrics()[-1].get(name) for name in ("kl", "reward", "objective")} if processes.is_first else {}
    )
    if settings.eval_prompts:
        result |= final_evaluation(actors, held_out or training, settings, processes)
    job.write_result(result | {"seconds": time.monotonic() - started})
    processes.close()


def load_actors(settings: PpoConfig) -> Actors:
    """Every model, the reference frozen. Raises BadInput when one cannot be loaded or does not fit the others."""
    policy, tokenizer = load_policy(settings.model)
    reference, reference_tokenizer = load_policy(settings.reference_model or settings.model)
    if not same_tokens(tokenizer, reference_tokenizer):
        raise BadInput("model and reference_model must have the same tokenizer")
    critic = load_critic(critic_folder(settings, tokenizer))
    drawing = Drawing(settings.max_completion_tokens, end_tokens(policy, tokenizer), settings.temperature,
                      seed=settings.seed)  # fmt: skip
    return Actors(policy, freeze(reference), critic, reward_function(settings, tokenizer), tokenizer, drawing)


def critic_folder(settings: PpoConfig, tokenizer: Any) -> str:
    """What the critic starts from: as set; or the reward model if it reads the policy's tokens; or the policy."""
    candidate = settings.critic_model or settings.reward_model
    if candidate and same_tokens(tokenizer, load_tokenizer(candidate)):
        return candidate
    if settings.critic_model:
        raise BadInput("model and critic_model must have the same tokenizer")
    return settings.model


def prompts_of_step(prompts: Sequence[Prompt], step: int, settings: PpoConfig) -> tuple[list[Prompt], list[int]]:
    """The prompts of a step's episodes, and the episodes' numbers since the start.

    Prompts come in passes over all of them, each in an order of its own.
    """
    numbers = list(range((step - 1) * settings.batch_episodes, step * settings.batch_episodes))
    passes = sorted({n // len(prompts) for n in numbers})
    orders = {number: shuffled(len(prompts), settings.seed, number) for number in passes}
    return [prompts[orders[n // len(prompts)][n % len(prompts)]] for n in numbers], numbers


def minibatches(step: int, settings: PpoConfig) -> Iterator[list[int]]:
    """Which episodes each optimiser step of a batch learns from: every epoch all of them, in an order of its own."""
    size = settings.batch_episodes // settings.minibatches
    for epoch in range(settings.epochs):
        order = shuffled(settings.batch_episodes, settings.seed, (step - 1) * settings.epochs + epoch)
        for start in range(0, settings.batch_episodes, size):
            yield order[start : start + size]


def learn(
    actors: Actors,
    optimizers: Sequence[torch.optim.Optimizer],
    rates: Sequence[float],
    rollout: Rollout,
    targets: Targets,
    step: int,
    settings: PpoConfig,
    processes: Processes,
) -> dict[str, float]:
    """All updates of one batch; gives the mean of what the minibatches measured."""
    history: list[dict[str, float]] = []
    for update, chosen in enumerate(minibatches(step, settings)):
        measured = accumulate_gradients(actors, rollout, targets, chosen, update == 0, settings, processes)
        for name in ("policy_loss", "value_loss"):
            check_finite(name, measured[name], step)
        history.append(measured)
        if settings.max_update_kl and measured["approx_kl"] > settings.max_update_kl:
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            break
        for model, optimizer, rate in zip((actors.policy, actors.critic), optimizers, rates, strict=True):
            name = "gradient_norm" if model is actors.policy else "critic_gradient_norm"
            measured[name] = take_step(optimizer, model.parameters(), rate, settings.max_gradient_norm, step)
    means = {name: sum(m.get(name, 0.0) for m in history) / len(history) for name in history[0]}
    return means | {"updates": len(history), "first_approx_kl": history[0]["approx_kl"]}


def accumulate_gradients(
    actors: Actors,
    rollout: Rollout,
    targets: Targets,
    chosen: Sequence[int],
    is_first: bool,
    settings: PpoConfig,
    processes: Processes,
) -> dict[str, float]:
    """The gradients of one minibatch, summed over micro-batches and processes; a token's mean of what it measured."""
    tokens = sum(len(rollout.episodes.completions[i]) for i in chosen)
    ordered = sorted(chosen, key=lambda i: len(rollout.episodes.completions[i]))
    mine = share(ordered, processes.rank, processes.count)
    sums = torch.zeros(5, dtype=torch.float64, device=actors.policy.device)
    for indices in budget_batches(rollout.episodes.select(mine).lengths(), settings.micro_batch_tokens):
        micro = [mine[i] for i in indices]
        with computing_in(settings.dtype):
            losses, measured = losses_of(actors, rollout, targets, micro, is_first, settings)
        (losses / tokens).backward()
        sums += measured
    for model in (actors.policy, actors.critic):
        processes.sum_gradients(model.parameters())
    names = ("policy_loss", "value_loss", "entropy", "clip_fraction", "approx_kl")
    return dict(zip(names, (processes.sum(sums) / tokens).tolist(), strict=True))


def losses_of(
    actors: Actors, rollout: Rollout, targets: Targets, micro: Sequence[int], is_first: bool, settings: PpoConfig
) -> tuple[Tensor, Tensor]:
    """The sum over a micro-batch's tokens of policy and value loss; the sums [5] of what is measured.

    In the first minibatch the policy is still the one that sampled, so its log-probabilities *are* the old ones, and
    the ratio is 1 to the bit whatever the passes' shapes.
    """
    episodes = rollout.episodes.select(micro)
    old, values, advantages, returns = (
        torch.cat([rows[i] for i in micro]).to(actors.policy.device)
        for rows in (rollout.policy, rollout.values, targets.advantages, targets.returns)
    )
    new, entropy = score_tokens(actors.policy, episodes, settings.temperature, with_entropy=True)
    old = new.detach() if is_first else old
    policy_loss, clipped = clipped_policy_loss(new, old, advantages, settings.clip_ratio, settings.dual_clip)
    value_loss = clipped_value_loss(score_states(actors.critic, episodes), values, returns, settings.clip_value)
    loss = (policy_loss - settings.entropy_coefficient * entropy + value_loss).sum()
    measured = (policy_loss, value_loss, entropy, clipped, kl_k3(old, new))
    return loss, torch.stack([value.detach().double().sum() for value in measured])


def describe(rollout: Rollout, kl_coefficient: float) -> dict[str, float]:
    """What a batch of episodes says of the policy that wrote it."""
    reward, kl = float(rollout.scores.mean()), float(rollout.divergences().mean())
    return {
        "reward": reward,
        "kl": kl,
        "objective": reward - kl_coefficient * kl,
        "kl_coefficient": kl_coefficient,
        "completion_tokens": float(rollout.lengths().float().mean()),
        "ended_fraction": sum(rollout.ended) / len(rollout.ended),
    }


def evaluate(actors: Actors, prompts: Sequence[Prompt], settings: PpoConfig, processes: Processes) -> dict[str, float]:
    """Reward and KL of the policy on (at most eval_prompts) prompts, with the same random numbers every time."""
    chosen = prompts[: settings.eval_prompts]
    numbers = range(EVALUATION_NUMBERS, EVALUATION_NUMBERS + len(chosen))
    episodes, answers = write_episodes(actors.policy, actors, chosen, numbers, settings, processes)
    rollout = score_episodes(actors, episodes, answers, settings, processes)
    return {"eval_reward": float(rollout.scores.mean()), "eval_kl": float(rollout.divergences().mean())}


def final_evaluation(
    actors: Actors, prompts: Sequence[Prompt], settings: PpoConfig, processes: Processes
) -> dict[str, float]:
    """Reward and KL of the learned policy beside the reference's reward, on the same prompts and random numbers."""
    chosen = prompts[: settings.eval_prompts]
    numbers = range(EVALUATION_NUMBERS, EVALUATION_NUMBERS + len(chosen))
    policy = evaluate(actors, prompts, settings, processes)
    _, answers = write_episodes(actors.reference, actors, chosen, numbers, settings, processes)
    with torch.no_grad():
        reference = float(actors.reward(answers).mean())
    return {"reward": policy["eval_reward"], "kl": policy["eval_kl"], "reward_reference": reference}


class Clock:
    """Seconds spent in each phase of a step."""

    def __init__(self) -> None:
        self._laps: dict[str, float] = {}
        self._began = self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self._laps[f"seconds_{phase}"], self._last = now - self._last, now

    def seconds(self) -> dict[str, float]:
        return dict(self._laps)

    def total(self) -> float:
        return self._last - self._began


if __name__ == "__main__":
    run_program(main)
