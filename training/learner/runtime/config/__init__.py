"""Settings of the programs: one module with one frozen dataclass for every program, found by its `program`.

Read from config.json and checked in one place: unknown keys, values of a wrong type or out of range, and sizes that do
not divide are refused with one sentence (`BadInput`). A former name of a setting is accepted for one release. Standard
library only: web processes fill and check these before a program starts.
"""

import importlib
import pkgutil

from training.learner.runtime.config.base import (
    LEARNING_RATES,
    LORA_FACTOR,
    SMALL_MODEL,
    Settings,
    Training,
    current_names,
)
from training.learner.runtime.config.ppo import HEAD_LEARNING_RATE, PpoConfig
from training.learner.runtime.config.q import QConfig
from training.learner.runtime.config.reward import RewardConfig
from training.learner.runtime.config.sample import SampleConfig, Sampling
from training.learner.runtime.config.sft import SftConfig

__all__ = [
    "CONFIGS",
    "HEAD_LEARNING_RATE",
    "LEARNING_RATES",
    "LORA_FACTOR",
    "SMALL_MODEL",
    "PpoConfig",
    "QConfig",
    "RewardConfig",
    "SampleConfig",
    "Sampling",
    "Settings",
    "SftConfig",
    "Training",
    "current_names",
]

CONFIGS: dict[str, type[Settings]] = {}  # by program

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    for _kind in vars(importlib.import_module(f"{__name__}.{_module}")).values():
        # A class without a program of its own is a part of others.
        if isinstance(_kind, type) and issubclass(_kind, Settings) and "program" in vars(_kind):
            CONFIGS[_kind.program] = _kind
