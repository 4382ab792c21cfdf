"""`manage.py check_model`: whether a model's folder can be used, and how fast, before it is imported."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback.errors import AccordError
from training.checkpoint_files import check_model
from training.run_round.probe_model import probe


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
        try:
            verdict = probe(check_model(path, may_fetch=False))
        except AccordError as refusal:
            raise CommandError(f"{given}: refused: {refusal.message}") from refusal
        if verdict.verdict == "refused":
            raise CommandError(f"{given}: {verdict}")
        self.stdout.write(f"{given}: {verdict}")
