"""Environments that answer the policy's turns, with Gymnasium's interface and texts as observations and actions.

An environment is named in the settings, for example `{"name": "dialogue", "user": "script", "lines": ["..."]}`. Each is
one class of a module in this folder, registered with `@environment`. This package needs no torch, because web processes
check settings with it.

The parameters of a class's constructor after the first one, an `EnvironmentContext`, are its settings, checked as those
of reward terms. One object plays one episode:

- `reset(seed=..., options=row)` gets the row of prompts.jsonl and returns `(observation, info)`. The policy answers
  `info["messages"]` if the environment gives some, otherwise the observation as a user's message.
- `step(action)` gets the text of the policy's turn and returns `(observation, reward, terminated, truncated, info)`
  (Towers et al. 2024, "Gymnasium"). The observation is the next user's message. `reward` belongs to this turn. The
  episode ends if `terminated`; the observation is then ignored. If `truncated`, it stops, and ppo with a critic
  bootstraps from the value of the state after the observation; without a critic it leaves the episode out.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from training.learner.runtime.jobdir import BadInput
from training.learner.runtime.options import check_options, options_of

Row = dict[str, Any]
Step = tuple[str, float, bool, bool, dict[str, Any]]


class Environment(Protocol):
    """One episode with texts as observations and actions."""

    def reset(self, *, seed: int | None = None, options: Row | None = None) -> tuple[str, dict[str, Any]]:
        """Begin the episode of a row of prompts.jsonl. Return the first observation, and info."""

    def step(self, action: str) -> Step:
        """Answer a turn of the policy. Return observation, reward, terminated, truncated, info."""


@dataclass(frozen=True)
class EnvironmentContext:
    """The parts of a run that an environment may use."""

    # Load a checkpoint; return a function that writes its answer to messages. The number selects the random numbers.
    load_writer: Callable[[str], Callable[[list[dict[str, str]], int], str]]


ENVIRONMENTS: dict[str, Callable[..., Environment]] = {}
OPTIONS: dict[str, Mapping[str, inspect.Parameter]] = {}  # settings of each environment
SINGLE_TURN = {"name": "single_turn"}
HELP = "Environment that answers the policy's turns: an object with name and the environment's settings."

Made = TypeVar("Made", bound=Callable[..., Any])


def environment(name: str) -> Callable[[Made], Made]:
    """Register a class as the environment `name`."""

    def register(make: Made) -> Made:
        ENVIRONMENTS[name] = make
        OPTIONS[name] = dict(list(inspect.signature(make).parameters.items())[1:])
        return make

    return register


def check_environment(entry: Mapping[str, Any]) -> None:
    """Raise BadInput unless `entry` names a registered environment and has its settings."""
    name = entry.get("name")
    if not isinstance(name, str) or name not in ENVIRONMENTS:
        raise BadInput(f"environment must name one of {', '.join(sorted(ENVIRONMENTS))}, not {name!r}")
    check_options(f"the environment {name}", options_of(entry), OPTIONS[name])


def make_environment(entry: Mapping[str, Any], context: EnvironmentContext) -> Environment:
    """Return a new environment for one episode. Raises BadInput if it cannot be made."""
    return ENVIRONMENTS[entry["name"]](context, **options_of(entry))


def turns_of(entry: Mapping[str, Any]) -> int:
    """Return how many turns the policy has at most in an episode; 1 if the environment has no such setting."""
    option = OPTIONS[entry["name"]].get("turns")
    return 1 if option is None else int(entry.get("turns", option.default))


for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
