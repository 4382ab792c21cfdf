"""`manage.py bench learner`, `rankings`, `web`: how fast each is beside its peers, measured by plain scripts."""

import os
import sys
from argparse import REMAINDER
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

PROGRAMS = {
    "learner": "tests.benchmarks.learner",
    "rankings": "tests.benchmarks.learner.real_rankings",
    "web": "tests.benchmarks.web",
}


class Command(BaseCommand):
    help = "Measures ours and the peers in turn; `bench learner --help` and the like tell the options."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("what", choices=list(PROGRAMS))
        parser.add_argument("options", nargs=REMAINDER, help="of that benchmark: its --help lists them")

    def handle(self, *args: Any, **options: Any) -> None:
        os.chdir(settings.BASE_DIR)
        command = [sys.executable, "-m", PROGRAMS[options["what"]], *options["options"]]
        # In this process's place, so that a signal reaches the benchmark, which then ends what it started.
        os.execv(sys.executable, command)
