"""Simulation of the loop: annotators rank through the API, workers run rounds, the API promotes.

A cycle is labels → round → blind trial → promotion → measurement. It uses the running services through HTTP, as people
do. Only the API tokens are created directly, and only the measurement (`gold`) reads the hidden utility.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from django.db import transaction

from feedback.actions import members
from feedback.actions.tokens import issue_token
from feedback.models import ApiToken, Membership, Project, Trial, User
from training import gate, trials
from training.demo import gold, labelling
from training.demo.annotators import Annotator
from training.demo.client import Client
from training.demo.projects import PROJECTS, SUPPORT, DemoProject
from training.demo.settings import OF_RECIPES, comparisons_for
from training.models import Round
from training.rounds import settings as round_settings
from training.rounds import simulated_user
from training.rounds.recipes import DEFAULT, RECIPES
from training.rounds.recipes.description import RANKINGS, Counts, Sections
from training.rounds.recipes.trial import NAME as TRIAL
from training.run_round import jobs

ANNOTATORS = 4
TOKEN_NAME = "demo --simulate"
POLL_SECONDS = 1.0
REPORT_EVERY = 10.0  # seconds
# Figures of a cycle whose two checkpoints wrote the same texts, so that there was nothing to compare.
IDENTICAL = {
    "trial_win_rate": None,
    "trial_low": None,
    "trial_high": None,
    "trial_votes": 0,
    "trial_decision": "identical",
    "trial_expected_win_rate": None,
}
VOTES_AT_ONCE = 5  # of a trial, by one annotator, between two looks at its decision

Report = Callable[[str], None]


class SimulationFailed(Exception):
    """The simulation cannot continue; the message is for people."""


def recipes_to_simulate(slug: str = SUPPORT.slug) -> list[str]:
    """Return the names of the recipes that learn from rankings, which is what the simulated annotators give.

    In the project of dialogues they must also play dialogues.
    """

    def learns_from_rankings(name: str) -> bool:
        jobs = RECIPES[name].jobs(round_settings.completed({"round": {"recipe": name}}), Counts(rankings=1))
        plays_enough = slug == SUPPORT.slug or "ppo" in RECIPES[name].programs
        return plays_enough and any(RANKINGS in job.inputs.values() for job in jobs)

    return [name for name in RECIPES if learns_from_rankings(name)]


@dataclass(frozen=True)
class Cycle:
    """Figures of a cycle. Shares lie between 0 and 1; the interval is a 95 % interval."""

    cycle: int
    recipe: str
    labels: int  # rankings of this cycle
    annotator_agreement: float | None  # pairwise, over all rankings so far
    reward_accuracy: float | None  # on held-out prompts, against the noisy labels; None without such labels
    reward_accuracy_noiseless: (
        float | None
    )  # against the utility, on new completions of the first and the base checkpoint
    kl: float | None  # nats per completion, from the reference; None if the recipe does not measure it
    kl_from_root: float | None  # the same, from the first checkpoint, on held-out prompts
    gold_utility: float  # mean utility of the new checkpoint's completions, in points
    gold_win_rate_vs_base: float  # how often they have a higher utility than the first checkpoint's
    gold_win_rate_low: float
    gold_win_rate_high: float
    gold_win_rate_vs_served: float  # how often they have a higher utility than those of the base of the round
    trial_win_rate: float | None  # share of the decisive votes of a blind trial that it wins against that base
    trial_low: float | None  # always-valid interval of trial_win_rate
    trial_high: float | None
    trial_votes: int  # decisive ones
    trial_decision: str
    trial_expected_win_rate: float | None  # trial_win_rate by the annotators' choice model, on the same completions
    held_out_prompts: int  # of the gold figures
    round_seconds: float  # from the start of the round to its end
    seconds: float  # of the whole cycle, with the labels before and the measurement after the round


def run(
    base_url: str,
    rounds: int,
    labels: int,
    json_path: Path | None,
    report: Report = print,
    recipe: str = DEFAULT,
    slug: str = SUPPORT.slug,
    changes: Sections | None = None,
) -> list[Cycle]:
    """Run `rounds` cycles of this recipe with `labels` rankings each. Write the JSON file after every cycle.

    changes: settings of the rounds that differ from the demo's. Raises SimulationFailed.
    """
    project, sections = Project.objects.get(slug=slug), sections_of_round(recipe, labels, changes or {})
    cycles: list[Cycle] = []
    with keys(project, PROJECTS[slug]) as (manager_key, workers), Client(base_url, slug, manager_key) as manager:
        wait_for_active(project, manager, report)
        for number in range(1, rounds + 1):
            cycles.append(run_cycle(base_url, manager, workers, project, number, labels, report, sections))
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
    sections: Sections,
) -> Cycle:
    """Run one cycle, whose round has these settings, and return its figures."""
    started = time.monotonic()
    report(f"cycle {number}: {ANNOTATORS} simulated annotators make {labels} rankings")
    made = label(base_url, project, manager, workers, labels, report)
    report(f"  {made} rankings in {time.monotonic() - started:.0f} s; a round starts")
    finished = watch(manager, manager.start_round(sections), report)
    known = manager.checkpoints()
    checkpoint = next(row for row in known if row["round"] == finished["number"])
    served = next(row for row in known if row["is_served"])
    tried = try_blind(base_url, manager, workers, project, [served["id"], checkpoint["id"]], report)
    manager.promote(checkpoint["id"])
    report(f"  {checkpoint['name']} is served; measuring its completions of held-out prompts")
    measured = measure(project, Round.objects.get(project=project, number=finished["number"]))
    return Cycle(
        cycle=number,
        labels=made,
        annotator_agreement=manager.agreement(),
        recipe=sections["round"]["recipe"],
        reward_accuracy=finished["results"].get("reward", {}).get("held_out_accuracy"),
        kl=finished["results"].get("policy", {}).get("kl"),
        kl_from_root=finished["results"].get("guards", {}).get("kl_from_root"),
        round_seconds=round(seconds_of_round(finished), 1),
        seconds=round(time.monotonic() - started, 1),
        **tried,
        **measured,
    )


def try_blind(
    base_url: str,
    manager: Client,
    workers: list[labelling.Worker],
    project: Project,
    checkpoints: list[int],
    report: Report,
) -> dict[str, Any]:
    """Let the annotators compare the new checkpoint with the served one, blind, and return the figures of the trial.

    Both answer held-out prompts only, whose rankings train nothing, so that later cycles are as without the trial.
    """
    started = time.monotonic()
    prompts = len(gold.held_out_prompts(project))
    chosen = {"recipe": TRIAL, "trial_prompts": prompts, "trial_share": 100, "trial_may_train": False}
    number = manager.start_round({"round": chosen}, checkpoints=checkpoints)
    ended = await_end(manager, number, report)
    if ended["trial"] is None and wrote_the_same(Round.objects.get(project=project, number=number)):
        report("  no blind trial: the new checkpoint wrote the same completions as the served one")
        return IDENTICAL
    trial = Trial.objects.get(project=project, number=finish_of(ended)["trial"])
    votes = 0
    # One annotator at a time, and no more rankings than the trial has left: further ones would be of other comparisons.
    for worker in itertools.cycle(workers):
        left = trials.standing_of(trial).comparisons_left
        made = labelling.rank(base_url, project.slug, [worker], min(VOTES_AT_ONCE, left))
        votes += made
        gate.settle(trial)  # as the beat does
        trial.refresh_from_db()
        if not trial.is_open:
            break
        if not made:
            raise SimulationFailed("The trial has comparisons left, and the annotators do not get them.")
    (candidate,) = trials.standing_of(trial).candidates
    evidence = candidate.evidence
    report(f"  blind trial in {time.monotonic() - started:.0f} s, {votes} votes: {candidate.sentence}")
    return {
        "trial_win_rate": evidence.win_share,
        "trial_low": evidence.low if evidence.decisive else None,
        "trial_high": evidence.high if evidence.decisive else None,
        "trial_votes": evidence.decisive,
        "trial_decision": str(trial.decision),
        "trial_expected_win_rate": gold.expected_trial_win_share(project, trial),
    }


def wrote_the_same(round_: Round) -> bool:
    """Return whether both checkpoints of a trial's round answered, and wrote the same texts on every prompt."""
    files = [jobs.directory_of(round_) / job.name / "samples.jsonl" for job in round_.jobs]
    if not all(file.is_file() for file in files):
        return False
    first, second = ([(row.get("text"), row.get("turns")) for row in map(json.loads, file.open())] for file in files)
    return first == second


