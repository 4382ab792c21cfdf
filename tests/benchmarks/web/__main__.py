"""Benchmark of the labelling site beside Label Studio, in turn, on the same system PostgreSQL.

    python3 manage.py bench web [--json FILE] [--only speed,crowd,million,routing] [--seconds N] [--runs N]

Both have two web workers and one user per client. The clients run in a separate process and send what a browser sends
(session cookie, CSRF token, the page's requests). Every label is durable: PostgreSQL has its package's settings.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from config.runtime.errors import SetupError
from tests.benchmarks.arguments import at_least_one
from tests.benchmarks.web import crowd, million, routing, speed
from tests.benchmarks.web.cluster import Cluster, cluster
from tests.benchmarks.web.report import say, show

PARTS = ("speed", "crowd", "million", "routing")


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    results: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory(prefix="accord-bench-") as folder, cluster() as database:
            say(f"PostgreSQL {database.version()}, {os.cpu_count()} cores")
            for found in measure(database, Path(folder), options):
                results.append(found)
                show(found)
                if options.json:
                    options.json.write_text(json.dumps(results, indent=1) + "\n")
    except (SetupError, subprocess.CalledProcessError) as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="manage.py bench web")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument(
        "--only", default=",".join(PARTS), metavar="PARTS", help=f"comma-separated parts to run ({', '.join(PARTS)})"
    )
    parser.add_argument("--seconds", type=float, default=10, metavar="N", help="length of each measurement (10)")
    parser.add_argument("--crowd-seconds", type=float, default=120, metavar="N", help="length of the part crowd (120)")
    parser.add_argument("--runs", type=at_least_one, default=3, metavar="N", help="runs of each side, in turn (3)")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    if unknown := [part for part in options.only if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    if options.seconds <= 0 or options.crowd_seconds <= 0 or options.runs < 1:
        parser.error("--seconds, --crowd-seconds and --runs must be above 0")
    if options.json and not options.json.resolve().parent.is_dir():
        parser.error(f"--json names a file in {options.json.resolve().parent}, which is not a folder")
    return options


def measure(database: Cluster, folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if "speed" in options.only:
        yield from speed.measure(database, folder, options.seconds, options.runs)
    if "crowd" in options.only:
        yield from crowd.measure(database, folder, options.crowd_seconds)
    if "million" in options.only:
        yield from million.measure(database, folder, options.seconds, options.runs)
    if "routing" in options.only:
        yield from routing.measure(database, folder, options.runs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
