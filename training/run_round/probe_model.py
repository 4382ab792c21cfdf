"""Ask the learner, in a process of its own, how a model's folder is computed: no torch in ours."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

from django.conf import settings

from training.run_round.process import SECRETS

TIME_LIMIT = 900  # seconds: reading 70 billion weights from a slow disk takes minutes


class Verdict(NamedTuple):
    """What `training.learner.models.probe` says of a folder."""

    verdict: str  # "fast", "generic" or "refused"
    scoring: str
    decoding: str
    why: str

    def __str__(self) -> str:
        if self.verdict == "fast":
            return "exact and fast"
        if self.verdict == "generic":
            return f"exact by the generic path ({self.scoring} rows, {self.decoding} decoding): {self.why}"
        return f"refused: {self.why}"


def probe(folder: str) -> Verdict:
    """Load the folder's language model and probe it. A model that ends the process is refused, too."""
    environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "training.learner.models.probe", folder]
    try:
        done = subprocess.run(
            command, cwd=settings.BASE_DIR, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=TIME_LIMIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Verdict("refused", "", "", f"its probe took longer than {TIME_LIMIT} s")
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        return Verdict("refused", "", "", f"its probe ended with exit status {done.returncode}: {last}")
    return Verdict(**json.loads(lines[-1]))