def sections_of_round(recipe: str, labels: int, changes: Sections) -> Sections:
    """Return the settings of each round that differ from the project's. `changes` win."""
    chosen = {"round": {"recipe": recipe, "prompts": comparisons_for(labels)}}
    return round_settings.changed(round_settings.changed(OF_RECIPES.get(recipe, {}), chosen), changes)


def seconds_of_round(finished: dict[str, Any]) -> float:
    """Return the seconds from the start of a finished round, as the API describes it, to its end."""
    started, ended = (datetime.fromisoformat(finished[name]) for name in ("started_at", "finished_at"))
    return (ended - started).total_seconds()


def label(
    base_url: str, project: Project, manager: Client, workers: list[labelling.Worker], labels: int, report: Report
) -> int:
    """Make `labels` rankings, and return `labels`. If comparisons run out, the served checkpoint writes more."""
    made = labelling.rank(base_url, project.slug, workers, labels)
    while made < labels:
        missing = comparisons_for(labels - made)
        report(f"  {made} rankings made, nothing left to rank: sampling {missing} more comparisons")
        watch(manager, manager.start_round({"round": {"prompts": missing}}, learns=False), report)
        more = labelling.rank(base_url, project.slug, workers, labels - made)
        if more == 0:
            raise SimulationFailed(
                "The served checkpoint wrote only completions that the annotators have ranked already."
            )
        made += more
    return made


