"""`manage.py serve`: a project's served checkpoint behind an OpenAI-compatible API."""

import signal
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback.errors import AccordError
from feedback.models import Project
from training import serving


class Command(BaseCommand):
    help = "Serves a project's checkpoint by an OpenAI-compatible engine, and follows promotions and roll-backs."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project", help="the project's address, as in its links")
        parser.add_argument("--host", default="127.0.0.1", help="where the engine listens (127.0.0.1)")
        parser.add_argument("--port", type=int, default=8001, help="on which port (8001)")
        parser.add_argument(
            "--engine",
            default=serving.TRANSFORMERS,
            metavar="COMMAND",
            help="what serves, with {model}, {host} and {port} (%(default)s); for example: vllm serve {model} "
            "--host {host} --port {port}",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project «{options['project']}».")
        stopped: list[int] = []

        def stop(number: int, frame: FrameType | None) -> None:
            stopped.append(number)

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        engine = serving.Engine(options["engine"], options["host"], options["port"])
        try:
            serving.follow(project, engine, self.stderr.write, lambda: bool(stopped))
        except AccordError as refusal:
            raise CommandError(refusal.message) from refusal
