"""Accord: its databases, and its web service as `manage.py up` runs it."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from config.runtime.errors import SetupError
from tests.benchmarks.peers import ROOT
from tests.benchmarks.web.cluster import Cluster
from tests.benchmarks.web.processes import free_port, running, wait_for
from tests.benchmarks.web.service import Service

TWICE = """
    SELECT count(*) FROM (
        SELECT FROM feedback_ranking WHERE is_live GROUP BY comparison_id HAVING count(*) > 1) AS twice
"""


@dataclass
class Ours:
    cluster: Cluster
    folder: Path
    product: str = "ours"
    key: str = field(default_factory=lambda: secrets.token_urlsafe(50))
    cookies: dict[str, list[dict[str, str]]] = field(default_factory=dict)  # of each database's people

    def prepare(self, database: str, comparisons: int, people: int, wanted: int = 1) -> None:
        """Make a database with one project, its comparisons, and people who are signed in."""
        self.cluster.create(database)
        command = [sys.executable, "-m", "tests.benchmarks.web.seed", *map(str, (comparisons, wanted, people))]
        done = subprocess.run(command, cwd=ROOT, env=self.environment(database), capture_output=True, text=True)
        if done.returncode:
            raise SetupError(f"Accord's database could not be filled: {done.stderr.strip()[-2000:]}")
        self.cookies[database] = json.loads(done.stdout.strip().splitlines()[-1])

    @contextmanager
    def serve(self, database: str) -> Iterator[Service]:
        """Run the web service on the database."""
        port, log = free_port(), self.folder / "ours.log"
        command = [sys.executable, "manage.py", "up", "--only", "web", "--port", str(port)]
        with running(command, log, folder=ROOT, environment=self.environment(database)) as process:
            wait_for(f"http://127.0.0.1:{port}/healthz", process, log)
            yield Service(self.product, port, process, self.cookies[database.removesuffix("_copy")])

    def doubled(self, database: str) -> int:
        """Count comparisons with more than the one ranking that they want."""
        with self.cluster.connect(database) as connection:
            return connection.execute(TWICE).fetchone()[0]

    def environment(self, database: str) -> dict[str, str]:
        ours = {"DATABASE_URL": self.cluster.address(database), "SECRET_KEY": self.key, "LOG_LEVEL": "WARNING",
                "ACCORD_DATA": str(self.folder / "accord"), "WEB_WORKERS": "2"}  # fmt: skip
        return {name: value for name, value in os.environ.items() if name != "WEB_THREADS"} | ours
