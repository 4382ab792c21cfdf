"""How the demo's rounds run: settings that suit its small model, its prompts and two processor cores."""

from typing import Any

RANKINGS_A_COMPARISON = 2  # so that every pair shows whether two people agree
COMPARISONS = 300  # made of the first completions and by each round: 600 rankings

ROUND: dict[str, dict[str, Any]] = {
    "common": {"max_prompt_tokens": 128, "max_completion_tokens": 96},
    "round": {"prompts": COMPARISONS, "comparison_size": 4, "shown_prompts": 24},
}

# A model of another kind: our programs' defaults, but replies of a customer-support kind are short.
ROUND_OF_OTHER_MODELS: dict[str, dict[str, Any]] = {
    "common": {"max_prompt_tokens": 256, "max_completion_tokens": 96},
    "round": {"prompts": COMPARISONS, "comparison_size": 4, "shown_prompts": 24},
}
