"""`manage.py undo_import PROJECT ID`: remove what an import made, except what is in use."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback import audit, imports
from feedback.errors import AccordError
from feedback.management import find_project


class Command(BaseCommand):
    help = "Undo an import: remove its comparisons, completions and prompts that nobody has worked on and nothing uses."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="Slug of the project.")
        parser.add_argument("import_id", type=int, help="Id that load, the API or the prompts page gave.")

    @audit.acting("undo_import", audit.Via.COMMAND)
    def handle(self, *, project: str, import_id: int, **options: Any) -> None:
        try:
            undone = imports.undo_import(imports.find_import(find_project(project), import_id), None)
        except AccordError as error:
            raise CommandError(error.message) from error
        removed = ", ".join(f"{count} {kind}" for kind, count in undone.removed.items())
        self.stdout.write(f"Removed: {removed}.")
        for kept in undone.stayed:
            self.stdout.write(kept.message)
