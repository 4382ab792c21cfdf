"""Import of a file of preferences with their judgements: rows per second, CPU time of both sides, growth of memory.

    python3 manage.py bench imports [--json FILE] [--rows N]

A row is a prompt of 15 words with two completions of 25 words, one of them chosen: 7 rows of the database and about 50
entries of indexes. It runs `load` on the system's PostgreSQL with its default settings. The memory is that of the
importing process, from its first stored batch to its end.
"""

import argparse
import json
import os
import random
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from config.runtime.errors import SetupError
from tests.benchmarks.arguments import at_least_one
from tests.benchmarks.peers import ROOT
from tests.benchmarks.web.cluster import cluster

WORDS = 5000  # different ones


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.file:
        print(json.dumps(measure(options.file)))
        return 0
    try:
        with tempfile.TemporaryDirectory(prefix="accord-bench-") as folder, cluster() as database:
            file = Path(folder) / "preferences.jsonl"
            write(file, options.rows)
            database.create("imports")
            ours = {"DATABASE_URL": database.address("imports"), "SECRET_KEY": secrets.token_urlsafe(50),
                    "ACCORD_DATA": folder, "DJANGO_SETTINGS_MODULE": "config.settings"}  # fmt: skip
            command = [sys.executable, "-m", "tests.benchmarks.imports", "--file", str(file)]
            done = subprocess.run(command, cwd=ROOT, env=os.environ | ours, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                raise SetupError("the import failed.")
            figures = json.loads(done.stdout.splitlines()[-1])
    except SetupError as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="manage.py bench imports")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--rows", type=at_least_one, default=1_000_000, metavar="N", help="rows of the file (1000000)")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def write(file: Path, rows: int) -> None:
    """Write preferences of random words, the same ones at each call."""
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(WORDS)]
    with file.open("w", encoding="utf-8") as stream:
        for number in range(rows):
            prompt, chosen, rejected = (" ".join(chance.choices(words, k=count)) for count in (15, 25, 25))
            row = {"prompt": f"{number} {prompt}", "chosen": chosen, "rejected": rejected}
            stream.write(json.dumps(row) + "\n")


def measure(file: Path) -> dict[str, Any]:
    """Import a file into a new database, and return the figures."""
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    from feedback.imports import Target, load, maps
    from feedback.imports.files import RowFile
    from feedback.models import Import, Project

    call_command("migrate", verbosity=0)
    project = Project.objects.create(slug="bench", name="Bench")
    record = Import.objects.create(project=project, how=Import.How.COMMAND)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        backend = cursor.fetchone()[0]
    memory: list[int] = []
    server, python, start = cpu_seconds(backend), time.process_time(), time.monotonic()
    report = load(
        RowFile(file), Target(project, record, maps.find("trl")), before_commit=lambda _share: memory.append(peak())
    )
    seconds, python = time.monotonic() - start, time.process_time() - python
    server = cpu_seconds(backend) - server
    return {
        "rows": report.imported,
        "errors": report.error_count,
        "rows_per_second": round(report.rows / seconds, 1),
        "ms_of_python_per_row": round(1000 * python / report.rows, 3),
        "ms_of_postgresql_per_row": round(1000 * server / report.rows, 3),
        "growth_of_memory_mb": round((memory[-1] - memory[0]) / 1024, 1),
        "cores": os.cpu_count(),
    }


def peak() -> int:
    """Return the highest memory of this process so far, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of another process."""
    import psutil

    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
