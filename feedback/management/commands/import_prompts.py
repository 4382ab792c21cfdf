"""`manage.py import_prompts PROJECT FILE`: import prompts from a file of JSON Lines, all or none."""

from argparse import ArgumentParser, BooleanOptionalAction
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback import imports
from feedback.errors import Invalid
from feedback.management import find_project
from feedback.models import Import

MAX_BYTES = 4 * 1024**3  # more than an upload may have: whoever runs the command is trusted


class Command(BaseCommand):
    help = "Import prompts, and the completions that come with them, from a file of JSON Lines."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="Slug of the project.")
        parser.add_argument("file", type=Path, help="JSON Lines; docs/data-and-api.md describes a line.")
        parser.add_argument(
            "--compare",
            action=BooleanOptionalAction,
            default=True,
            help="Make a comparison of each line's completions (default).",
        )
        parser.add_argument(
            "--again", action="store_true", help="Make a comparison even where the same completions have one."
        )

    def handle(self, *, project: str, file: Path, compare: bool, again: bool, **options: Any) -> None:
        target = find_project(project)
        try:
            with file.open("rb") as lines, imports.record_import(target, str(Import.How.COMMAND)) as record:
                rows = imports.read_lines(lines, MAX_BYTES)
                added = imports.add_prompts(target, rows, compare=compare, again=again, made_by_import=record)
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error.strerror}.") from error
        except Invalid as error:
            for bad_line in error.details.get("errors", []):
                self.stderr.write(f"line {bad_line['line']}: {bad_line['message']}")
            raise CommandError(error.message) from error
        known = len(set(added.prompt_ids)) - added.created
        self.stdout.write(
            f"{added.created} new prompts, {known} known already ({added.changed} completed); "
            f"{added.compared} comparisons, {added.compared_before} there already."
        )
        if record.pk is not None:
            self.stdout.write(f"Undo it with: manage.py undo_import {project} {record.pk}")
