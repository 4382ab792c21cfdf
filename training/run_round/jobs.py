"""Job directories of a round's programs. Each is filled once and not changed after that.

DATA_DIR/rounds/<project>/<number>/
    round.json   identifies the round
    reward/      rankings.jsonl, and snapshot.json with the number of rankings, and of those left out because of flags
    policy/      prompts.jsonl
    samples/     prompts.jsonl: prompts for the new checkpoint, to be ranked
    baseline/    prompts.jsonl: some of these prompts for the base, for the side-by-side page
"""

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from feedback.export import ranking_record
from feedback.models import Prompt
from feedback.models.flags import is_trainable
from feedback.quality import reliability
from training.learner.runtime.jobdir import JobDirectory
from training.models import Round
from training.rounds.lifecycle import Stage
from training.rounds.settings import models_of


@dataclass(frozen=True)
class Job:
    """Run of a program in the round. `name` is its folder and its key in `Round.results`."""

    name: str
    stage: str
    program: str


SNAPSHOT = "snapshot.json"
LEARN = (Job("reward", Stage.REWARD, "reward"), Job("policy", Stage.POLICY, "ppo"))
SAMPLE = (Job("samples", Stage.SAMPLES, "sample"),)
COMPARE = (Job("baseline", Stage.SAMPLES, "sample"),)


def jobs_of(round_: Round) -> tuple[Job, ...]:
    """Return the program runs of the round, in order."""
    if not round_.learns:
        return SAMPLE
    learn = LEARN if round_.uses_reward_model else LEARN[1:]
    return learn + SAMPLE + (COMPARE if round_.settings["round"]["shown_prompts"] else ())


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
    if job.program == "reward":
        counts = {"rankings": 0, "flagged_rankings": 0}
        files.write_rows("rankings.jsonl", rankings(round_, counts))
        (directory / SNAPSHOT).write_text(json.dumps(counts), "utf-8")
    else:
        files.write_rows("prompts.jsonl", prompts(round_, job))
    overrides: dict[str, Any] = {}
    if job.name == "baseline":
        overrides["completions_per_prompt"] = 1  # the side-by-side page shows one
    if job.program == "sample" and round_.learns:
        overrides["rewards"] = round_.settings["ppo"]["rewards"]
    files.write_config({**round_.settings[job.program], **overrides, **models(round_, job)})
    return directory


def models(round_: Round, job: Job) -> dict[str, str]:
    """Return the model settings of a program: the base, or models that earlier programs of the round trained."""
    directory = directory_of(round_)
    trained = str(directory / "reward" / "model") if round_.uses_reward_model else ""
    reward_model = trained if round_.learns else round_.base.reward_model_path
    model = str(directory / "policy" / "model") if round_.learns and job.name == "samples" else round_.base.path
    return models_of(job.program, round_.settings[job.program], model, reward_model)


def snapshot_of(directory: Path) -> dict[str, int] | None:
    """Return the counts in snapshot.json; None for a job without rankings."""
    file = directory / SNAPSHOT
    counts: dict[str, int] | None = json.loads(file.read_text("utf-8")) if file.is_file() else None
    return counts


def rankings(round_: Round, counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield the rows of rankings.jsonl and count them. Rankings with a flag of the project are left out."""
    for row in ranking_record.rankings(
        round_.project, until=round_.cutoff, still_counting=True, reliability=weights(round_)
    ):
        is_flagged = not is_trainable(round_.project, row["flags"])
        counts["flagged_rankings" if is_flagged else "rankings"] += 1
        if not is_flagged:
            yield row


def prompts(round_: Round, job: Job) -> Iterator[dict[str, Any]]:
    """Yield the rows of a job's prompts.jsonl."""
    settings = round_.settings["round"]
    if job.name == "policy":
        for count, split in (
            (settings["policy_prompts"], "train"),
            (round_.settings["ppo"]["eval_prompts"], "held_out"),
        ):
            yield from prompt_rows(chosen(round_, count, split, with_references=round_.compares_with_references))
    elif job.name == "samples":
        yield from prompt_rows(chosen(round_, settings["prompts"]))
    else:
        yield from prompt_rows(compared(round_))


def weights(round_: Round) -> dict[int, float] | None:
    """Return the annotators' reliability at the round's cut-off; None if all rankings have equal weight."""
    if round_.settings["round"].get("weights") != "reliability":
        return None
    return reliability.values(reliability.report_at(round_.project, round_.cutoff))


def chosen(round_: Round, count: int, split: str | None = None, with_references: bool = False) -> list[int]:
    """Return the ids of at most `count` random prompts: each round has another seed, and a repeat gets the same ids.

    Prompts that were added after the start of the round are left out, because they would change the choice of a resumed
    round. with_references: only prompts with reference answers, which reward terms such as BLEU need.
    """
    prompts = Prompt.objects.filter(project=round_.project, created_at__lte=round_.created_at)
    if split is not None:
        prompts = prompts.filter(split=split)
    if with_references:
        prompts = prompts.exclude(references=[])
    ids = list(prompts.order_by("pk").values_list("pk", flat=True))
    random.Random(round_.settings["round"]["seed"]).shuffle(ids)
    return ids[:count]


def compared(round_: Round) -> list[int]:
    """Return the ids of prompts that the new checkpoint and the base both answer, held-out prompts first.

    If the reward compares with reference answers, prompts that have some come before all others.
    """
    ids = chosen(round_, round_.settings["round"]["prompts"])
    prompts = Prompt.objects.filter(pk__in=ids)
    held_out = set(prompts.filter(split=Prompt.Split.HELD_OUT).values_list("pk", flat=True))
    scored = set(
        prompts.exclude(references=[]).values_list("pk", flat=True) if round_.compares_with_references else ids
    )
    ids.sort(key=lambda pk: (pk not in scored, pk not in held_out))
    return ids[: round_.settings["round"]["shown_prompts"]]


def prompt_rows(ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield rows of prompts.jsonl for these ids, in this order; deleted prompts are left out."""
    for begin in range(0, len(ids), 1000):
        batch = ids[begin : begin + 1000]
        prompts_by_id = Prompt.objects.in_bulk(batch)
        for prompt in (prompts_by_id[pk] for pk in batch if pk in prompts_by_id):
            row = {"prompt_id": prompt.pk, "messages": prompt.messages, "split": prompt.split}
            yield {**row, "references": prompt.references} if prompt.references else row


def drop_states(round_: Round) -> None:
    """Delete the saved states of the programs: only a resume reads them, and a finished round is never resumed."""
    for job in jobs_of(round_):
        shutil.rmtree(directory_of(round_) / job.name / "state", ignore_errors=True)
