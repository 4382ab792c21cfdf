"""`manage.py bench learner`: how fast the learner is beside its peers, measured by plain scripts."""

import subprocess
import sys
from argparse import REMAINDER
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser


class Command(BaseCommand):
    help = "Measures ours and the peers in turn; `bench learner --help` tells the options."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("what", choices=["learner"])
        parser.add_argument("options", nargs=REMAINDER, help="of tests/benchmarks/learner")

    def handle(self, *args: Any, **options: Any) -> None:
        command = [sys.executable, "-m", f"tests.benchmarks.{options['what']}", *options["options"]]
        code = subprocess.run(command, cwd=settings.BASE_DIR).returncode
        if code:
            raise CommandError("the benchmark failed, or a claim does not hold.", returncode=code)
