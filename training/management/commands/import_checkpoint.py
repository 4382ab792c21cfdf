"""`manage.py import_checkpoint`: import a model as a checkpoint of a project."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback import audit
from feedback.errors import AccordError
from feedback.models import Project
from training import checkpoints
from training.rounds.start import start_sampling
from training.run_round.probe_model import verdict_on


class Command(BaseCommand):
    help = "Import a causal language model into a project: a Hugging Face folder on this machine, or a hub id."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project", help="Slug of the project.")
        parser.add_argument("model", metavar="FOLDER_OR_HUB_ID")
        parser.add_argument(
            "--label", required=True, metavar="NAME", help="name of the checkpoint, and source of its completions"
        )
        parser.add_argument("--serve", action="store_true", help="serve it: rounds start from it")
        parser.add_argument(
            "--sample", action="store_true", help="start a round in which it writes completions to rank"
        )

    @audit.acting("import_checkpoint", audit.Via.COMMAND)
    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f'There is no project "{options["project"]}".')
        try:
            verdict = verdict_on(options["model"], may_fetch=True)
            if verdict.verdict == "refused":
                raise CommandError(f"{options['model']}: {verdict}")
            self.stdout.write(f"{options['model']}: {verdict}")
            imported = checkpoints.import_checkpoint(
                project, options["model"], options["label"], options["serve"], verdict=verdict
            )
            self.stdout.write(f"{imported} is imported from {imported.path}{', and is served' * options['serve']}.")
            if options["sample"]:
                started = start_sampling(project, None, checkpoint=imported)
                self.stdout.write(f"Round {started.number} waits for a worker, and writes completions to rank.")
        except AccordError as refusal:
            raise CommandError(refusal.message) from refusal
