"""ppo: episodes a second of whole batches, sampling to last update, against TRL 1.12's PPOTrainer.

64 episodes a batch, up to 64 tokens each, 4 epochs, a separate critic, and as many optimiser steps as the peer really
takes. Its accumulation of 4 micro-batches of 16 makes one step an epoch; in the dataset's last batch accelerate ends
accumulation with the data, which would make it one a micro-batch, so the peer gets a batch more than it uses. Its
steps are counted at the optimiser, ours too. Quality: reward less what KL costs, over the last batches; the reward is
the same model's, less 1 for a completion that was cut off.
"""

import itertools
import json
import time
from pathlib import Path

NAMES = ("ppo",)
PEER, UNIT = "trl-1.12", "episodes/s"
BATCHES, EPISODES, EPOCHS, NEW_TOKENS = 4, 64, 4, 64
RATE, BETA, LAST = 3e-4, 0.05, 2  # LAST: batches that the quality is of


def ours(name: str, folder: Path) -> dict:
    from tests.benchmarks.learner import world
    from training.learner import ppo
    from training.learner.jobdir import JobDirectory

    job = folder / f"{name}-{time.time_ns()}"
    job.mkdir(parents=True)
    rows = [{"prompt_id": i, "messages": [{"role": "user", "content": world.text(prompt)}]}
            for i, prompt in enumerate(world.prompts(BATCHES * EPISODES))]  # fmt: skip
    (job / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"model": str(folder / "policy"), "reward_model": str(folder / "reward_model"), "steps": BATCHES,
                "critic_model": str(folder / "reward_model"), "batch_episodes": EPISODES, "epochs": EPOCHS,
                "max_completion_tokens": NEW_TOKENS, "learning_rate": RATE, "kl_coefficient": BETA,
                "eval_prompts": 0, "weight_decay": 0.0}  # fmt: skip
    (job / "config.json").write_text(json.dumps(settings))
    ppo.main(job)
    lines = JobDirectory(job).metrics()
    phases = {
        phase: sum(line[f"seconds_{phase}"] for line in lines[1:]) for phase in ("sampling", "scoring", "learning")
    }
    last = lines[-LAST:]
    return {
        "value": EPISODES * (BATCHES - 1) / sum(phases.values()),
        "quality": sum(line["objective"] for line in last) / LAST,
        "phases": phases,
        "steps": int(sum(line["updates"] for line in lines)),
        "curve": [[line["reward"], line["kl"]] for line in lines],
    }


def peer(name: str, folder: Path) -> dict:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from tests.benchmarks.learner import world

    policy, reference = (AutoModelForCausalLM.from_pretrained(folder / "policy") for _ in range(2))
    reward, critic = (AutoModelForSequenceClassification.from_pretrained(folder / "reward_model") for _ in range(2))
    rows = Dataset.from_list([{"input_ids": prompt} for prompt in world.prompts((BATCHES + 1) * EPISODES)])
    settings = PPOConfig(
        output_dir=str(folder / "peer"), per_device_train_batch_size=16, gradient_accumulation_steps=EPISODES // 16,
        num_mini_batches=1, total_episodes=BATCHES * EPISODES, response_length=NEW_TOKENS, num_ppo_epochs=EPOCHS,
        local_rollout_forward_batch_size=EPISODES, num_sample_generations=0, report_to=[], save_strategy="no",
        learning_rate=RATE, adam_epsilon=1e-5, weight_decay=0.0, stop_token="eos", missing_eos_penalty=1.0,
        temperature=1.0, kl_coef=BETA, use_cpu=not torch.cuda.is_available(), bf16=False,
        gradient_checkpointing=False, disable_tqdm=True)  # fmt: skip
    trainer = PPOTrainer(args=settings, processing_class=world.tokenizer(), model=policy, ref_model=reference,
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
    last = seen[-LAST:]
    return {
        "value": EPISODES * (len(seen) - 1) / (ends[-1] - ends[1]),
        "quality": sum(m["objective/scores"] - BETA * m["objective/kl"] for m in last) / LAST,
        "phases": {},
        "steps": next(steps),
        "curve": [[m["objective/scores"], m["objective/kl"]] for m in seen],
    }


def holds(ours: dict, peer: dict) -> bool:
    """No less reward for its KL than the peer's, but for chance: rewards deviate by about 1, means of 128 by 0.09."""
    return ours["quality"] >= peer["quality"] - 0.3
