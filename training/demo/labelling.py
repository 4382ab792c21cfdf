"""Simulated annotators at work: each in a thread with a connection of its own, ranking through the API."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic

from training.demo.annotators import Annotator
from training.demo.client import Client


@dataclass(frozen=True)
class Worker:
    """A simulated annotator and their key to the API."""

    annotator: Annotator
    token: str


def rank(base_url: str, project: str, workers: Sequence[Worker], labels: int) -> int:
    """Let the annotators make `labels` rankings; fewer when nothing is left for any of them. Returns how many."""
    quota: SimpleQueue[None] = SimpleQueue()
    for _ in range(labels):
        quota.put(None)

    def work(worker: Worker) -> int:
        with Client(base_url, project, worker.token) as client:
            return work_off(client, worker.annotator, quota)

    with ThreadPoolExecutor(len(workers)) as pool:
        try:
            return sum(pool.map(work, workers))
        finally:
            empty(quota)  # after Ctrl-C, or a refusal to one of them, the others need not finish it


def empty(quota: "SimpleQueue[None]") -> None:
    with suppress(Empty):
        while True:
            quota.get_nowait()


def work_off(client: Client, annotator: Annotator, quota: "SimpleQueue[None]") -> int:
    """Rank until the quota is empty or nothing is left; how many it were."""
    done = 0
    lease = client.take()
    while lease is not None:
        try:
            quota.get_nowait()
        except Empty:
            break  # the lease runs out by itself, and comes back first the next time
        since = monotonic()
        ranks = annotator.rank(lease["messages"][-1]["content"], lease["completions"])
        lease = client.rank(lease, ranks, since, take_next=not quota.empty())
        done += 1
    return done
