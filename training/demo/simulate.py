"""The whole loop without a browser: simulated annotators rank over HTTP, rounds run on the workers, the API promotes.

A cycle is labels → round → promotion → measurement. Everything goes through the running services, as it would for
people; only the keys to the API are made here, and only the measurement (gold.py) looks at the hidden utility.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from django.db import transaction

from feedback.actions import members
from feedback.actions.tokens import issue_token
from feedback.models import ApiToken, Membership, Project, User
from training.demo import gold, labelling
from training.demo.annotators import Annotator
from training.demo.client import Client
from training.demo.seed import SLUG
from training.demo.settings import comparisons_for
from training.models import Checkpoint, Round
from training.run_round import jobs

ANNOTATORS = 4
TOKEN_NAME = "demo --simulate"
LOOK_EVERY = 1.0  # seconds
REPORT_EVERY = 10.0

Report = Callable[[str], None]


class SimulationFailed(Exception):
    """What went wrong, in one sentence."""


@dataclass(frozen=True)
class Cycle:
    """What a cycle brought. Shares lie between 0 and 1; the interval is one of 95 %."""

    cycle: int
    labels: int  # rankings made in this cycle
    annotator_agreement: float | None  # of two annotators' preferences on a pair, over all rankings so far
    reward_accuracy: float | None  # on held-out prompts, against the noisy labels; none when nobody ranked any
    reward_accuracy_noiseless: float | None  # against the utility, on fresh completions by the first and last ranked
    kl: float  # nats a completion, to the checkpoint that the round started from
    gold_utility: float  # mean utility of the new checkpoint's completions, in points
    gold_win_rate_vs_base: float  # how often they beat the first checkpoint's, by utility
    gold_win_rate_low: float
    gold_win_rate_high: float
    held_out_prompts: int  # that the last four are measured on
    seconds: float


def run(base_url: str, rounds: int, labels: int, json_path: Path | None, report: Report = print) -> list[Cycle]:
    """Turn the loop `rounds` times with `labels` rankings each. Writes the JSON file anew after every cycle.

    Raises SimulationFailed with a sentence.
    """
    project = Project.objects.get(slug=SLUG)
    cycles: list[Cycle] = []
    with keys(project) as (manager_key, workers), Client(base_url, SLUG, manager_key) as manager:
        wait_for_active(project, manager, report)
        for number in range(1, rounds + 1):
            cycles.append(run_cycle(base_url, manager, workers, project, number, labels, report))
            report(sentence(cycles[-1]))
            if json_path is not None:
                json_path.write_text(json.dumps([asdict(cycle) for cycle in cycles], indent=2) + "\n", "utf-8")
    return cycles


def run_cycle(
    base_url: str,
    manager: Client,
    workers: list[labelling.Worker],
    project: Project,
    number: int,
    labels: int,
    report: Report,
) -> Cycle:
    """One cycle."""
    started = time.monotonic()
    report(f"cycle {number}: {ANNOTATORS} simulated annotators make {labels} rankings")
    made = label(base_url, manager, workers, labels, report)
    report(f"  {made} rankings in {time.monotonic() - started:.0f} s; a round starts")
    sections = {"round": {"prompts": comparisons_for(labels)}}
    finished = watch(manager, manager.start_round(sections), report)
    checkpoint = next(each for each in manager.checkpoints() if each["round"] == finished["number"])
    manager.promote(checkpoint["id"])
    report(f"  {checkpoint['name']} is served; its completions of held-out prompts are compared")
    measured = measure(project, Round.objects.get(project=project, number=finished["number"]))
    return Cycle(
        cycle=number,
        labels=made,
        annotator_agreement=manager.agreement(),
        reward_accuracy=finished["results"]["reward"]["held_out_accuracy"],
        kl=finished["results"]["policy"]["kl"],
        seconds=round(time.monotonic() - started, 1),
        **measured,
    )


def label(base_url: str, manager: Client, workers: list[labelling.Worker], labels: int, report: Report) -> int:
    """So many rankings; when comparisons run out, the served checkpoint writes more. Returns `labels`."""
    made = labelling.rank(base_url, SLUG, workers, labels)
    while made < labels:
        missing = comparisons_for(labels - made)
        report(f"  {made} rankings made, nothing left to rank: {missing} more comparisons are written")
        watch(manager, manager.start_round({"round": {"prompts": missing}}, learns=False), report)
        more = labelling.rank(base_url, SLUG, workers, labels - made)
        if more == 0:
            raise SimulationFailed("The served checkpoint writes nothing that the annotators have not ranked already.")
        made += more
    return made


def wait_for_active(project: Project, manager: Client, report: Report) -> None:
    """A round that somebody else started ends first, however it ends: a project turns one at a time."""
    for active in project.rounds.filter(status__in=Round.ACTIVE):
        report(f"round {active.number} was started before: its end is awaited")
        await_end(manager, active.number, report)


def watch(manager: Client, number: int, report: Report) -> dict[str, Any]:
    """The finished round. Raises SimulationFailed with the round's own sentence."""
    found = await_end(manager, number, report)
    if found["status"] != Round.Status.FINISHED:
        raise SimulationFailed(f"Round {number} is {found['status']}. {found['error']}\n{found['log_tail']}".strip())
    return found


