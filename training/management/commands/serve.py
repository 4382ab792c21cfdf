"""`manage.py serve`: a project's served checkpoint behind an OpenAI-compatible API."""

import signal
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

from feedback.actions.tokens import find_token
from feedback.errors import AccordError
from feedback.models import Membership, Project
from training.serving import openai_api
from training.serving.engine import TRANSFORMERS, Engine, follow, free_port


class Command(BaseCommand):
    help = "Serves a project's checkpoint by an OpenAI-compatible engine, and follows promotions and roll-backs."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project", help="the project's address, as in its links")
        parser.add_argument("--host", default="127.0.0.1", help="where it listens (127.0.0.1)")
        parser.add_argument("--port", type=int, default=8001, help="on which port (8001)")
        parser.add_argument(
            "--token", default="", metavar="KEY", help="a key that clients may use, besides managers' API tokens"
        )
        parser.add_argument(
            "--engine",
            default=TRANSFORMERS,
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
        engine = Engine(options["engine"], "127.0.0.1", free_port())
        tokens = openai_api.Tokens(options["token"], lambda key: is_managers(project, key))
        address = (options["host"], options["port"])
        try:
            server = openai_api.Server(address, project.slug, engine, tokens.may_enter)
        except OSError as error:
            raise CommandError(f"{address[0]}:{address[1]} cannot be listened on ({error.strerror}).") from error
        server.in_background()
        self.stderr.write(f'the model "{project.slug}" answers at {address[0]}:{address[1]}/v1; a token is needed')
        try:
            follow(project, engine, self.stderr.write, lambda: bool(stopped))
        except AccordError as refusal:
            raise CommandError(refusal.message) from refusal


def is_managers(project: Project, key: str) -> bool:
    """Whether this is the API token of one of the project's managers, or of a superuser."""
    try:
        token = find_token(key)
        if token is None:
            return False
        managers = Membership.objects.filter(project=project, role=Membership.Role.MANAGER)
        return token.user.is_superuser or managers.filter(user=token.user).exists()
    finally:
        connection.close()  # of this request's own thread
