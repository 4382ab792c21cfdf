"""`manage.py export_preferences PROJECT > FILE`: what people said, as JSON Lines."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback import export
from feedback.models import Project, Prompt


class Command(BaseCommand):
    help = "Write a project's preferences as JSON Lines to standard output, and the cursor to standard error."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="The project's slug.")
        parser.add_argument("--format", choices=sorted(export.FORMATS), default="trl")
        parser.add_argument("--after", type=int, default=0, help="Only what came after this cursor.")
        parser.add_argument("--split", choices=Prompt.Split.values, default=None)

    def handle(self, *, project: str, after: int, split: str | None, **options: Any) -> None:
        found = Project.objects.filter(slug=project).first()
        if found is None:
            raise CommandError(f"There is no project «{project}».")
        until = export.sequence_cutoff(found)
        for row in export.FORMATS[options["format"]](found, after, until, split=split):
            self.stdout.write(json.dumps(row, ensure_ascii=False))
        self.stderr.write(f"cursor {until}")
