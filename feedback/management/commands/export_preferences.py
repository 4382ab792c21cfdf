"""`manage.py export_preferences PROJECT > FILE`: what people said, as JSON Lines."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback.errors import AccordError
from feedback.export import preferences
from feedback.models import Project
from feedback.reports import preference_export


class Command(BaseCommand):
    help = "Write a project's preferences as JSON Lines to standard output, and the cursor to standard error."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="The project's slug.")
        parser.add_argument("--format", choices=sorted(preferences.FORMATS), default="trl")
        parser.add_argument("--after", type=int, default=0, help="Only what came after this cursor.")
        parser.add_argument(
            "--split",
            choices=preference_export.SPLITS,
            default=None,
            help="Default: train in the format trl, else all.",
        )
        parser.add_argument(
            "--weights",
            choices=preference_export.WEIGHTS,
            default=None,
            help="What a ranking counts; the project's setting unless given.",
        )
        parser.add_argument(
            "--reliability-as-of", type=int, default=None, help="Weigh by the reliability of that moment."
        )

    def handle(self, *, project: str, after: int, **options: Any) -> None:
        found = Project.objects.filter(slug=project).first()
        if found is None:
            raise CommandError(f"There is no project «{project}».")
        if after < 0:
            raise CommandError(f"--after is {after}, but a cursor is at least 0.")
        asked = {name: options[name] for name in ("split", "weights", "reliability_as_of")}
        try:
            opened = preference_export.open_export(found, options["format"], after=after, **asked)
        except AccordError as refusal:
            raise CommandError(refusal.message) from refusal
        for row in opened.rows:
            self.stdout.write(json.dumps(row, ensure_ascii=False))
        self.stderr.write(f"cursor {opened.cursor}")
        if opened.report:
            self.stderr.write(f"reliability as of {opened.report.until}")
