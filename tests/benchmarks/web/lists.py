"""Benchmark of the lists of all data: CPU time of web service and database per page, at a million rows.

    python -m tests.benchmarks.web.lists [--rows N] [--requests N] [--folder FOLDER] [--only WORD]

It needs no other product. The web service is that of `manage.py up --only web` on an embedded database, in a temporary
folder, or in one that is kept for the next run. Filling it takes some ten minutes.
"""

import argparse
import atexit
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote_plus

from config.runtime import postgres, services
from tests.benchmarks.peers import ROOT
from tests.benchmarks.web import list_rows
from tests.benchmarks.web.browser import Browser
from tests.benchmarks.web.consoles import Costs, cookies_of
from tests.benchmarks.web.processes import free_port, running, wait_for

SLUG = "bench"
WORDS = {"in30": "30 %", "in10": "10 %", "in3": "3 %", "in1": "1 %", "in01": "0.1 %", "nowhere": "no row"}
PHRASES = ("in30 in10", '"in30 in10"', '"in10 in30"', "in10 in3", '"in3 in10"', "in3 in1", "in10 -in30", "in1 or in01")
LISTS = (
    "prompts/",
    *(f"data/{name}/" for name in ("completions", "comparisons", "rankings", "demonstrations", "skips")),
)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.benchmarks.web.lists")
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="rows of a list (1,000,000)")
    parser.add_argument("--requests", type=int, default=40, metavar="N", help="requests of each page (40)")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="data folder to keep (a temporary one)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only addresses with this text")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="accord-bench-") as name:
        folder = (options.folder or Path(name)).resolve()
        os.environ |= {"ACCORD_DATA": str(folder), "SECRET_KEY": secrets.token_urlsafe(50), "LOG_LEVEL": "WARNING"}
        os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
        services.make_private(folder)
        services.use_database(folder)
        try:
            with serve(folder, prepare(options.rows)) as (costs, browser):
                report(costs, browser, options)
        finally:
            postgres.leave(folder)
            atexit.unregister(postgres.leave)  # a temporary folder will be gone
    return 0


def prepare(rows: int) -> dict[str, str]:
    """Fill the database, unless it is full already, and return the cookies of a manager."""
    import django

    django.setup()
    from django.core.management import call_command

    from feedback.models import Membership, Project, Source, User

    call_command("migrate", verbosity=0)
    manager, _ = User.objects.get_or_create(username="manager")
    if not Project.objects.exists():
        project = Project.objects.create(slug=SLUG, name="Bench", guidelines="Be *kind*.")
        Membership.objects.create(project=project, user=manager, role="manager")
        sources = [
            Source.objects.create(project=project, name=f"source-{n}", kind="import") for n in range(list_rows.SOURCES)
        ]
        people = [User.objects.create(username=f"person-{n}") for n in range(list_rows.PEOPLE)]
        Membership.objects.bulk_create(Membership(project=project, user=user) for user in people)
        list_rows.write(project.pk, sources[0].pk, people[0].pk, rows)
    return cookies_of(manager)


@contextmanager
def serve(folder: Path, cookies: dict[str, str]) -> Iterator[tuple[Costs, Browser]]:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (backend,) = cursor.fetchone()
    port, log = free_port(), folder / "web.log"
    command = [sys.executable, "manage.py", "up", "--only", "web", "--port", str(port)]
    with running(command, log, folder=ROOT, environment=os.environ | {"WEB_WORKERS": "1"}) as process:
        wait_for(f"http://127.0.0.1:{port}/healthz", process, log)
        yield Costs(process.pid, folder, backend, port), Browser(port, cookies)


def report(costs: Costs, browser: Browser, options: argparse.Namespace) -> None:
    for path in (path for path in addresses() if options.only in path):
        act = partial(browser.get, f"/projects/{SLUG}/{path}")
        cost = costs.measure({path: act}, options.requests)[path]
        print(f"{path:60} {cost.sum:7.1f} ms (web {cost.web:.1f}, database {cost.database:.1f})", flush=True)


def addresses() -> Iterator[str]:
    """Yield the addresses of first pages: plain, filtered, searched."""
    yield from LISTS
    yield from (f"{path}?sort=oldest" for path in LISTS)
    for path in LISTS:
        yield from (f"{path}?search={quote_plus(typed)}" for typed in (*WORDS, *PHRASES))
    yield from ("prompts/?split=held_out&search=in1", "data/completions/?source=source-3")
    yield from (f"data/completions/?source=source-3&search={word}" for word in WORDS)
    yield from (f"data/comparisons/?state={state}" for state in ("open", "ranked", "disagreement", "adjudicated"))
    yield from (f"data/comparisons/?sort=disagreement&search={word}" for word in ("", *WORDS))
    yield from (f"data/rankings/?flag={flag}" for flag in ("all+bad", "unsafe"))
    yield from ("data/rankings/?annotator=person-3", "data/rankings/?has_comment=on", "data/skips/?has_reason=on")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
