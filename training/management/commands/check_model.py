"""`manage.py check_model`: check a model's folder before its import."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from training.run_round.probe_model import verdict_on


class Command(BaseCommand):
    help = (
        "Load a model and print how it is computed here: exact and fast, exact by the generic path, or refused with a "
        "reason. This needs memory for the weights in float32. The exit status is 1 if the model is refused."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", metavar="FOLDER", help="a Hugging Face folder on this machine")

    def handle(self, *args: Any, **options: Any) -> None:
        folder = options["folder"]
        # A bare name is a folder here: it must not be looked up as a hub id.
        path = str(Path.cwd() / folder) if Path(folder).name == folder else folder
        verdict = verdict_on(path)
        if verdict.verdict == "refused":
            raise CommandError(f"{folder}: {verdict}")
        self.stdout.write(f"{folder}: {verdict}")
