"""Part "crowd": two hundred annotators on one site for two minutes, with double submits and lost connections.

Nobody waits between comparisons. Afterwards the confirmed rankings are compared with the database. A confirmed ranking
that is missing or different is lost. A ranking that is stored twice, that nobody sent, or that exceeds the number
wanted is doubled.
"""

import json
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

ANNOTATORS, WANTED, ITEMS = 200, 3, 20_000

RANKINGS = "SELECT idempotency_key::text, comparison_id, ranks, display_order FROM feedback_ranking"
ABOVE = """
    SELECT count(*) FROM feedback_comparison AS comparison
    WHERE wanted_rankings < (SELECT count(*) FROM feedback_ranking WHERE comparison_id = comparison.id AND is_live)
"""
TWICE = """
    SELECT count(*) FROM (
        SELECT FROM feedback_ranking WHERE is_live GROUP BY comparison_id, annotator_id HAVING count(*) > 1) AS twice
"""
MISCOUNTED = """
    SELECT count(*) FROM feedback_comparison AS comparison
    WHERE ranking_count <> (SELECT count(*) FROM feedback_ranking WHERE comparison_id = comparison.id AND is_live)
       OR open_slots <> wanted_rankings - ranking_count - (
            SELECT count(*) FROM feedback_lease WHERE comparison_id = comparison.id AND lapsed_at IS NULL)
"""


def measure(cluster: Cluster, folder: Path, seconds: float) -> Iterator[dict[str, Any]]:
    ours = Ours(cluster, folder)
    say(f"filling our database: {ITEMS:,} comparisons that want {WANTED} rankings each")
    ours.prepare("crowd", ITEMS, people=ANNOTATORS, wanted=WANTED)
    say(f"{ANNOTATORS} annotators for {seconds:.0f} s")
    with ours.serve("crowd") as service:
        plan = {"port": service.port, "cookies": service.cookies, "seconds": seconds}
        command = [sys.executable, "-m", "tests.benchmarks.web.careless"]
        done = subprocess.run(command, cwd=ROOT, input=json.dumps(plan), capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"the simulated annotators failed: {done.stderr.strip()[-2000:]}")
    yield from compare(cluster, json.loads(done.stdout))


def compare(cluster: Cluster, outcome: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Compare with `outcome["confirmed"]`: the confirmed (comparison, ranks in display order) by idempotency key."""
    with cluster.connect("crowd") as connection:
        held = {key: rest for key, *rest in connection.execute(RANKINGS)}
        above, twice, miscounted = (connection.execute(query).fetchone()[0] for query in (ABOVE, TWICE, MISCOUNTED))
    confirmed = outcome["confirmed"]
    missing = [key for key in confirmed if key not in held]
    changed = [key for key, ranking in confirmed.items() if key in held and ranking != list(as_sent(*held[key]))]
    unsent = [key for key in held if key not in confirmed]
    details = {
        "confirmed": len(confirmed),
        "missing": len(missing),
        "changed": len(changed),
        "errors": sum(outcome["errors"].values()),
        "error_texts": sorted(outcome["errors"])[:5],
        "acts": outcome["acts"],
    }
    yield result("lost", len(missing) + len(changed), None, "rankings", details_ours=details)
    details = {"above_wanted": above, "twice_by_one": twice, "never_sent": len(unsent), "miscounted": miscounted}
    yield result("doubled", above + twice + len(unsent), None, "rankings", details_ours=details)


def as_sent(comparison: int, ranks: list[int], display_order: list[int]) -> tuple[int, list[int]]:
    return comparison, [ranks[position] for position in display_order]
