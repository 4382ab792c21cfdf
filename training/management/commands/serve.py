"""`manage.py serve`: serve a project's checkpoint with an OpenAI-compatible API."""

import signal
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

from feedback.actions.tokens import find_token
from feedback.api.scopes import CHAT
from feedback.errors import AccordError
from feedback.models import Membership, Project
from training.serving import openai_api
from training.serving.engine import TRANSFORMERS, Engine, follow, free_port


class Command(BaseCommand):
    help = "Serve a project's checkpoint with an OpenAI-compatible API. Promotions and roll-backs restart the engine."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project", help="Slug of the project.")
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
        parser.add_argument("--port", type=int, default=8001, help="port to listen on (default: 8001)")
        parser.add_argument(
            "--token", default="", metavar="KEY", help="an access key for clients, in addition to managers' API tokens"
        )
        parser.add_argument(
            "--engine",
            default=TRANSFORMERS,
            metavar="COMMAND",
            help="command of the engine, with {model}, {host} and {port} (default: %(default)s); for example: "
            "vllm serve {model} --host {host} --port {port}",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f'There is no project "{options["project"]}".')
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
            raise CommandError(
                f"Cannot listen on {address[0]}:{address[1]} ({error.strerror}): use another --host or --port."
            ) from error
        server.in_background()
        self.stderr.write(
            f'the model "{project.slug}" is served at {address[0]}:{address[1]}/v1; requests need a token'
        )
        try:
            follow(project, engine, self.stderr.write, lambda: bool(stopped))
        except AccordError as refusal:
            raise CommandError(refusal.message) from refusal


def is_managers(project: Project, key: str) -> bool:
    """Return whether the key is the API token of one of the project's managers or of a superuser."""
    try:
        token = find_token(key)
        if token is None or not (token.scopes is None or CHAT in token.scopes):
            return False
        if token.project_ids is not None and project.pk not in token.project_ids:
            return False
        managers = Membership.objects.filter(project=project, role=Membership.Role.MANAGER)
        return token.user.is_superuser or managers.filter(user=token.user).exists()
    finally:
        connection.close()  # each request has a thread, and each thread its own database connection
