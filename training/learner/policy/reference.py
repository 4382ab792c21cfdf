"""The policy that a program trains, and the frozen reference that its log-ratios are measured from."""

from typing import Any

from training.learner.models.gradient_checkpointing import checkpoint_layers
from training.learner.models.loading import freeze, load_frozen_policy, load_policy
from training.learner.models.lora import AdapterView, SharedBase, lora_config
from training.learner.rewards.reward_function import same_tokens
from training.learner.runtime.config import Training
from training.learner.runtime.jobdir import BadInput


def load_trained_policy(settings: Training) -> tuple[Any, Any]:
    """Return the policy of the settings, with lora_rank as an adapter on a frozen base, and its tokenizer.

    Raises BadInput if it cannot be loaded.
    """
    model, tokenizer = load_policy(settings.model)
    return trained(model, settings), tokenizer


def trained(model: Any, settings: Training) -> Any:
    """Return a loaded model as the settings train it: with lora_rank as an adapter, and with checkpoints of layers."""
    lora = lora_config(settings)
    if lora is not None:
        model = AdapterView(SharedBase(model, settings.model, settings.dtype), "policy", lora, settings.seed)
    if settings.gradient_checkpointing:
        checkpoint_layers(model)
    return model


def base_of(policy: Any) -> SharedBase | None:
    """Return the frozen base of a policy that is an adapter; None for another policy."""
    return policy.base if isinstance(policy, AdapterView) else None


def load_reference(policy: Any, tokenizer: Any, settings: Training, reference_model: str) -> Any:
    """Return the frozen reference of a policy that has not been trained yet.

    reference_model: a folder, or empty for the model that the policy starts from. With lora_rank that is the policy's
    own base without its adapter. Raises BadInput if a model cannot be loaded, or the reference has another tokenizer.
    """
    base = base_of(policy)
    if base is not None and not reference_model:
        return freeze(AdapterView(base, "", None))
    reference, reference_tokenizer = load_frozen_policy(reference_model or settings.model, settings.dtype)
    if not same_tokens(tokenizer, reference_tokenizer):
        raise BadInput("model and reference_model must have the same tokenizer")
    return reference
