"""Settings of the demo's rounds, for its small model, its prompts and two CPU cores."""

import math
from typing import Any

COMPARISONS = 450  # of the first completions, and of each round
EXTRA_RANKING_SHARE = 1 / 3  # ranked by two annotators: 600 rankings in all, and the agreement can be measured

ROUND_SECTION: dict[str, Any] = {
    "prompts": COMPARISONS,
    "extra_ranking_share": EXTRA_RANKING_SHARE,
    "shown_prompts": 24,
}

ROUND: dict[str, dict[str, Any]] = {
    "common": {"max_prompt_tokens": 128, "max_completion_tokens": 96},
    "round": ROUND_SECTION,
    # High learning rate: the trunk has been trained on the language, but the head and the task are new.
    "reward": {"learning_rate": 1e-3, "epochs": 4, "batch_rankings": 32},
    # Few steps and a high KL penalty, so that the completions stay different enough to be ranked in the next cycle.
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

# Without a number of its own, a prompt has this customer.
DIALOGUE_ENVIRONMENT = {"name": "dialogue", "lines": ["I do not have the number here."], "turns": 2}
DIALOGUE_ROUND: dict[str, dict[str, Any]] = {
    **ROUND,
    "common": {"max_prompt_tokens": 64, "max_completion_tokens": 32},
    "ppo": {**ROUND["ppo"], "environment": DIALOGUE_ENVIRONMENT},
}

# Settings of the demo's rounds of other recipes than ppo, where the programs' defaults do not suit the small model.
OF_RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    # The learning rate of ppo: there are only some dozens of steps.
    "dpo": {"dpo": {"learning_rate": 3e-4, "epochs": 3}},
    # The reward of a completion reaches its first token by td_lambda: passes are too few for one-step targets.
    "q": {
        "q": {
            "value_epochs": 6,
            "policy_epochs": 3,
            "learning_rate": 3e-4,
            "value_learning_rate": 1e-3,
            "td_lambda": 0.95,
            "target_decay": 0.95,
            "expectile": 0.8,
            "kl_coefficient": 0.1,
        },
    },
    # 2048 completions in all; ppo samples 1280.
    "best_of_n": {
        "best_of_n": {
            "iterations": 2,
            "prompts_per_iteration": 128,
            "epochs": 3,
            "batch_completions": 16,
            "learning_rate": 6e-4,
            "kl_coefficient": 0.15,
            "eval_every": 12,
        },
    },
}

# Any other model: the defaults of the programs, with short replies as in customer support.
ROUND_OF_OTHER_MODELS: dict[str, dict[str, Any]] = {
    "common": {"max_prompt_tokens": 256, "max_completion_tokens": 96},
    "round": ROUND_SECTION,
}

DIALOGUE_ROUND_OF_OTHER_MODELS = ROUND_OF_OTHER_MODELS | {"ppo": {"environment": DIALOGUE_ENVIRONMENT}}


def comparisons_for(rankings: int) -> int:
    """Return how many comparisons are needed for at least so many rankings."""
    return math.ceil(rankings / (1 + EXTRA_RANKING_SHARE))