def wait_for_active(project: Project, manager: Client, report: Report) -> None:
    """Wait until a round that was started before has ended, because a project runs one round at a time."""
    for active in project.rounds.filter(status__in=Round.ACTIVE):
        report(f"waiting for round {active.number}, which was started before")
        await_end(manager, active.number, report)


def watch(manager: Client, number: int, report: Report) -> dict[str, Any]:
    """Return the round after its end. Raise SimulationFailed with the round's error if it has not finished."""
    return finish_of(await_end(manager, number, report))


def finish_of(ended: dict[str, Any]) -> dict[str, Any]:
    """Return an ended round. Raise SimulationFailed with its error if it has not finished."""
    number = ended["number"]
    if ended["status"] != Round.Status.FINISHED:
        raise SimulationFailed(f"Round {number} is {ended['status']}. {ended['error']}\n{ended['log_tail']}".strip())
    return ended


def await_end(manager: Client, number: int, report: Report) -> dict[str, Any]:
    """Wait until the round has ended in any way, report its progress, and return it."""
    last_stage, last_time = "", time.monotonic()
    while (active := manager.get_round(number))["status"] in Round.ACTIVE:
        stage = f"  round {number}: {active['stage'] if active['status'] == Round.Status.RUNNING else 'waiting'}"
        if stage != last_stage or (active["progress"] and time.monotonic() - last_time > REPORT_EVERY):
            percent = f" {active['progress']['percent']:.0f} %" if active["progress"] else ""
            report(stage + percent)
            last_stage, last_time = stage, time.monotonic()
        time.sleep(POLL_SECONDS)
    return active


