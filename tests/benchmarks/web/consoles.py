"""Benchmark of open consoles beside an annotator: CPU time of web service and database per request.

    python -m tests.benchmarks.web.consoles [--requests N]

It needs no other product. The web service is that of `manage.py up --only web` on an embedded database in a temporary
folder, with a running round, four workers and 400 comparisons. The benchmark writes the round's progress as a worker
does; its own connection to the database is not counted.
"""

import argparse
import atexit
import json
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from config.runtime import postgres, services
from config.runtime.postgres_server import cluster_of
from tests.benchmarks.peers import ROOT
from tests.benchmarks.web.browser import Browser
from tests.benchmarks.web.pages import OurPage
from tests.benchmarks.web.processes import free_port, running, wait_for

SLUG = "bench"
PROJECT = f"/projects/{SLUG}"
ROUND = f"{PROJECT}/rounds/1"
RANKING_EVERY = 15.0  # seconds
RENEW_EVERY = 60.0  # seconds; the page holds the lease on screen and two that were fetched ahead
HELD = 3
CONSOLES = 10
TURNS = 5
FASTEST, SLOWEST = 2.0, 25.0  # seconds between two versions, as in live.js
# Seconds between two contents while something always changes, as in live.js and the templates: touched and untouched.
PAUSES = {"round": (2.0, 300.0), "machines": (10.0, 600.0), "home": (5.0, 300.0), "trial": (3.0, 600.0)}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.benchmarks.web.consoles")
    parser.add_argument("--requests", type=int, default=200, metavar="N", help="requests of each kind (200)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="accord-bench-") as name:
        folder = Path(name)
        os.environ |= {"ACCORD_DATA": name, "SECRET_KEY": secrets.token_urlsafe(50), "LOG_LEVEL": "WARNING"}
        os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
        services.make_private(folder)
        services.use_database(folder)
        world = World(folder)
        try:
            with world.serve() as costs:
                report(costs, world, options.requests)
        finally:
            postgres.leave(folder)
            atexit.unregister(postgres.leave)  # the folder will be gone
    return 0


class Cost(NamedTuple):
    """CPU time: seconds, or milliseconds of a request."""

    web: float
    database: float

    @property
    def sum(self) -> float:
        return self.web + self.database


class World:
    """A project with a running round, workers, and a manager and an annotator who are signed in."""

    def __init__(self, folder: Path) -> None:
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connection

        call_command("migrate", verbosity=0)
        self.folder, self.step = folder, 0
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (self.backend,) = cursor.fetchone()
        self.make()

    def make(self) -> None:
        from feedback.actions import trials
        from feedback.models import Membership, Project, Source, User
        from tests.factories import FAST, add_work, fake_model
        from training import checkpoints
        from training.models import Round
        from training.rounds import lifecycle
        from training.rounds.start import start_sampling
        from training.workers import rows

        project = Project.objects.create(slug=SLUG, name="Bench", guidelines="Be *kind*.")
        add_work(project, 400, size=2)
        users = [User.objects.create_user(name) for name in ("manager", "annotator")]
        for user, role in zip(users, ("manager", "annotator"), strict=True):
            Membership.objects.create(project=project, user=user, role=role)
        self.cookies = [cookies_of(user) for user in users]
        for n in range(4):
            rows.register(f"gpu-{n}", 100 + n, queues=["gpu", "default"][n // 2 :], version="abc1234567", gpus=[],
                          memory_total=2**36, memory_used=2**34, process_memory=2**30, cpu_percent=12.0)  # fmt: skip
        checkpoints.import_checkpoint(project, str(fake_model(self.folder / "base")), "base", serve=True, verdict=FAST)
        start_sampling(project, users[0])
        settings = {"round": {"recipe": "ppo"}}
        Round.objects.update(learns=True, settings=settings, ranking_count=300, number=1)
        self.claim = lifecycle.claim(Round.objects.get().pk, "gpu-0:100")
        lifecycle.set_stage(self.claim, "policy")
        self.advance(300)
        self.beat()
        sources = [Source.objects.get(name=f"source-{n}") for n in range(2)]
        trials.start_trial(project, sources, share=25)

    def advance(self, steps: int = 1) -> None:
        """Write lines of metrics as the worker of a PPO program does."""
        from training.rounds import lifecycle

        names = ("reward", "kl", "objective", "entropy", "clip_fraction", "value_loss", "eval_reward", "eval_kl")
        lines = [
            {"step": step, "total": 5000, "time": float(step), **dict.fromkeys(names, 1 / step)}
            for step in range(self.step + 1, self.step + steps + 1)
        ]
        self.step += steps
        lifecycle.record_metrics(self.claim, "policy", lines, from_start=False)

    def beat(self) -> None:
        """Refresh the heartbeats of round and workers, as they do every few seconds."""
        from training.models import Round
        from training.rounds import lifecycle
        from training.workers import rows

        lifecycle.beat(self.claim, "\n".join(f"step {n}" for n in range(self.step, self.step + 40)))
        for n in range(4):
            rows.beat(f"gpu-{n}", 100 + n, cpu_percent=float(self.step % 90))
        assert Round.objects.get().is_active

    @contextmanager
    def serve(self) -> Iterator["Costs"]:
        port, log = free_port(), self.folder / "web.log"
        command = [sys.executable, "manage.py", "up", "--only", "web", "--port", str(port)]
        with running(command, log, folder=ROOT, environment=os.environ | {"WEB_WORKERS": "2"}) as process:
            wait_for(f"http://127.0.0.1:{port}/healthz", process, log)
            yield Costs(process.pid, self.folder, self.backend, port)


def cookies_of(user: Any) -> dict[str, str]:
    """Return the cookies of a session of this user."""
    from django.conf import settings
    from django.test import Client

    client = Client()
    client.force_login(user)
    return {settings.SESSION_COOKIE_NAME: client.cookies[settings.SESSION_COOKIE_NAME].value}


class Costs:
    """CPU time of a running service: the web service's processes, and the database's but the benchmark's own."""

    def __init__(self, web: int, folder: Path, backend: int, port: int) -> None:
        self.web, self.backend, self.port = psutil.Process(web), backend, port
        postmaster = int((cluster_of(folder) / "postmaster.pid").read_text().split()[0])
        self.database = psutil.Process(postmaster)

    def seconds(self) -> Cost:
        web = [self.web, *self.web.children(recursive=True)]
        database = [
            process
            for process in self.database.children()
            if process.pid != self.backend and "[local]" in " ".join(process.cmdline())
        ]
        return Cost(sum(map(used, web)), sum(map(used, database)))

    def measure(self, acts: dict[str, Callable[[], object]], times: int) -> dict[str, Cost]:
        """Return the CPU time per call of each, in turns, because other work on the machine changes it."""
        spent = {name: Cost(0.0, 0.0) for name in acts}
        for act in acts.values():
            for _ in range(8):
                act()  # both web workers have imported and compiled what it needs
        for _ in range(TURNS):
            for name, act in acts.items():
                before = self.seconds()
                for _ in range(times // TURNS):
                    act()
                after = self.seconds()
                web, database = after.web - before.web, after.database - before.database
                spent[name] = Cost(spent[name].web + web, spent[name].database + database)
        calls = TURNS * (times // TURNS)
        return {name: Cost(*(1000 * seconds / calls for seconds in cost)) for name, cost in spent.items()}


def used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def report(costs: Costs, world: World, requests: int) -> None:
    manager, annotator = (Browser(costs.port, cookies) for cookies in world.cookies)
    page = OurPage(annotator, address=f"{PROJECT}/rank/")
    shown = [page.open()]
    shown.append(page.next(*shown))

    def submit() -> None:
        shown.append(page.submit_with_next(shown.pop(0), *shown))

    def renew() -> None:
        annotator.post(f"{PROJECT}/rank/renew/", [("lease", shown[0].lease)], HX_Request="true")

    measured = costs.measure({"submit": submit, "renew": renew, **polls(manager, world)}, requests)
    for name, cost in measured.items():
        print(f"{name:24} {cost.sum:7.2f} ms (web {cost.web:.2f}, database {cost.database:.2f})", flush=True)
    ranking = measured["submit"].sum / RANKING_EVERY + HELD * measured["renew"].sum / RENEW_EVERY
    print(f"annotator, a ranking every {RANKING_EVERY:g} s: {ranking:.2f} ms of CPU a second")
    for name, (fastest, slowest) in PAUSES.items():
        version, content = measured[f"{name}: version"].sum, measured[f"{name}: content"].sum
        touched = CONSOLES * (version / FASTEST + content / fastest)
        untouched = CONSOLES * (version / SLOWEST + content / slowest)
        print(f"ten consoles, {name}: {untouched:.2f} ms a second untouched, {touched:.1f} while all are touched")


def polls(manager: Browser, world: World) -> dict[str, Callable[[], object]]:
    """Return what open consoles ask for, by name."""
    log = re.search(r'name="log" value="(\w+)"', manager.get(f"{ROUND}/").decode())[1]  # type: ignore[index]
    after = json.loads(manager.get(f"{ROUND}/metrics/"))["after"]

    def round_status() -> None:
        nonlocal after
        world.advance()
        answer = manager.get(f"{ROUND}/status/?log={log}&after={after}&version=", HX_Request="true").decode()
        after = json.loads(re.search(r'id="new-lines" type="application/json">(.*?)<', answer)[1])["after"]  # type: ignore[index]

    def get(path: str) -> Callable[[], object]:
        return lambda: manager.get(path, HX_Request="true")

    def version(page: str) -> Callable[[], object]:
        return get(re.search(r'data-watch="([^"]+)"', manager.get(page).decode())[1])  # type: ignore[index]

    return {
        "round: version": version(f"{ROUND}/"),
        "round: content": round_status,
        "round: samples": get(f"{ROUND}/samples/steps/?step="),
        "machines: version": version(f"{PROJECT}/machines/"),
        "machines: content": get(f"{PROJECT}/machines/"),
        "home: version": version(f"{PROJECT}/console/"),
        "home: content": get(f"{PROJECT}/console/status/"),
        "trial: version": version(f"{PROJECT}/trials/1/"),
        "trial: content": get(f"{PROJECT}/trials/1/status/"),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
