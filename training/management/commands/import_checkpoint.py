"""`manage.py import_checkpoint`: a model of one's own becomes a project's checkpoint."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback.errors import AccordError
from feedback.models import Project
from training import checkpoints
from training.rounds.start import start_sampling
from training.run_round.probe_model import verdict_on


class Command(BaseCommand):
    help = "Takes a causal language model into a project: a Hugging Face folder on this machine, or a hub id."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project", help="the project's address, as in its links")
        parser.add_argument("model", metavar="FOLDER_OR_HUB_ID")
        parser.add_argument("--label", required=True, metavar="NAME", help="what its completions are filed under")
        parser.add_argument("--serve", action="store_true", help="serve it from now on: rounds start from it")
        parser.add_argument("--sample", action="store_true", help="let it write completions to be ranked first")

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project «{options['project']}».")
        try:
            verdict = verdict_on(options["model"], may_fetch=True)
            if verdict.verdict == "refused":
                raise CommandError(f"{options['model']}: {verdict}")
            self.stdout.write(f"{options['model']}: {verdict}")
            imported = checkpoints.import_checkpoint(
                project, options["model"], options["label"], options["serve"], verdict=verdict
            )
            self.stdout.write(f"{imported} is imported from {imported.path}{', and served' * options['serve']}.")
            if options["sample"]:
                started = start_sampling(project, None, checkpoint=imported)
                self.stdout.write(f"Round {started.number} waits for a worker to write completions with it.")
        except AccordError as refusal:
            raise CommandError(refusal.message) from refusal
