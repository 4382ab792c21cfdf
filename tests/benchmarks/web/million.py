"""Part "million": time of a submit with the next comparison, with 1,000,000 comparisons and with 10,000, in turn."""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.web.cluster import Cluster
from tests.benchmarks.web.ours import Ours
from tests.benchmarks.web.report import result, say

SIZES = {"few": 10_000, "many": 1_000_000}


def measure(cluster: Cluster, folder: Path, seconds: float, runs: int) -> Iterator[dict[str, Any]]:
    ours = Ours(cluster, folder)
    for name, size in SIZES.items():
        say(f"filling our database: {size:,} comparisons")
        ours.prepare(name, size, people=1)
    taken: dict[str, list[float]] = {name: [] for name in SIZES}
    for turn in range(runs):
        say(f"one annotator among {' and '.join(f'{size:,}' for size in SIZES.values())}, run {turn + 1} of {runs}")
        for name, medians in taken.items():
            with ours.serve(name) as service:
                found = service.load(1, seconds, together=True)
            medians.append(statistics.median(found["submit_with_next"]) * 1000)
    few, many = (statistics.median(medians) for medians in taken.values())
    details = {"ms_among_10k": round(few, 2), "ms_among_a_million": round(many, 2)}
    yield result("million_vs_10k", many / few, None, "×", details_ours=details) | {"ratio": many / few}
