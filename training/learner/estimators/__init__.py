"""Algorithms of the program ppo: estimators of the advantages of completions.

Each algorithm is one module of this folder with a function registered by `@estimator`; the settings, their checks and
`--help` derive from the registry. An estimator uses only methods of tensors, so that this package needs no torch.

An estimator takes `rewards` [N], one number per completion, with the completions of a prompt next to one another;
`group_size`, the number of completions per prompt, at least `min_group_size`, which divides N; and `baseline`, a mean
of rewards that does not depend on these completions (or their own mean in the first batch). It returns advantages [N].

Truncated dialogues are left out before, see `advantages_of_ended` in policy/advantages.py: prompts of which the same
number of completions came to their end are estimated together, so an estimator may be called several times for a batch.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Advantages = Callable[["Tensor", int, float], "Tensor"]


@dataclass(frozen=True)
class Algorithm:
    """Requirements of an algorithm."""

    help: str
    needs_critic: bool = False  # GAE over tokens with a critic, see policy/advantages.py
    min_group_size: int = 1  # completions per prompt
    has_baseline: bool = False  # uses a moving baseline
    is_ratio_of_sequence: bool = False  # one probability ratio per completion; every completion has the same weight
    advantages: Advantages | None = None  # None: GAE


ALGORITHMS: dict[str, Algorithm] = {
    "ppo": Algorithm("a critic and GAE, one advantage per token", needs_critic=True),
}


def estimator(
    name: str,
    help: str,
    *,
    min_group_size: int = 1,
    has_baseline: bool = False,
    is_ratio_of_sequence: bool = False,
) -> Callable[[Advantages], Advantages]:
    """Register an advantage estimator as the algorithm `name`."""

    def register(function: Advantages) -> Advantages:
        ALGORITHMS[name] = Algorithm(
            help,
            min_group_size=min_group_size,
            has_baseline=has_baseline,
            is_ratio_of_sequence=is_ratio_of_sequence,
            advantages=function,
        )
        return function

    return register


for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
