"""`manage.py demo`: a project that can be ranked at once, with a small model that is trained on this machine."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from config.management.commands.up import ALL, ServiceCommand, add_service_arguments
from config.runtime import site
from config.runtime.hosts import address_of
from config.runtime.supervisor import Supervisor, services_named
from feedback.errors import AccordError

ROUNDS, LABELS = 2, 600  # defaults of a simulation


class Command(ServiceCommand):
    help = (
        "Start Accord with two demo projects: replies and dialogues of a customer support, by small models that are "
        "trained on this machine."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add_service_arguments(parser)
        parser.add_argument(
            "--model", metavar="FOLDER_OR_HUB_ID", help="any causal language model instead of the built-in ones"
        )
        simulation = parser.add_argument_group("without a browser")
        simulation.add_argument(
            "--simulate", action="store_true", help="simulate annotators over HTTP, run rounds, print figures, stop"
        )
        simulation.add_argument("--project", metavar="NAME", help="support or support-dialogues (support)")
        simulation.add_argument("--recipe", metavar="NAME", help="recipe of the rounds (ppo)")
        simulation.add_argument("--rounds", type=int, metavar="N", help="number of rounds (2)")
        simulation.add_argument("--labels", type=int, metavar="N", help="rankings before each round (600)")
        simulation.add_argument(
            "--round-settings", metavar="JSON", help='settings that differ, such as {"round": {"reward_start": "last"}}'
        )
        simulation.add_argument("--json", type=Path, metavar="FILE", help="file to write the figures of each cycle to")

    def handle(self, *args: Any, **options: Any) -> None:
        from training.demo import seed

        check_simulation(options)
        with errors_as_command_errors():
            site.prepare(self.report)
            accounts = seed.prepare(model=options["model"], report=self.report)
            address = address_of(options["host"], options["port"])
            supervisor = Supervisor(services_named(ALL.split(","), options["host"], options["port"]), self.report)
            supervisor.run(address, self.work(address, options, accounts, supervisor))
        if options["simulate"] and supervisor.was_interrupted:
            raise CommandError("the simulation was stopped before its end.", returncode=130)

    def work(
        self, address: str, options: dict[str, Any], accounts: "list[Any]", supervisor: Supervisor
    ) -> Callable[[], None]:
        """Return the work to do once the services answer: run the simulation, or print the accounts and watch."""

        def simulate() -> None:
            from training.demo import simulate
            from training.demo.projects import SUPPORT
            from training.rounds.recipes import DEFAULT

            rounds, labels = options["rounds"] or ROUNDS, options["labels"] or LABELS
            recipe, slug = options["recipe"] or DEFAULT, options["project"] or SUPPORT.slug
            changes = json.loads(options["round_settings"] or "{}")
            simulate.run(address, rounds, labels, options["json"], self.report, recipe, slug, changes)

        def greet() -> None:
            self.report(f"\nAccord runs at {address}   (Ctrl-C stops it)\n")
            for account in accounts:
                self.report(f"  {account.role:<10} {account.username:<10} password {account.password}")
            supervisor.watch()

        return simulate if options["simulate"] else greet


@contextmanager
def errors_as_command_errors() -> Iterator[None]:
    """Turn the errors of the loop into CommandError, which is printed as one sentence."""
    from training.demo import client, seed, simulate
    from training.run_round.process import ProgramFailed

    try:
        yield
    except AccordError as refusal:
        raise CommandError(refusal.message) from refusal
    except ProgramFailed as failure:
        raise CommandError(f"{failure}\n{failure.log_tail}".strip()) from failure
    except (client.Refused, seed.RoundFailed, simulate.SimulationFailed) as failure:
        raise CommandError(str(failure)) from failure


def check_simulation(options: dict[str, Any]) -> None:
    """Raise CommandError for options that do not fit together, before anything slow is done."""
    from training.demo.projects import PROJECTS, SUPPORT
    from training.demo.simulate import recipes_to_simulate

    for name in ("project", "recipe", "rounds", "labels", "round_settings", "json"):
        if options[name] is not None and not options["simulate"]:
            raise CommandError(f"--{name.replace('_', '-')} is an option of the simulation: use it with --simulate.")
    for name in ("rounds", "labels"):
        if options[name] is not None and options[name] < 1:
            raise CommandError(f"--{name} is {options[name]}: the minimum is 1.")
    if (slug := options["project"] or SUPPORT.slug) not in PROJECTS:
        raise CommandError(f'--project is "{slug}": projects of the demo are {", ".join(PROJECTS)}.')
    if options["recipe"] is not None and options["recipe"] not in (known := recipes_to_simulate(slug)):
        raise CommandError(
            f'--recipe is "{options["recipe"]}": recipes that learn from rankings of "{slug}" are {", ".join(known)}.'
        )
    if options["round_settings"] is not None:
        check_settings(options["round_settings"], slug, options["recipe"])
    if options["json"] is not None and not options["json"].resolve().parent.is_dir():
        raise CommandError(
            f"--json names a file in {options['json'].resolve().parent}, which is not a folder: choose another file."
        )


def check_settings(text: str, slug: str, recipe: str | None) -> None:
    """Raise CommandError unless the text is JSON of settings that rounds of this project and recipe can have."""
    from training.demo.projects import PROJECTS
    from training.demo.simulate import sections_of_round
    from training.rounds import settings as round_settings
    from training.rounds.recipes import DEFAULT, RECIPES

    try:
        changes = json.loads(text)
    except ValueError as error:
        raise CommandError(f"--round-settings is not JSON: {error}.") from error
    with errors_as_command_errors():
        round_settings.check_sections(changes, RECIPES[recipe or DEFAULT])
        if "recipe" in changes.get("round", {}):
            raise CommandError("--round-settings has a recipe: choose the recipe with --recipe.")
        round_settings.resolve(PROJECTS[slug].round, sections_of_round(recipe or DEFAULT, 1, changes), seed=0)
