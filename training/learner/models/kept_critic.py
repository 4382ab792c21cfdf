"""The folder of a critic that a later run starts from.

A separate critic is a Hugging Face folder like a reward model's, whose normalised scores are its values: `load_critic`
reads both. Of a head on the policy's trunk only the head is kept, because the trunk is the policy's.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from training.learner.models.saving import save_model
from training.learner.models.token_outputs import PolicyTrunkCritic
from training.learner.runtime.jobdir import BadInput

HEAD_FILE = "head.safetensors"


def save_critic(critic: Any, tokenizer: Any, folder: Path) -> None:
    """Write a critic's folder: a separate model, or the head of a PolicyTrunkCritic. The critic is not changed."""
    if isinstance(critic, PolicyTrunkCritic):
        save_file(critic.score.state_dict(), folder / HEAD_FILE)
        return
    head = critic.score
    critic.score = without_bias(head)  # most sequence classifiers have a head without bias, and would not load one
    try:
        save_model(critic, tokenizer, folder)
    finally:
        critic.score = head
    file = folder / "config.json"
    # value = (score − shift) / scale, see `heads.value_head`.
    config = json.loads(file.read_text("utf-8")) | {"reward_shift": -float(head.bias.detach()), "reward_scale": 1.0}
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


@torch.no_grad()
def without_bias(head: nn.Linear) -> nn.Linear:
    """Return a head with the same weights and the bias 0."""
    bare = nn.Linear(head.in_features, head.out_features).to(head.weight)
    bare.weight.copy_(head.weight)
    nn.init.zeros_(bare.bias)
    return bare


def load_head(critic: PolicyTrunkCritic, path: str) -> None:
    """Set the head of a critic on the policy's trunk to the one in a folder that `save_critic` wrote.

    Raises BadInput if there is none, or if it is for a trunk of another width.
    """
    try:
        critic.score.load_state_dict(load_file(Path(path) / HEAD_FILE))
    except (OSError, SafetensorError) as error:
        raise BadInput(f"critic_model {path} is not the folder of a shared critic: it has no {HEAD_FILE}") from error
    except RuntimeError as error:
        raise BadInput(f"the head in critic_model {path} does not fit the policy: use one of the same width") from error
