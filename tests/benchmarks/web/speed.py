"""Part "speed": labels per second and waiting times beside Label Studio, in turn, on fresh copies of databases."""

import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.web.cluster import Cluster
from tests.benchmarks.web.label_studio import LabelStudio
from tests.benchmarks.web.ours import Ours
from tests.benchmarks.web.report import result, say

ITEMS = 10_000
LEVELS = {1: True, 8: True, 64: False}  # number of clients: whether the peer is measured too
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
KINDS = ("next", "submit", "submit_with_next", "label")

Run = dict[str, Any]


def measure(cluster: Cluster, folder: Path, seconds: float, runs: int) -> Iterator[dict[str, Any]]:
    ours, peer = Ours(cluster, folder), LabelStudio(cluster, folder)
    say(f"filling our database: {ITEMS:,} comparisons")
    ours.prepare("ours", ITEMS, people=max(LEVELS))
    say(f"filling Label Studio's database: {ITEMS:,} tasks")
    peer.prepare("label_studio", ITEMS, people=max(level for level, is_compared in LEVELS.items() if is_compared))
    for clients, is_compared in LEVELS.items():
        mine: list[Run] = []
        theirs: list[Run] = []
        for turn in range(runs):
            say(f"{clients} clients, run {turn + 1} of {runs}")
            mine.append(run_ours(ours, clients, seconds))
            if is_compared:
                theirs.append(run_peer(peer, clients, seconds))
        yield from results(clients, summary(mine), summary(theirs) if theirs else None)


def run_ours(ours: Ours, clients: int, seconds: float) -> Run:
    """Measure submits that bring the next comparison, as the page does; then both requests apart, as the peer does."""
    with ours.cluster.copy("ours") as database, ours.serve(database) as service:
        together = service.load(clients, seconds, together=True)
        apart = service.load(clients, seconds)
        errors = together["errors"] | apart["errors"]
        doubled = ours.doubled(database)
    return together | {"next": apart["next"], "submit": apart["submit"], "apart": apart["labels"] / seconds,
                       "errors": errors, "doubled": doubled}  # fmt: skip


def run_peer(peer: LabelStudio, clients: int, seconds: float) -> Run:
    with peer.cluster.copy("label_studio") as database, peer.serve(database) as service:
        return service.load(clients, seconds) | {"doubled": peer.doubled(database)}


def summary(runs: list[Run]) -> dict[str, Any]:
    """Return medians over the runs, latencies in milliseconds, and the sums of errors and doubled rankings."""
    latencies = {
        f"{kind}_{name}": statistics.median(quantile(run[kind], share) for run in runs)
        for kind in KINDS if runs[0][kind] for name, share in SHARES.items()
    }  # fmt: skip
    rates = [run["labels"] / run["seconds"] for run in runs]
    return latencies | {
        "labels_per_s": statistics.median(rates),
        "labels_per_s_of_runs": rates,
        "labels_per_s_apart": statistics.median(run.get("apart", rate) for run, rate in zip(runs, rates, strict=True)),
        "worker_megabytes": statistics.median(run["megabytes"] for run in runs),
        "doubled": sum(run["doubled"] for run in runs),
        "errors": sum(sum(run["errors"].values()) for run in runs),
        "error_texts": sorted({text for run in runs for text in run["errors"]})[:5],
    }


def results(clients: int, mine: dict[str, Any], theirs: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    more = {"details_ours": mine, "details_peer": theirs}
    yield result(f"labels_per_s@{clients}", mine["labels_per_s"], theirs and theirs["labels_per_s"], "labels/s", **more)
    if clients == 8 and theirs is not None:
        # The waiting time of an annotator. The peer has no submit that brings the next task, so both of its requests.
        yield result("submit_p95@8", mine["submit_with_next_p95"], theirs["label_p95"], "ms")


def quantile(seconds: list[float], share: float) -> float:
    """Return the quantile in milliseconds: the smallest value that this share does not exceed; NaN without values."""
    return sorted(seconds)[max(0, math.ceil(len(seconds) * share) - 1)] * 1000 if seconds else math.nan
