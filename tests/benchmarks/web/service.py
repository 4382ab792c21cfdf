"""A running web service and its measurement."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from config.runtime.errors import SetupError
from tests.benchmarks.peers import ROOT
from tests.benchmarks.web.processes import worker_megabytes


@dataclass(frozen=True)
class Service:
    product: str
    port: int
    process: subprocess.Popen[bytes]
    cookies: list[dict[str, str]]

    def load(self, clients: int, seconds: float, *, together: bool = False) -> dict[str, Any]:
        """Run that many annotators for that many seconds (see `load`), and add the memory of a worker at the end."""
        plan = {"product": self.product, "port": self.port, "cookies": self.cookies[:clients], "seconds": seconds,
                "together": together}  # fmt: skip
        command = [sys.executable, "-m", "tests.benchmarks.web.load"]
        done = subprocess.run(command, cwd=ROOT, input=json.dumps(plan), capture_output=True, text=True)
        if done.returncode:
            raise SetupError(f"the simulated annotators of {self.product} failed: {done.stderr.strip()[-2000:]}")
        found = json.loads(done.stdout)
        if not found["labels"]:
            failed = f"; first error: {next(iter(found['errors']))}" if found["errors"] else ""
            raise SetupError(f"{self.product} accepted no label in {seconds:g} s: increase --seconds{failed}.")
        return found | {"megabytes": worker_megabytes(self.process)}
