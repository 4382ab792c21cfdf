"""Check of a model's folder in another process, because this one must not load torch."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO

from django.conf import settings

from feedback.errors import Invalid
from training import checkpoints
from training.checkpoints import checks
from training.checkpoints.checks import Verdict
from training.checkpoints.files import check_model
from training.models import Checkpoint
from training.run_round.heartbeat import shutting_down
from training.run_round.process import DIE_WITH_PARENT, POLL_SECONDS, SECRETS, ProgramStopped, end
from training.workers.machine import this_worker

TIME_LIMIT = 900  # seconds: reading 70 billion weights from a slow disk takes minutes


def run(checkpoint_id: int) -> None:
    """Check a waiting checkpoint and store the verdict; do nothing if it is checked, or another worker checks it."""
    if not checks.claim(checkpoint_id, this_worker()):
        return
    checkpoint = Checkpoint.objects.get(pk=checkpoint_id)
    try:
        verdict = verdict_on(checkpoint.path, CheckHeartbeat(checkpoint_id))
    except ProgramStopped:
        checks.release(checkpoint_id)  # this worker shuts down: the next one starts the check again
        return
    except (KeyboardInterrupt, SystemExit):
        checks.release(checkpoint_id)
        raise
    checkpoints.settle_check(checkpoint, verdict)


def verdict_on(path_or_hub_id: str, watch: Callable[[], None] = lambda: None, may_fetch: bool = False) -> Verdict:
    """Check the files, then load the model and compare its fast paths with its own forward pass."""
    try:
        folder = check_model(path_or_hub_id, may_fetch)
    except Invalid as refusal:
        return Verdict("refused", "", "", refusal.message)
    return probe(folder, watch)


class CheckHeartbeat:
    """Callback of a running check: refresh its heartbeat, and stop it when the worker shuts down."""

    def __init__(self, checkpoint_id: int) -> None:
        self.checkpoint_id = checkpoint_id
        self.next = time.monotonic() + checks.HEARTBEAT_EVERY

    def __call__(self) -> None:
        if shutting_down.is_set():
            raise ProgramStopped
        if time.monotonic() >= self.next:
            checks.beat(self.checkpoint_id)
            self.next = time.monotonic() + checks.HEARTBEAT_EVERY


def probe(folder: str, watch: Callable[[], None] = lambda: None) -> Verdict:
    """Load and probe the folder's language model. A model whose check crashes is refused.

    `watch` is called several times a second. An exception in it ends the process.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = start(folder, output, errors)
        deadline = time.monotonic() + TIME_LIMIT
        try:
            while process.poll() is None and time.monotonic() < deadline:
                watch()
                time.sleep(POLL_SECONDS)
            is_late = process.poll() is None
        finally:
            end(process)
        if is_late:
            return Verdict("refused", "", "", f"its check took longer than {TIME_LIMIT} s")
        lines = read_lines(output)
        if process.returncode != 0 or not lines:
            last = (read_lines(errors) or ["it printed nothing"])[-1][:1000]
            return Verdict("refused", "", "", f"its check ended with exit status {process.returncode}: {last}")
        return Verdict(**json.loads(lines[-1]))


def start(folder: str, output: IO[bytes], errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the check in its own session, without secrets. It ends when this process dies."""
    environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    check = [sys.executable, "-m", "training.learner.check", folder]
    return subprocess.Popen(
        [sys.executable, str(DIE_WITH_PARENT), str(os.getpid()), *check],
        cwd=settings.BASE_DIR,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        start_new_session=True,
    )


def read_lines(file: IO[bytes]) -> list[str]:
    file.seek(0)
    return file.read().decode(errors="replace").strip().splitlines()
