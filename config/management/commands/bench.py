"""`manage.py bench learner`, `manage.py bench web`: how fast each is beside its peers, measured by plain scripts."""

import os
import sys
from argparse import REMAINDER
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser


class Command(BaseCommand):
    help = "Measures ours and the peers in turn; `bench learner --help` and `bench web --help` tell the options."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("what", choices=["learner", "web"])
        parser.add_argument("options", nargs=REMAINDER, help="of tests/benchmarks/learner or tests/benchmarks/web")

    def handle(self, *args: Any, **options: Any) -> None:
        os.chdir(settings.BASE_DIR)
        command = [sys.executable, "-m", f"tests.benchmarks.{options['what']}", *options["options"]]
        # In this process's place, so that a signal reaches the benchmark, which then ends what it started.
        os.execv(sys.executable, command)
