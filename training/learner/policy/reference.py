"""A policy with the frozen reference that its log-ratios are measured from."""

from typing import Any

from training.learner.models.loading import freeze, load_policy
from training.learner.models.lora import AdapterView, SharedBase, lora_config
from training.learner.rewards.reward_function import same_tokens
from training.learner.runtime.config import Training
from training.learner.runtime.jobdir import BadInput


def load_policy_and_reference(settings: Training, reference_model: str) -> tuple[Any, Any, Any]:
    """Return the policy, the reference and the policy's tokenizer.

    reference_model: a folder, or empty for the model that the policy starts from. With lora_rank that is the policy's
    own base without its adapter. Raises BadInput if a model cannot be loaded, or the reference has another tokenizer.
    """
    model, tokenizer = load_policy(settings.model)
    lora = lora_config(settings)
    base = None if lora is None else SharedBase(model, settings.model)
    policy: Any = model if base is None else AdapterView(base, "policy", lora, settings.seed)
    if base is not None and not reference_model:
        return policy, freeze(AdapterView(base, "", None)), tokenizer
    reference, reference_tokenizer = load_policy(reference_model or settings.model)
    if not same_tokens(tokenizer, reference_tokenizer):
        raise BadInput("model and reference_model must have the same tokenizer")
    return policy, freeze(reference), tokenizer
