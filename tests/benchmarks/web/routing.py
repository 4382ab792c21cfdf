"""Part "routing": the time of a submit with the next comparison where rules send each of three tags to a third of the
people, and without rules, in turn, on fresh copies of databases; and how many rankings went to the wrong people."""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from config.runtime.errors import SetupError
from tests.benchmarks.peers import ROOT
from tests.benchmarks.web.cluster import Cluster
from tests.benchmarks.web.ours import Ours
from tests.benchmarks.web.report import result, say
from tests.benchmarks.web.speed import quantile

RANKINGS, PEOPLE, COMPARISONS = 10_000, 100, 15_000  # some are left in each third


def measure(cluster: Cluster, folder: Path, runs: int) -> Iterator[dict[str, Any]]:
    ours = Ours(cluster, folder)
    say(f"filling our database: {COMPARISONS:,} comparisons with three tags")
    ours.prepare("tagged", COMPARISONS, people=PEOPLE)
    taken: dict[str, list[list[float]]] = {"without": [], "with": []}
    misrouted = 0
    for turn in range(runs):
        say(f"{RANKINGS:,} rankings by {PEOPLE} people, run {turn + 1} of {runs}")
        for name, of_runs in taken.items():
            with cluster.copy("tagged") as database:
                done = run(ours, database, name == "with")
            of_runs.append(done["seconds"])
            misrouted += done["misrouted"]
    medians = {
        f"{name}_{label}_ms": round(statistics.median(quantile(seconds, share) for seconds in of_runs), 2)
        for name, of_runs in taken.items()
        for label, share in (("p50", 0.5), ("p95", 0.95))
    }
    details = medians | {"rankings": RANKINGS * runs, "misrouted": misrouted}
    ratio = medians["with_p95_ms"] / medians["without_p95_ms"]
    yield result("routed_p95", ratio, None, "×", details_ours=details) | {"ratio": ratio}


def run(ours: Ours, database: str, is_routed: bool) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.web.routed_crowd", str(RANKINGS), str(int(is_routed))]
    done = subprocess.run(command, cwd=ROOT, env=ours.environment(database), capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"the rankings could not be made: {done.stderr.strip()[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer
