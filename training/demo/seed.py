"""Creation of the demo's projects. Existing parts are not changed."""

from collections.abc import Callable
from pathlib import Path
from time import sleep

from django.conf import settings
from django.db import transaction

from feedback import audit, imports
from feedback.actions import members, projects
from feedback.models import Project, User
from training import checkpoints
from training.checkpoints.files import check_model
from training.demo import base_model
from training.demo.accounts import Account, prepare_accounts
from training.demo.projects import PROJECTS, DemoProject
from training.models import Checkpoint, LoopSettings, Round
from training.rounds import lifecycle
from training.rounds.settings import Sections
from training.rounds.start import start_sampling
from training.run_round import run_round
from training.run_round.probe_model import verdict_on

HELD_OUT_PERCENT = 20  # of the prompts, that nothing is trained on

Report = Callable[[str], None]


@audit.acting("demo", audit.Via.COMMAND)
def prepare(model: str | None = None, report: Report = print) -> list[Account]:
    """Create the demo's members, prompts, served models and first comparisons, and return the accounts.

    `model` is another causal language model to start from: a folder or a hub id. A second call adds only what is
    missing. Raises AccordError, ProgramFailed or RoundFailed.
    """
    accounts = prepare_accounts(settings.DATA_DIR / "demo" / "accounts.json")
    for demo in PROJECTS.values():
        project = prepare_project(demo, accounts, report)
        served = prepare_checkpoint(demo, project, model, report)
        if not demo.has_completions:
            write_first_completions(project, served, report)
    return accounts


@transaction.atomic
def prepare_project(demo: DemoProject, accounts: list[Account], report: Report) -> Project:
    """Return the project; create it with its members and prompts if need be."""
    if existing := Project.objects.filter(slug=demo.slug).first():
        return existing
    report(f'creating the demo project "{demo.name}"')
    manager = next(account for account in accounts if account.role == "manager")
    owner = User.objects.get(username=manager.username)
    project = projects.create_project(
        owner,
        Project(
            slug=demo.slug,
            name=demo.name,
            guidelines=Path(__file__).with_name(demo.guidelines).read_text("utf-8"),
            held_out_percent=HELD_OUT_PERCENT,
            wanted_rankings=demo.wanted_rankings,
        ),
    )
    for account in accounts:
        if account.role != "manager":
            members.add_member(project, account.username, account.role)
    imports.add_prompts(project, demo.rows(), compare=demo.has_completions)
    return project


def prepare_checkpoint(demo: DemoProject, project: Project, model: str | None, report: Report) -> Checkpoint:
    """Return the checkpoint of `model`, else the served one, else the built-in one, which is trained now."""
    if model is not None:
        return serve(project, check_model(model), Path(model).name, demo.round_of_other_models)
    if served := project.checkpoints.filter(is_served=True).first():
        return served
    directory = settings.DATA_DIR / "demo" / demo.base_folder
    folder = base_model.train(directory, report, demo.demonstrations, **demo.base_settings)
    return serve(project, str(folder), "base", demo.round)


def serve(project: Project, path: str, label: str, sections: Sections) -> Checkpoint:
    """Return the checkpoint of this folder; import and serve it at the first call, and set the loop to `sections`."""
    path = str(Path(path).resolve())
    if existing := project.checkpoints.filter(path=path).first():
        return existing
    verdict = verdict_on(path)
    with transaction.atomic():
        LoopSettings.objects.update_or_create(project=project, defaults={"settings": sections})
        imported = checkpoints.import_checkpoint(project, path, label, serve=True, verdict=verdict)
        checkpoints.check_usable(imported)
    return imported


def write_first_completions(project: Project, served: Checkpoint, report: Report) -> None:
    """Run a round without training in this process, in which the checkpoint writes the first completions to rank."""
    if served.source.completions.exists():
        return
    report("writing the first completions to rank")
    round_ = project.rounds.filter(base=served, learns=False).order_by("number").last()
    if round_ is not None:
        wait_for_worker(round_)
    if round_ is None or round_.status == Round.Status.FINISHED:
        round_ = start_sampling(project, None, checkpoint=served)
    elif round_.status in (Round.Status.FAILED, Round.Status.CANCELLED):
        lifecycle.resume(round_)
    run_round.run(round_.pk)
    wait_for_worker(round_)
    if round_.status != Round.Status.FINISHED:
        raise RoundFailed(round_.error or f"Round {round_.number} is {round_.status}.")


def wait_for_worker(round_: Round) -> None:
    """Wait until no worker runs the round. A round whose worker was killed counts as lost after 30 s."""
    round_.refresh_from_db()
    while round_.status == Round.Status.RUNNING:
        sleep(1)
        lifecycle.sweep_lost()
        round_.refresh_from_db()


class RoundFailed(Exception):
    """The first round failed; the message is the error of the round."""
