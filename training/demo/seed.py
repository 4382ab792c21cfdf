"""Fills an empty Accord with the demo project; what is there already stays as it is."""

from collections.abc import Callable
from pathlib import Path
from time import sleep

from django.conf import settings
from django.db import transaction

from feedback import imports
from feedback.actions import members, projects
from feedback.models import Project, User
from training import checkpoints
from training.checkpoints.files import check_model
from training.demo import base_model, grammar
from training.demo.accounts import Account, prepare_accounts
from training.demo.settings import ROUND, ROUND_OF_OTHER_MODELS
from training.models import Checkpoint, LoopSettings, Round
from training.rounds import lifecycle
from training.rounds.settings import Sections
from training.rounds.start import start_sampling
from training.run_round import run_round
from training.run_round.probe_model import verdict_on

SLUG = "support"
PROMPTS = 1600
HELD_OUT_PERCENT = 20  # some 320 prompts that nothing is ever trained on
PROMPT_SEED = 1  # apart from the base model's demonstrations

Report = Callable[[str], None]


def prepare(model: str | None = None, report: Report = print) -> list[Account]:
    """The demo project, ready to be ranked: its people, prompts, served model and first comparisons.

    `model` names another causal language model to start from, a folder or a hub id. Calling it again changes nothing
    but what is still missing. Raises errors of feedback and training with a sentence.
    """
    accounts = prepare_accounts(settings.DATA_DIR / "demo" / "accounts.json")
    project = prepare_project(accounts, report)
    served = prepare_checkpoint(project, model, report)
    write_first_completions(project, served, report)
    return accounts


@transaction.atomic
def prepare_project(accounts: list[Account], report: Report) -> Project:
    """The project with its members and prompts."""
    if found := Project.objects.filter(slug=SLUG).first():
        return found
    report("making the demo project")
    owner = User.objects.get(username=next(each.username for each in accounts if each.role == "manager"))
    project = projects.create_project(
        owner,
        Project(
            slug=SLUG,
            name="Support replies",
            guidelines=Path(__file__).with_name("guidelines.md").read_text("utf-8"),
            held_out_percent=HELD_OUT_PERCENT,
        ),
    )
    for account in accounts:
        if account.role != "manager":
            members.add_member(project, account.username, account.role)
    imports.add_prompts(project, [{"prompt": each.text} for each in grammar.messages(PROMPT_SEED, PROMPTS)])
    return project


def prepare_checkpoint(project: Project, model: str | None, report: Report) -> Checkpoint:
    """The checkpoint to start from: the one that is served; the model asked for; or the built-in one, trained now."""
    if model is not None:
        return serve(project, check_model(model), Path(model).name, ROUND_OF_OTHER_MODELS)
    if found := project.checkpoints.filter(is_served=True).first():
        return found
    folder = base_model.train(settings.DATA_DIR / "demo" / "base", report)
    return serve(project, str(folder), "base", ROUND)


def serve(project: Project, path: str, label: str, sections: Sections) -> Checkpoint:
    """The checkpoint of this folder, imported and served at its first mention, with the settings that suit it."""
    path = str(Path(path).resolve())
    if found := project.checkpoints.filter(path=path).first():
        return found
    verdict = verdict_on(path)
    with transaction.atomic():
        LoopSettings.objects.update_or_create(project=project, defaults={"settings": sections})
        imported = checkpoints.import_checkpoint(project, path, label, serve=True, verdict=verdict)
        checkpoints.check_usable(imported)
    return imported


def write_first_completions(project: Project, served: Checkpoint, report: Report) -> None:
    """A round that learns nothing: the checkpoint answers prompts, to be ranked. Done in this process, once."""
    if served.source.completions.exists():
        return
    report("writing the first completions to rank")
    found = project.rounds.filter(base=served, learns=False).order_by("number").last()
    if found is not None:
        wait_for_its_worker(found)
    if found is None or found.status == Round.Status.FINISHED:
        found = start_sampling(project, None, checkpoint=served)
    elif found.status in (Round.Status.FAILED, Round.Status.CANCELLED):
        lifecycle.resume(found)
    run_round.run(found.pk)
    wait_for_its_worker(found)
    if found.status != Round.Status.FINISHED:
        raise RoundFailed(found.error or f"Round {found.number} is {found.status}.")


def wait_for_its_worker(round_: Round) -> None:
    """Until nobody runs the round: one that was killed in the middle counts as lost after half a minute."""
    round_.refresh_from_db()
    while round_.status == Round.Status.RUNNING:
        sleep(1)
        lifecycle.sweep_lost()
        round_.refresh_from_db()


class RoundFailed(Exception):
    """The message is the round's own sentence."""
