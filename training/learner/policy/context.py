"""The models, settings and prompts of a program that samples from a policy and scores the completions."""

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

from training.learner.estimators import ALGORITHMS
from training.learner.models.gradient_checkpointing import checkpoint_layers
from training.learner.models.kept_critic import load_head
from training.learner.models.loading import load_critic, load_tokenizer
from training.learner.models.lora import AdapterView, LoraConfig, critic_view
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.reward_model import load_reward_model
from training.learner.models.token_outputs import PolicyTrunkCritic, RewardTrunkCritic, is_separate_critic
from training.learner.policy.dialogues import environment_factory, turns_to_fit
from training.learner.policy.reference import base_of, load_reference, load_trained_policy
from training.learner.policy.rollout import TrainingContext
from training.learner.rewards.reward_function import (
    Scoring,
    check_references,
    check_scoring_positions,
    reward_function,
    same_tokens,
)
from training.learner.runtime.config import PpoConfig, Training
from training.learner.runtime.jobdir import BadInput, JobDirectory
from training.learner.runtime.processes import Processes
from training.learner.sampling.sampler import check_positions, sampling_params_for
from training.learner.text.messages import Prompt, read_prompts


def as_ppo_settings(settings: Training, **sizes: int) -> PpoConfig:
    """Return the settings with which a program scores and evaluates as ppo does; ppo without a critic.

    Settings that both programs have are taken over, except for sizes of the updates. sizes: further settings of ppo.
    """
    names = {field.name for field in dataclasses.fields(PpoConfig)} - {"epochs", "completions_per_prompt"}
    values = {name: value for name, value in settings.to_json().items() if name in names}
    return PpoConfig.from_json(values | {"algorithm": "reinforce"} | sizes)


def load_context(settings: PpoConfig, processes: Processes) -> TrainingContext:
    """Load all models; the reference is frozen. Raises BadInput if one cannot be loaded or does not fit the others."""
    policy, tokenizer = load_trained_policy(settings)
    scoring = None
    if settings.reward_model:
        scoring = load_reward_model(settings.reward_model, settings.dtype, base_of(policy))
    critic = load_critic_for(settings, policy, tokenizer, scoring)
    return TrainingContext(
        settings=settings,
        processes=processes,
        policy=policy,
        reference=load_reference(policy, tokenizer, settings, settings.reference_model),
        critic=critic,
        scoring=scoring,
        reward=reward_function(settings, tokenizer, scoring),
        new_environment=environment_factory(settings),
        tokenizer=tokenizer,
        params=sampling_params_for(
            policy, tokenizer, settings.max_completion_tokens, settings.temperature, 1.0, settings.seed
        ),
        micro_batches=MicroBatches(settings.micro_batch_tokens),
        sampling_rows=MicroBatches(settings.batch_episodes, unit="completions"),
    )


def load_critic_for(settings: PpoConfig, policy: Any, tokenizer: Any, scoring: Scoring | None) -> Any:
    """Return the critic, or None if the algorithm needs none. Raises BadInput if it does not fit the settings."""
    if not ALGORITHMS[settings.algorithm].needs_critic:
        return None
    if settings.critic == "shared":
        shared = PolicyTrunkCritic(policy)
        if settings.critic_model:
            load_head(shared, settings.critic_model)
        return shared
    if settings.critic == "reward_model":
        if scoring is None or not same_tokens(tokenizer, scoring[1]):
            raise BadInput(
                'critic "reward_model" needs a reward model with the tokenizer of the policy: set critic to "separate"'
            )
        return RewardTrunkCritic(scoring[0])
    source = critic_folder(settings, tokenizer)
    if isinstance(policy, AdapterView):
        lora = cast(LoraConfig, policy.lora)
        return critic_view(policy.base, source, lora, settings.seed, is_asked_for=bool(settings.critic_model))
    critic = load_critic(source)
    if settings.gradient_checkpointing:
        checkpoint_layers(critic)
    return critic


def load_prompts(context: TrainingContext, job: JobDirectory) -> list[Prompt]:
    """Return the job's prompts.

    Raises BadInput if one lacks the references that a reward term needs, or is too long for a model's positions.
    """
    settings = context.settings
    prompts = read_prompts(context.tokenizer, job.rows("prompts.jsonl"), settings)
    check_references(settings, (prompt.row for prompt in prompts))
    models = {"the model": context.policy, "the reference model": context.reference}
    if is_separate_critic(context.critic):
        models["the critic"] = context.critic
    if isinstance(context.critic, RewardTrunkCritic):
        models["the reward model, which the critic is a head on,"] = context.critic.trunk
    for name, model in models.items():
        turns = turns_to_fit(settings, context.policy, model)
        check_positions(model, [prompt.tokens for prompt in prompts], turns * settings.max_completion_tokens, name)
    if context.scoring is not None:
        turns = turns_to_fit(settings, context.policy, context.scoring[0].network)
        rows = [prompt.row for prompt in prompts]
        check_scoring_positions(context.scoring, rows, context.tokenizer, settings, turns)
    return prompts


def critic_folder(settings: PpoConfig, tokenizer: Any) -> str:
    """Return the folder that a separate critic starts from.

    It is critic_model, else the reward model if it has the policy's tokenizer, else the policy.
    """
    candidate = settings.critic_model or settings.reward_model
    if candidate and same_tokens(tokenizer, load_tokenizer(candidate)):
        return candidate
    if settings.critic_model:
        raise BadInput("model and critic_model must have the same tokenizer")
    return settings.model


def split_prompts(prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """Return training and evaluation prompts; without held-out prompts both are the same. Raises BadInput if none."""
    training = [prompt for prompt in prompts if prompt.row.get("split") != "held_out"]
    if not training:
        raise BadInput("prompts.jsonl has only held-out prompts: add prompts to train on")
    return training, [prompt for prompt in prompts if prompt.row.get("split") == "held_out"] or training