def await_end(manager: Client, number: int, report: Report) -> dict[str, Any]:
    """The round once it has ended, however it did. Says now and then how far it is."""
    said = ""
    last = time.monotonic()
    while (found := manager.get_round(number))["status"] in Round.ACTIVE:
        stage = f"  round {number}: {found['stage'] if found['status'] == Round.Status.RUNNING else 'waiting'}"
        if stage != said or (found["progress"] and time.monotonic() - last > REPORT_EVERY):
            percent = f" {found['progress']['percent']:.0f} %" if found["progress"] else ""
            report(stage + percent)
            said, last = stage, time.monotonic()
        time.sleep(LOOK_EVERY)
    return found


def measure(project: Project, finished: Round) -> dict[str, Any]:
    """What the hidden utility says of the round's checkpoint, and of its reward model."""
    assert finished.checkpoint is not None, "a finished round has made one"
    folder = jobs.directory_of(finished) / "gold"  # which is this very round's: what is found there was drawn for it
    own, reward_model = finished.settings["sample"], finished.checkpoint.reward_model_path
    first, ranked = first_of(finished.checkpoint), finished.base
    new = gold.draw(project, folder / "new", finished.checkpoint.path, own)
    base = gold.draw(project, folder / "first", first.path, own, reward_model)
    judged = (
        [base] if ranked == first else [base, gold.draw(project, folder / "ranked", ranked.path, own, reward_model)]
    )
    wins = gold.win_rate(new, base)
    return {
        "reward_accuracy_noiseless": gold.noiseless_accuracy(*judged),
        "gold_utility": new.mean_utility(),
        "gold_win_rate_vs_base": wins.value,
        "gold_win_rate_low": wins.low,
        "gold_win_rate_high": wins.high,
        "held_out_prompts": len(new.utilities),
    }


def first_of(checkpoint: Checkpoint) -> Checkpoint:
    """The imported checkpoint that the line of rounds began with."""
    while checkpoint.parent is not None:
        checkpoint = checkpoint.parent
    return checkpoint


@contextmanager
def keys(project: Project) -> Iterator[tuple[str, list[labelling.Worker]]]:
    """A manager's key to the API and the simulated annotators', which are taken away again at the end."""
    manager = project.memberships.filter(role=Membership.Role.MANAGER).select_related("user").order_by("pk")[0].user
    with transaction.atomic():
        annotators = [member(project, f"simulated-{number}") for number in range(1, ANNOTATORS + 1)]
        ApiToken.objects.filter(name=TOKEN_NAME, user__in=[manager, *annotators]).delete()  # of one that was killed
        issued = [issue_token(user, TOKEN_NAME) for user in (manager, *annotators)]
    try:
        workers = [labelling.Worker(Annotator(number), key) for number, (_, key) in enumerate(issued[1:], 1)]
        yield issued[0][1], workers
    finally:
        ApiToken.objects.filter(pk__in=[token.pk for token, _ in issued]).delete()


def member(project: Project, username: str) -> User:
    """An annotator of the project who cannot sign in by password."""
    user, is_new = User.objects.get_or_create(username=username)
    if is_new:
        user.set_unusable_password()
        user.save(update_fields=["password"])
    if not project.memberships.filter(user=user).exists():
        members.add_member(project, username, Membership.Role.ANNOTATOR)
    return user


def sentence(cycle: Cycle) -> str:
    return (
        f"cycle {cycle.cycle}: labels {cycle.labels}, annotator_agreement {shown(cycle.annotator_agreement)}, "
        f"reward_accuracy {shown(cycle.reward_accuracy)}, reward_accuracy_noiseless "
        f"{shown(cycle.reward_accuracy_noiseless)}, kl {cycle.kl:.2f}, gold_utility {cycle.gold_utility:.2f}, "
        f"gold_win_rate_vs_base {cycle.gold_win_rate_vs_base:.1%} "
        f"({cycle.gold_win_rate_low:.1%} to {cycle.gold_win_rate_high:.1%}, {cycle.held_out_prompts} prompts), "
        f"seconds {cycle.seconds:.0f}"
    )


def shown(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
