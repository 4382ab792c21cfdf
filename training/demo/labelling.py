"""Ranking by simulated annotators through the API: one thread and one connection per annotator."""

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
    """Simulated annotator with an API token."""

    annotator: Annotator
    token: str


def rank(base_url: str, project: str, workers: Sequence[Worker], labels: int) -> int:
    """Let the annotators make `labels` rankings, or fewer if nothing is left to rank. Return their number."""
    quota: SimpleQueue[None] = SimpleQueue()
    for _ in range(labels):
        quota.put(None)

    def work(worker: Worker) -> int:
        with Client(base_url, project, worker.token) as client:
            return rank_from_quota(client, worker.annotator, quota)

    with ThreadPoolExecutor(len(workers)) as pool:
        try:
            return sum(pool.map(work, workers))
        finally:
            empty(quota)  # after Ctrl-C or an error in one thread, the others stop too


def empty(quota: "SimpleQueue[None]") -> None:
    with suppress(Empty):
        while True:
            quota.get_nowait()


def rank_from_quota(client: Client, annotator: Annotator, quota: "SimpleQueue[None]") -> int:
    """Rank until the quota is empty or nothing is left to rank. Return the number of rankings."""
    done = 0
    lease = client.take()
    while lease is not None:
        try:
            quota.get_nowait()
        except Empty:
            client.release(lease)
            break
        since = monotonic()
        ranks = annotator.rank(lease["messages"][-1]["content"], lease["completions"], lease["turns"])
        lease = client.rank(lease, ranks, since, take_next=not quota.empty())
        done += 1
    return done
