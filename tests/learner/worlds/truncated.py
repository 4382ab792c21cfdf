"""Dialogues over the letters that end because the models have no positions for one more turn."""

from pathlib import Path
from typing import Any

import torch

from tests.learner.worlds.letters import on_reward_model, policy_folder, ppo_job, reward_model_folder
from tests.learner.worlds.spoken import LETTERS_PROMPT
from training.learner.models.packing import Episodes
from training.learner.policy import dialogues
from training.learner.policy.context import load_context
from training.learner.policy.rollout import TrainingContext
from training.learner.reward_terms import Answer
from training.learner.runtime.config import PpoConfig
from training.learner.runtime.jobdir import JobDirectory
from training.learner.runtime.processes import Processes
from training.learner.text.messages import Prompt

SCRIPT = {"name": "dialogue", "lines": ["b", "c", "d", "a"], "turns": 5}
NOTHING: dict[str, Any] = {"eval_prompts": 0, "optimum_samples": 0, "epochs": 1}


def cut_short(
    folder: Path, critic: str, positions: int = 5, **settings: Any
) -> tuple[TrainingContext, Episodes, list[Answer]]:
    """Return a context, and 64 episodes of one prompt; some have no room for a second turn.

    critic: one of random values (separate, shared or reward_model), or none.
    """
    policy_folder(folder / "policy", max_position_embeddings=positions)
    changes: dict[str, Any] = {"critic": critic}
    if critic == "none":
        changes = {"algorithm": "rloo", "completions_per_prompt": 4}
    elif critic == "reward_model":
        reward_model_folder(folder / "reward_model", max_position_embeddings=positions)
        changes = on_reward_model(folder)
    job = ppo_job(
        folder / "job", environment=SCRIPT, steps=1, batch_episodes=64, max_completion_tokens=2, kl_coefficient=0.0,
        gamma=0.9, gae_lambda=0.8, **(NOTHING | changes | settings),
    )  # fmt: skip
    context = load_context(PpoConfig.from_json(JobDirectory(job).config()), Processes())
    if context.critic is not None:
        with torch.no_grad():
            context.critic.score.weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    prompts = [Prompt({"messages": LETTERS_PROMPT}, [1], False)] * 64
    return context, *dialogues.sample_episodes(context, context.policy, prompts, range(64))
