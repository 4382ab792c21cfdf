"""A web service that runs, and what it costs to work there."""

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
        """So many annotators at work for so long: see `load`. Adds the memory of a worker at the end."""
        plan = {"product": self.product, "port": self.port, "cookies": self.cookies[:clients], "seconds": seconds,
                "together": together}  # fmt: skip
        command = [sys.executable, "-m", "tests.benchmarks.web.load"]
        done = subprocess.run(command, cwd=ROOT, input=json.dumps(plan), capture_output=True, text=True)
        if done.returncode:
            raise SetupError(f"the annotators of {self.product} gave up: {done.stderr.strip()[-2000:]}")
        found = json.loads(done.stdout)
        if not found["labels"]:
            failed = f"; what went wrong: {next(iter(found['errors']))}" if found["errors"] else ""
            raise SetupError(f"{self.product} took no label in {seconds:g} s: give more --seconds{failed}.")
        return found | {"megabytes": worker_megabytes(self.process)}
