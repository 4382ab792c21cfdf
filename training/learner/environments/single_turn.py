"""The environment single_turn: the policy answers a prompt once. The reward terms alone reward it."""

from typing import Any

from training.learner.environments import EnvironmentContext, Row, Step, environment


@environment("single_turn")
class SingleTurn:
    """Environment that ends the episode after the first turn."""

    def __init__(self, context: EnvironmentContext) -> None:
        pass

    def reset(self, *, seed: int | None = None, options: Row | None = None) -> tuple[str, dict[str, Any]]:
        """Begin with the messages of the prompt."""
        messages = (options or {}).get("messages", [])
        return (messages[-1]["content"] if messages else ""), {"messages": messages}

    def step(self, action: str) -> Step:
        """End the episode."""
        return "", 0.0, True, False, {}
