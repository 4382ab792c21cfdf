"""Job directories of a round's programs, filled from the description of its jobs. A filled one is not changed.

DATA_DIR/rounds/<project>/<number>/
    round.json      identifies the round
    <job>/          input files (rankings.jsonl, prompts.jsonl, ...), config.json, and what the program writes
        snapshot.json   counts of the rows in the input files and of those left out, for the round's page
"""

import json
import shutil
from pathlib import Path

from django.conf import settings

from training.checkpoints import disk
from training.learner.runtime.jobdir import JobDirectory
from training.models import Checkpoint, Round
from training.rounds import inputs, named_checkpoints, simulated_user
from training.rounds.continued_critic import critic_folder, critic_to_continue
from training.rounds.continued_reward import reward_model_to_continue
from training.rounds.recipes.description import (
    BASE,
    CHECKPOINT,
    CONTINUED_REWARD_MODEL,
    CRITIC_OF_BASE,
    ENDPOINT,
    NEWEST_REWARD_MODEL,
    NONE,
    REWARD_MODEL_OF_BASE,
    ROOT,
    Job,
)

SNAPSHOT = "snapshot.json"
# Settings that an endpoint uses, of those of the section "sample".
ENDPOINT_SETTINGS = ("endpoint", "completions_per_prompt", "temperature", "top_p", "max_completion_tokens")


def directory_of(round_: Round) -> Path:
    return settings.DATA_DIR / "rounds" / round_.project.slug / f"{round_.number:04d}"


def make_directory(round_: Round) -> Path:
    """Return the round's directory, created if need be. A directory of another round is renamed first.

    Another round can have had this number if the database was created again while the files stayed.
    """
    directory = directory_of(round_)
    identity = {"project": round_.project.slug, "round": round_.number, "created_at": round_.created_at.isoformat()}
    file = directory / "round.json"
    if directory.exists() and (not file.is_file() or json.loads(file.read_text("utf-8")) != identity):
        names = (directory.with_name(f"{directory.name}.{number}") for number in range(1, 10_000))
        directory.rename(next(name for name in names if not name.exists()))
    if not directory.exists():
        draft = directory.with_name(f"{directory.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        (draft / "round.json").write_text(json.dumps(identity, indent=2), "utf-8")
        draft.rename(directory)
    return directory


def fill(round_: Round, job: Job) -> Path:
    """Return the job's directory, filled. config.json is written last, so a directory that has it is complete."""
    directory = make_directory(round_) / job.name
    if (directory / "config.json").is_file():
        return directory
    directory.mkdir(exist_ok=True)
    files = JobDirectory(directory)
    counts: dict[str, int] = {}
    for name, kind in job.inputs.items():
        if "/" in kind:  # a file that an earlier job wrote
            shutil.copyfile(directory.parent / kind, directory / name)
        else:
            files.write_rows(name, inputs.ROWS[kind](round_, job, counts))
    if counts:
        (directory / SNAPSHOT).write_text(json.dumps(counts), "utf-8")
    values = {**round_.settings[job.section], **job.settings, **models(round_, job)}
    if job.program == ENDPOINT:
        values = {name: values[name] for name in ENDPOINT_SETTINGS}
    elif "environment" in values:
        values["environment"] = simulated_user.located(round_.project, values["environment"])
    files.write_config(values)
    return directory


def models(round_: Round, job: Job) -> dict[str, str]:
    """Return the model settings of a job: paths of models that were there before, or that earlier jobs train."""
    return {name: located(round_, source) for name, source in job.models.items()}


def located(round_: Round, source: str) -> str:
    """Return the path of a model; "" for none."""
    if source == NONE:
        return ""
    if source == BASE:
        return round_.base.path
    if source == ROOT:
        return round_.base.root.path
    if source == REWARD_MODEL_OF_BASE:
        return round_.base.reward_model_path
    if source == CONTINUED_REWARD_MODEL:
        return reward_model_to_continue(round_)
    if source == CRITIC_OF_BASE:
        return critic_to_continue(round_)
    if source == NEWEST_REWARD_MODEL:
        newest = round_.newest_reward_model
        return newest.reward_model_path if newest else ""
    if source.startswith(CHECKPOINT):
        return named_checkpoints.named(round_.project, source.removeprefix(CHECKPOINT)).path
    return str(directory_of(round_) / source / "model")


def snapshot_of(directory: Path) -> dict[str, int] | None:
    """Return the counts in snapshot.json; None for a job that counts nothing."""
    file = directory / SNAPSHOT
    counts: dict[str, int] | None = json.loads(file.read_text("utf-8")) if file.is_file() else None
    return counts


def drop_states(round_: Round) -> None:
    """Delete the saved states of the programs: only a resume reads them, and a finished round is never resumed."""
    for job in round_.jobs:
        shutil.rmtree(directory_of(round_) / job.name / "state", ignore_errors=True)


def drop_critics(round_: Round) -> None:
    """Delete the critics that no round of the project will continue.

    Kept are those of the served checkpoint, of this round's checkpoint, which may be served next, and of the bases of
    rounds that can be resumed.
    """
    resumed = Round.objects.filter(project=round_.project).exclude(status=Round.Status.FINISHED)
    made = Checkpoint.objects.filter(project=round_.project, kind=Checkpoint.Kind.ROUND, is_served=False)
    for checkpoint in made.exclude(round=round_.pk).exclude(pk__in=resumed.values("base")):
        if critic_folder(checkpoint).is_dir():
            shutil.rmtree(critic_folder(checkpoint), ignore_errors=True)
            disk.measure(checkpoint)
