"""`manage.py import_guard_texts`: add texts of this machine to the guard texts of a project."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback import audit
from feedback.errors import AccordError
from feedback.models import Project
from training import guard_texts


class Command(BaseCommand):
    help = "Add guard texts to a project: a JSON Lines file, or a folder with .txt, .md and .jsonl files."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project", help="Slug of the project.")
        parser.add_argument("path", type=Path, metavar="FILE_OR_FOLDER")

    @audit.acting("import_guard_texts", audit.Via.COMMAND)
    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f'There is no project "{options["project"]}".')
        try:
            added = guard_texts.add(project, guard_texts.texts_at(options["path"]), None)
        except AccordError as refusal:
            raise CommandError(refusal.message) from refusal
        self.stdout.write(f"{added.new} guard texts are new, {added.known} were there already.")
