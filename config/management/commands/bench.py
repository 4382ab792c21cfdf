"""`manage.py bench learner`, `rankings`, `web`, …: measure speed, and compare it and results with other software."""

import os
import sys
from argparse import REMAINDER
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

PROGRAMS = {
    "imports": "tests.benchmarks.imports",
    "learner": "tests.benchmarks.learner",
    "ratings": "tests.benchmarks.ratings",
    "rankings": "tests.benchmarks.learner.real_rankings",
    "web": "tests.benchmarks.web",
}


class Command(BaseCommand):
    help = "Measure Accord and its peers in turn. `bench learner --help` lists the options of that benchmark."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("what", choices=list(PROGRAMS))
        parser.add_argument("options", nargs=REMAINDER, help="options of the benchmark (--help lists them)")

    def handle(self, *args: Any, **options: Any) -> None:
        os.chdir(settings.BASE_DIR)
        command = [sys.executable, "-m", PROGRAMS[options["what"]], *options["options"]]
        # Replace this process, so that a signal reaches the benchmark, which then ends the processes it started.
        os.execv(sys.executable, command)
