"""`manage.py up`: start Accord."""

import shlex
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandParser

from config.runtime import site
from config.runtime.first_administrator import make_first_administrator
from config.runtime.hosts import address_of
from config.runtime.supervisor import Supervisor, services_named

ALL = "web,default,gpu,beat"


def add_service_arguments(parser: CommandParser) -> None:
    """Add the options of `up` and `demo`; config/runtime/services.py reads them before Django starts."""
    parser.add_argument("--host", default="127.0.0.1", help="address on which the web service listens (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port of the web service (8000)")
    parser.add_argument("--data", metavar="DIR", help="data folder (default: ACCORD_DATA, or var/)")


def first_account_command() -> str:
    """Return the command that makes an account in this database, for another terminal."""
    words = ["python3", "manage.py", "createsuperuser"]
    if settings.EMBEDDED_DATABASE and settings.DATA_DIR != settings.BASE_DIR / "var":
        words += ["--data", str(settings.DATA_DIR)]
    return shlex.join(words)


class ServiceCommand(BaseCommand):
    """Base class of `up` and `demo`."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        # An abbreviation such as --dat for --data would be accepted here, but not read before Django starts.
        return super().create_parser(prog_name, subcommand, allow_abbrev=False, **kwargs)

    def report(self, sentence: str) -> None:
        self.stderr.write(sentence, self.style.NOTICE)


class Command(ServiceCommand):
    help = "Start the web service, the workers and beat, and the embedded PostgreSQL unless DATABASE_URL is set."

    def add_arguments(self, parser: CommandParser) -> None:
        add_service_arguments(parser)
        parser.add_argument(
            "--only",
            default=ALL,
            metavar="NAMES",
            help=f"comma-separated services to run on this machine ({ALL})",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        names = [name.strip() for name in options["only"].split(",") if name.strip()]
        supervisor = Supervisor(services_named(names, options["host"], options["port"]), self.report)
        site.prepare(self.report, serves_pages="web" in names)
        make_first_administrator(self.report)
        address = address_of(options["host"], options["port"])
        # Checked here: a query in greet_and_watch would end Accord while the database is being restarted.
        has_accounts = get_user_model().objects.exists()
        self.report("starting the services")

        def greet_and_watch() -> None:
            if "web" in names:
                self.report(f"\nAccord runs at {address}   (Ctrl-C stops it)\n")
            else:
                self.report(f"\nrunning here: {', '.join(names)}   (Ctrl-C stops it)\n")
            if "web" in names and not has_accounts:
                self.report(f"there is no account yet: create the first one with `{first_account_command()}`")
            supervisor.watch()

        supervisor.run(address, greet_and_watch)
