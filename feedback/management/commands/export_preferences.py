"""`manage.py export_preferences PROJECT > FILE`: write a project's rankings as JSON Lines."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback.errors import AccordError
from feedback.export.formats import registry
from feedback.management import find_project
from feedback.reports import preference_export


class Command(BaseCommand):
    help = "Write a project's rankings as JSON Lines to standard output, and the cursor to standard error."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="Slug of the project.")
        parser.add_argument(
            "--format",
            choices=registry.names(),
            default=preference_export.DEFAULT_FORMAT,
            help=f"Default: {preference_export.DEFAULT_FORMAT}. One line is, by format: {registry.descriptions()}",
        )
        parser.add_argument(
            "--after", type=int, default=0, help="Cursor of an earlier export: write only later rankings."
        )
        parser.add_argument(
            "--until", type=int, default=None, help="Cursor of an earlier export: write the rankings as they were then."
        )
        parser.add_argument("--split", choices=preference_export.SPLITS, default=None, help=registry.split_default())
        parser.add_argument(
            "--weights",
            choices=preference_export.WEIGHTS,
            default=None,
            help="Weight of a ranking. Default: the project's setting.",
        )
        parser.add_argument(
            "--reliability-as-of",
            type=int,
            default=None,
            help="Use the reliability report of this moment, as standard error names it. Default: the latest report.",
        )
        parser.add_argument(
            "--include-flagged",
            action="store_true",
            help='Write rankings with a flag that means "not for training", too.',
        )

    def handle(self, *, project: str, after: int, until: int | None, **options: Any) -> None:
        for name, cursor in (("after", after), ("until", until or 0)):
            if cursor < 0:
                raise CommandError(f"--{name} is {cursor}, but a cursor is at least 0.")
        parameters = {name: options[name] for name in ("split", "weights", "reliability_as_of", "include_flagged")}
        try:
            exported = preference_export.export(
                find_project(project), options["format"], after=after, until=until, **parameters
            )
        except AccordError as error:
            raise CommandError(error.message) from error
        for row in exported.rows:
            self.stdout.write(json.dumps(row, ensure_ascii=False))
        self.stderr.write(f"cursor {exported.cursor}")
        if exported.report:
            self.stderr.write(f"reliability as of {exported.report.until}")
