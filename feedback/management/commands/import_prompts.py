"""`manage.py import_prompts PROJECT FILE`: prompts from a file of JSON Lines, all or none."""

from argparse import ArgumentParser, BooleanOptionalAction
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback import imports
from feedback.errors import Invalid
from feedback.models import Import, Project

MOST_BYTES = 4 * 1024**3  # a file on this machine is not a stranger's upload


class Command(BaseCommand):
    help = "Add prompts, and the completions they come with, from a file of JSON Lines."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="The project's slug.")
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--compare",
            action=BooleanOptionalAction,
            default=True,
            help="Make a comparison of each row's completions (the default).",
        )
        parser.add_argument("--again", action="store_true", help="Compare even what is compared already.")

    def handle(self, *, project: str, file: Path, compare: bool, again: bool, **options: Any) -> None:
        found = Project.objects.filter(slug=project).first()
        if found is None:
            raise CommandError(f"There is no project «{project}».")
        try:
            with file.open("rb") as lines, imports.record_import(found, str(Import.How.COMMAND)) as record:
                rows = imports.read_lines(lines, MOST_BYTES)
                added = imports.add_prompts(found, rows, compare=compare, again=again, made_by_import=record)
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error.strerror}.") from error
        except Invalid as error:
            for each in error.details.get("errors", []):
                self.stderr.write(f"line {each['line']}: {each['message']}")
            raise CommandError(error.message) from error
        known = len(set(added.prompt_ids)) - added.created
        self.stdout.write(
            f"{added.created} new prompts, {known} known already ({added.changed} completed); "
            f"{added.compared} comparisons, {added.compared_before} there already."
        )
        if record.pk is not None:
            self.stdout.write(f"Undo it with: manage.py undo_import {project} {record.pk}")
