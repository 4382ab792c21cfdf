"""ppo, ppo_recommended: episodes per second of whole batches, sampling to last update, against TRL 1.12's PPOTrainer.

A batch has 64 episodes of up to 64 tokens. Both sides take 4 optimiser steps per batch: 4 epochs of one step. The peer
accumulates 4 micro-batches of 16 for a step. In the last batch of a dataset accelerate stops accumulating, which would
make one step per micro-batch, so the peer gets one batch more than it uses. Steps are counted at the optimiser.

`ppo` has a separate critic, as the peer, and passes that hold a whole batch, as the peer's scoring. `ppo_recommended`
has the settings that training.learner.ppo recommends: four steps of half a batch, in two epochs. Quality: see
policy_quality; the reward is that of the same model, minus 1 for a truncated completion.
"""

import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.learner import machine, world

NAMES = ("ppo", "ppo_recommended")
PEER, UNIT = "trl-1.12", "episodes/s"
BATCHES, EPISODES, EPOCHS, NEW_TOKENS = 4, 64, 4, 64
RATE, BETA = 3e-4, 0.05
PROMPT_TOKENS = 40  # on average
RECOMMENDED = {"critic": "reward_model", "epochs": 2, "minibatches": 2}


def ours(name: str, folder: Path) -> dict:
    own = RECOMMENDED if name == "ppo_recommended" else {"epochs": EPOCHS}
    return run(folder, name, BATCHES, own | {"micro_batch_tokens": 2 * EPISODES * (64 + NEW_TOKENS)})


def run(folder: Path, name: str, batches: int, own: dict[str, Any]) -> dict:
    """Run the program on a new job; its first batch is not counted."""
    from tests.benchmarks.learner import policy_quality
    from training.learner import ppo
    from training.learner.runtime.jobdir import JobDirectory

    job = folder / f"{name}-{time.time_ns()}"
    job.mkdir(parents=True)
    count = batches * EPISODES // own.get("completions_per_prompt", 1)
    rows = [
        {"prompt_id": i, "messages": [{"role": "user", "content": world.text(prompt)}]}
        for i, prompt in enumerate(world.prompts(count))
    ]
    (job / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"model": str(folder / "policy"), "reward_model": str(folder / "reward_model"), "steps": batches,
                "batch_episodes": EPISODES, "max_completion_tokens": NEW_TOKENS, "learning_rate": RATE,
                "kl_coefficient": BETA, "eval_prompts": 0, "optimum_samples": 0, "dtype": world.dtype()}  # fmt: skip
    (job / "config.json").write_text(json.dumps(settings | own))
    ppo.main(job)
    lines = JobDirectory(job).metrics()
    phases = {
        phase: sum(line[f"seconds_{phase}"] for line in lines[1:]) for phase in ("sampling", "scoring", "learning")
    }
    return {
        "value": EPISODES * (batches - 1) / sum(phases.values()),
        "phases": phases,
        "steps": int(sum(line["updates"] for line in lines)),
        "curve": [[line["reward"], line["kl"]] for line in lines],
    } | policy_quality.measure_policy(folder, job / "model", NEW_TOKENS, BETA)


def peer(name: str, folder: Path) -> dict:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from tests.benchmarks.learner import policy_quality

    policy, reference = (AutoModelForCausalLM.from_pretrained(folder / "policy") for _ in range(2))
    reward, critic = (AutoModelForSequenceClassification.from_pretrained(folder / "reward_model") for _ in range(2))
    rows = Dataset.from_list([{"input_ids": prompt} for prompt in world.prompts((BATCHES + 1) * EPISODES)])
    settings = PPOConfig(
        output_dir=str(folder / "peer"), per_device_train_batch_size=16, gradient_accumulation_steps=EPISODES // 16,
        num_mini_batches=1, total_episodes=BATCHES * EPISODES, response_length=NEW_TOKENS, num_ppo_epochs=EPOCHS,
        local_rollout_forward_batch_size=EPISODES, num_sample_generations=0, report_to=[], save_strategy="no",
        learning_rate=RATE, adam_epsilon=1e-5, weight_decay=0.0, stop_token="eos", missing_eos_penalty=1.0,
        temperature=1.0, kl_coef=BETA, use_cpu=not torch.cuda.is_available(), bf16=world.dtype() == "bfloat16",
        gradient_checkpointing=False, disable_tqdm=True)  # fmt: skip
    trainer = PPOTrainer(args=settings, processing_class=world.tokenizer_of(folder), model=policy, ref_model=reference,
                         reward_model=reward, value_model=critic, train_dataset=rows, eval_dataset=rows)  # fmt: skip
    steps, ends, seen = itertools.count(), [time.perf_counter()], []
    trainer.optimizer.optimizer.register_step_post_hook(lambda *_: next(steps))
    log = trainer.log

    def logged(metrics, *rest):
        ends.append(time.perf_counter())
        seen.append(dict(metrics))
        return log(metrics, *rest)

    trainer.log = logged
    trainer.train()
    return {
        "value": EPISODES * (len(seen) - 1) / (ends[-1] - ends[1]),
        "phases": {},
        "steps": next(steps),
        "curve": [[m["objective/scores"], m["objective/kl"]] for m in seen],
    } | policy_quality.measure_policy(folder, policy, NEW_TOKENS, BETA)


def needs(name: str, size: str, side: str) -> machine.Need:
    is_light = name == "ppo_recommended" and side == "ours"
    return episodes(size, 1, RECOMMENDED["epochs"] if is_light else EPOCHS, has_critic=not is_light)


def episodes(size: str, each: int, epochs: int, *, has_critic: bool) -> machine.Need:
    """Return the need of one episode, with `each` episodes per prompt of the first policy's length.

    Sampling, the reference and the score are one pass each; the first values are one if the critic is a separate model.
    """
    end = 1 / world.COMPLETION_LENGTH
    written = (1 - (1 - end) ** NEW_TOKENS) / end
    read = PROMPT_TOKENS / each + written
    policy = machine.trunk_weights(size) * read + (machine.policy_weights(size) - machine.trunk_weights(size)) * written
    trunk = machine.trunk_weights(size) * read
    passes = 2 * (2 * policy + trunk) + 6 * epochs * policy
    return machine.Need(operations=passes + (2 + 6 * epochs) * trunk * has_critic)


def is_equal_quality(ours: dict, peer: dict) -> bool:
    """Return whether reward is not lower and KL not higher than the peer's, within two standard errors.

    The errors are those of the difference of two means over the prompts of `judged`. Reward alone can be raised at the
    cost of KL, and reward − β·KL would accept a policy that has learned nothing.
    """

    def tolerance(what: str) -> float:
        return 2 * math.hypot(ours[f"{what}_error"], peer[f"{what}_error"])

    return ours["reward"] >= peer["reward"] - tolerance("reward") and ours["kl"] <= peer["kl"] + tolerance("kl")
