"""`manage.py check_model`: whether a model's folder can be used, and how fast, before it is imported."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from training.run_round.probe_model import verdict_on


class Command(BaseCommand):
    help = (
        "Prints how a model is computed here: exact and fast, exact by the generic path, or refused and why. "
        "Loads it, so there must be memory for its weights in float32. The exit status is 1 when it is refused."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", metavar="FOLDER", help="a Hugging Face folder on this machine")

    def handle(self, *args: Any, **options: Any) -> None:
        given = options["folder"]
        path = str(Path.cwd() / given) if Path(given).name == given else given  # never a hub id
        verdict = verdict_on(path)
        if verdict.verdict == "refused":
            raise CommandError(f"{given}: {verdict}")
        self.stdout.write(f"{given}: {verdict}")
