"""How the demo's rounds run: settings that suit its small model, its prompts and two processor cores."""

import math
from typing import Any

COMPARISONS = 450  # made of the first completions and by each round
SECOND_OPINIONS = 1 / 3  # of them two annotators rank, which makes 600 rankings and shows whether people agree

SHOWN: dict[str, Any] = {"prompts": COMPARISONS, "second_opinions": SECOND_OPINIONS, "shown_prompts": 24}

ROUND: dict[str, dict[str, Any]] = {
    "common": {"max_prompt_tokens": 128, "max_completion_tokens": 96},
    "round": SHOWN,
    # The trunk starts from a policy that knows this language well, but its head and what it reads do not: high rates.
    "reward": {"learning_rate": 1e-3, "epochs": 4, "batch_rankings": 32},
    # So short, and held so close to the reference, that the next cycle still has something to tell apart.
    "ppo": {
        "steps": 20,
        "batch_episodes": 64,
        "epochs": 2,
        "minibatches": 2,
        "learning_rate": 3e-4,
        "adam_epsilon": 1e-5,
        "kl_coefficient": 0.15,
        "eval_prompts": 64,
        "save_every": 10,
    },
    "sample": {"batch_completions": 128},
}

# A model of another kind: our programs' defaults, but replies of a customer-support kind are short.
ROUND_OF_OTHER_MODELS: dict[str, dict[str, Any]] = {
    "common": {"max_prompt_tokens": 256, "max_completion_tokens": 96},
    "round": SHOWN,
}


def comparisons_for(rankings: int) -> int:
    """How many comparisons give at least so many rankings."""
    return math.ceil(rankings / (1 + SECOND_OPINIONS))
