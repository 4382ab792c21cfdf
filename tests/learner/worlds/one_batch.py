"""One scored batch of episodes over the letters, and the gradients of a minibatch of it."""

import json

import torch

from tests.learner.worlds.letters import LETTERS, PROMPTS, letters_tokenizer, ppo_job
from training.learner import ppo
from training.learner.models.oom_retry import MicroBatches
from training.learner.policy import dialogues, rollout, updates
from training.learner.reward_terms import Answer
from training.learner.runtime.config import PpoConfig
from training.learner.runtime.processes import Processes
from training.learner.text.messages import Prompt, decode_completion


def prepared(folder, **settings):
    """Return a training context and its first rollout. The critic's values are random with a fixed seed, not zero."""
    job = ppo_job(folder / "job", PROMPTS, **({"batch_episodes": 24, "steps": 1} | settings))
    settings = PpoConfig.from_json(json.loads((job / "config.json").read_text()))
    context = ppo.load_context(settings, Processes())
    if context.critic is not None:
        with torch.no_grad():
            context.critic.score.weight.normal_(generator=torch.Generator().manual_seed(7))
    prompts = [Prompt(row_of([i + 1]), [i + 1], False) for i in range(4)]
    episodes, answers = dialogues.sample_episodes(
        context, context.policy, *rollout.prompts_of_step(prompts, 1, settings)
    )
    return context, rollout.score_episodes(context, episodes, answers)


def scored_answers(scored):
    """Return the answers of a rollout, as the reward function gets them."""
    tokenizer = letters_tokenizer()
    return [
        Answer(row_of(prompt), prompt, completion, decode_completion(tokenizer, completion), completion[-1] == 0)
        for prompt, completion in zip(scored.episodes.prompts, scored.episodes.completions, strict=True)
    ]


def row_of(prompt):
    """Return the row of prompts.jsonl for a prompt of one letter."""
    return {"messages": [{"role": "user", "content": LETTERS[prompt[0]]}]}


def gradients(context, scored, chosen, **changes):
    """Return the gradients of policy and critic for one minibatch, with some settings changed."""
    context = context._replace(settings=PpoConfig.from_json(context.settings.to_json() | changes))
    if "micro_batch_tokens" in changes:
        context = context._replace(micro_batches=MicroBatches(context.settings.micro_batch_tokens))
    targets = rollout.compute_targets(scored, 0.5, None, context.settings)
    updates.accumulate_gradients(context, scored, targets, chosen, 0.5, is_first=False)
    found = [p.grad.clone() for model in (context.policy, context.critic) if model for p in model.parameters()
             if p.grad is not None]  # fmt: skip
    context.policy.zero_grad()
    context.critic.zero_grad()
    return found
