"""The mixture of sources whose completions a round compares: the setting `sources` of the section "round".

    {"new": 2, "served": 1, "endpoint:x": 1}
    {"new": {"count": 2, "temperature": 0.7}, "checkpoint:round-0003": 2}

"new" is the checkpoint that the round makes, or that writes completions in a round that trains nothing; "served" is the
served checkpoint at the start of the round. The counts are shares: with as many completions in a comparison as their
sum, each comparison has these counts; otherwise the counts change from comparison to comparison, so that over all of
them the shares are as wanted.
"""

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.learner.runtime.jobdir import BadInput

NEW, SERVED = "new", "served"
CHECKPOINT, ENDPOINT = "checkpoint:", "endpoint:"
MOST_SOURCES = 9
MAX_COUNT = 100
MAX_TEMPERATURE = 10.0
EXAMPLE = '{"new": 2, "served": 1, "endpoint:NAME": {"count": 1, "temperature": 0.7}}'


@dataclass(frozen=True)
class MixedSource:
    """One source of a mixture."""

    key: str  # as in the setting
    count: int
    temperature: float | None = None  # None: that of the section "sample"
    checkpoint: str = ""  # the name of a checkpoint of the project; "": none, or it is not known yet

    @property
    def endpoint(self) -> str:
        """Return the name of the endpoint; "" for a checkpoint."""
        return self.key.removeprefix(ENDPOINT) if self.key.startswith(ENDPOINT) else ""


def read_sources(setting: Mapping[str, Any]) -> list[MixedSource]:
    """Return the sources of a setting, "new" first; none if the new checkpoint alone writes. Raise BadInput."""
    if not setting:
        return []
    if len(setting) > MOST_SOURCES:
        raise BadInput(f"sources must be at most {MOST_SOURCES}, not {len(setting)}")
    if NEW not in setting:
        raise BadInput(f'sources must have "{NEW}", the checkpoint that the round is about: write {EXAMPLE}')
    return [_source(key, setting[key]) for key in sorted(setting, key=lambda key: (key != NEW, key != SERVED))]


def _source(key: str, value: Any) -> MixedSource:
    prefix = next((prefix for prefix in (CHECKPOINT, ENDPOINT) if key.startswith(prefix) and key != prefix), "")
    if key not in (NEW, SERVED) and not prefix:
        raise BadInput(f'sources has {key!r}: use "new", "served", "checkpoint:NAME" or "endpoint:NAME"')
    fields = value if isinstance(value, dict) else {"count": value}
    known = {"count", "temperature"} | ({"checkpoint"} if key == SERVED else set())
    if unknown := sorted(set(fields) - known):
        raise BadInput(f'sources has {unknown[0]!r} for "{key}": use count and temperature')
    count, temperature = fields.get("count"), fields.get("temperature")
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_COUNT:
        raise BadInput(f'sources must have a whole number from 1 to {MAX_COUNT} for "{key}", not {count!r}')
    if temperature is not None and not _is_temperature(temperature):
        raise BadInput(f'the temperature of "{key}" in sources must be from 0 to {MAX_TEMPERATURE:g}')
    checkpoint = key.removeprefix(CHECKPOINT) if prefix == CHECKPOINT else fields.get("checkpoint", "")
    return MixedSource(key, count, None if temperature is None else float(temperature), str(checkpoint))


def _is_temperature(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_TEMPERATURE


def with_served(setting: Mapping[str, Any], checkpoint: str) -> dict[str, Any]:
    """Return the setting with the name of the served checkpoint, which another may replace before the round runs."""
    if SERVED not in setting:
        return dict(setting)
    value = setting[SERVED]
    return {**setting, SERVED: {**(value if isinstance(value, dict) else {"count": value}), "checkpoint": checkpoint}}


def without_served(setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return the setting of a new round with the sources of an earlier one: served is what is served then."""
    value = setting.get(SERVED)
    if not isinstance(value, dict):
        return dict(setting)
    kept = {name: one for name, one in value.items() if name != "checkpoint"}
    return {**setting, SERVED: kept["count"] if list(kept) == ["count"] else kept}


def most_of(source: MixedSource, sources: Sequence[MixedSource], size: int) -> int:
    """Return the highest number of completions of one source in a comparison of `size`."""
    return math.ceil(size * source.count / sum(one.count for one in sources))


def compositions(
    prompt_ids: Sequence[int], sources: Sequence[MixedSource], size: int, seed: int
) -> dict[int, dict[str, int]]:
    """Return how many completions of each source are compared for each prompt: `size` in all.

    Each prompt adds to what every source is owed, and the sources that are owed most get the places; equal ones by
    chance. So no source is ever more than one completion per other source away from its share.
    """
    chance = random.Random(f"mixed {seed}")
    total = sum(source.count for source in sources)
    most = {source.key: most_of(source, sources, size) for source in sources}
    owed = {source.key: 0 for source in sources}  # in parts of `total` of a completion
    made = {}
    for prompt_id in prompt_ids:
        counts = dict.fromkeys(owed, 0)
        for source in sources:
            owed[source.key] += size * source.count
        for _place in range(size):
            open_keys = [key for key in owed if counts[key] < most[key]]
            highest = max(owed[key] for key in open_keys)
            key = chance.choice([key for key in open_keys if owed[key] == highest])
            counts[key] += 1
            owed[key] -= total
        made[prompt_id] = counts
    return made


def turn_order(prompt_id: int, keys: Sequence[str]) -> list[str]:
    """Return the keys in an order of the prompt's own, so that no source always yields to a near-duplicate."""
    return sorted(keys, key=lambda key: hashlib.sha256(f"{prompt_id}/{key}".encode()).digest())