def measure(project: Project, finished: Round) -> dict[str, Any]:
    """Measure the round's checkpoint and its reward model by the hidden utility."""
    assert finished.checkpoint is not None, "a finished round with training has a checkpoint"
    folder = jobs.directory_of(finished) / "gold"
    settings = finished.settings["sample"] | {
        "environment": simulated_user.located(project, simulated_user.environment_of(finished.settings))
    }
    reward_model = finished.checkpoint.reward_model_path
    first, ranked = finished.checkpoint.root, finished.base
    new = gold.draw(project, folder / "new", finished.checkpoint.path, settings)
    base = gold.draw(project, folder / "first", first.path, settings, reward_model)
    served = base if ranked == first else gold.draw(project, folder / "ranked", ranked.path, settings, reward_model)
    scored = [base] if ranked == first else [base, served]
    wins = gold.win_rate(new, base)
    return {
        "reward_accuracy_noiseless": gold.noiseless_accuracy(*scored) if reward_model else None,
        "gold_utility": new.mean_utility(),
        "gold_win_rate_vs_base": wins.value,
        "gold_win_rate_low": wins.low,
        "gold_win_rate_high": wins.high,
        "gold_win_rate_vs_served": gold.win_rate(new, served).value,
        "held_out_prompts": len(new.utilities),
    }


@contextmanager
def keys(project: Project, demo: DemoProject = SUPPORT) -> Iterator[tuple[str, list[labelling.Worker]]]:
    """Create API tokens of a manager and of the simulated annotators; delete them at the end."""
    manager = project.memberships.filter(role=Membership.Role.MANAGER).select_related("user").order_by("pk")[0].user
    with transaction.atomic():
        annotators = [member(project, f"simulated-{number}") for number in range(1, ANNOTATORS + 1)]
        ApiToken.objects.filter(
            name=TOKEN_NAME, user__in=[manager, *annotators]
        ).delete()  # left by a simulation that was killed
        issued = [issue_token(user, TOKEN_NAME) for user in (manager, *annotators)]
    try:
        simulated = [Annotator(number, utility=demo.utility) for number in range(1, ANNOTATORS + 1)]
        workers = [labelling.Worker(one, key) for one, (_, key) in zip(simulated, issued[1:], strict=True)]
        yield issued[0][1], workers
    finally:
        ApiToken.objects.filter(pk__in=[token.pk for token, _ in issued]).delete()


def member(project: Project, username: str) -> User:
    """Return an annotator of the project; create the account, without a password, if need be."""
    user = User.objects.filter(username=username).first() or User.objects.create_user(username)
    if not project.memberships.filter(user=user).exists():
        members.add_member(project, username, Membership.Role.ANNOTATOR)
    return user


def sentence(cycle: Cycle) -> str:
    """Return the figures of a cycle as one line."""
    return (
        f"cycle {cycle.cycle}: recipe {cycle.recipe}, labels {cycle.labels}, "
        f"annotator_agreement {as_percent(cycle.annotator_agreement)}, "
        f"reward_accuracy {as_percent(cycle.reward_accuracy)}, reward_accuracy_noiseless "
        f"{as_percent(cycle.reward_accuracy_noiseless)}, kl {as_nats(cycle.kl)}, "
        f"kl_from_root {as_nats(cycle.kl_from_root)}, gold_utility {cycle.gold_utility:.2f}, "
        f"gold_win_rate_vs_base {cycle.gold_win_rate_vs_base:.1%} "
        f"({cycle.gold_win_rate_low:.1%} to {cycle.gold_win_rate_high:.1%}, {cycle.held_out_prompts} prompts), "
        f"gold_win_rate_vs_served {cycle.gold_win_rate_vs_served:.1%}, "
        f"trial_win_rate {as_percent(cycle.trial_win_rate)} "
        f"({as_percent(cycle.trial_low)} to {as_percent(cycle.trial_high)}, {cycle.trial_votes} votes: "
        f"{cycle.trial_decision}), trial_expected_win_rate {as_percent(cycle.trial_expected_win_rate)}, "
        f"round_seconds {cycle.round_seconds:.0f}, seconds {cycle.seconds:.0f}"
    )


def as_nats(divergence: float | None) -> str:
    return "–" if divergence is None else f"{divergence:.2f}"


def as_percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
