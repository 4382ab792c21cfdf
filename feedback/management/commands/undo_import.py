"""`manage.py undo_import PROJECT ID`: remove what an import made, as far as nobody has worked on it."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback import imports
from feedback.errors import AccordError
from feedback.models import Project


class Command(BaseCommand):
    help = "Undo an import: remove its comparisons, completions and prompts that nobody has worked on or uses."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="The project's slug.")
        parser.add_argument("import_id", type=int, help="As import_prompts, the API and the prompts page give it.")

    def handle(self, *, project: str, import_id: int, **options: Any) -> None:
        found = Project.objects.filter(slug=project).first()
        if found is None:
            raise CommandError(f'There is no project "{project}".')
        try:
            undone = imports.undo_import(imports.find_import(found, import_id), None)
        except AccordError as error:
            raise CommandError(error.message) from error
        removed = ", ".join(f"{number} {kind}" for kind, number in undone.removed.items())
        self.stdout.write(f"Removed: {removed}.")
        for kept in undone.stayed:
            self.stdout.write(kept.message)
