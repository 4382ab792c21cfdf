"""What each program of a round is given: its job directory, filled once and then left alone.

DATA_DIR/rounds/<project>/<number>/
    round.json   whose directory this is
    reward/      rankings.jsonl, snapshot.json: how many rankings there are, and how many a flag keeps out
    policy/      prompts.jsonl
    samples/     prompts.jsonl: what the new checkpoint answers, to be ranked
    baseline/    prompts.jsonl: some of those, answered by the base, to be read side by side
"""

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from feedback.actions.ranking_details import has_project_flag
from feedback.export import ranking_record
from feedback.models import Prompt
from feedback.quality import reliability
from training.learner.runtime.jobdir import JobDirectory
from training.models import Round
from training.rounds.lifecycle import Stage
from training.rounds.settings import models_of


@dataclass(frozen=True)
class Job:
    """A run of a program in the round: `name` is its folder, and its key among the round's results."""

    name: str
    stage: str
    program: str


SNAPSHOT = "snapshot.json"
LEARN = (Job("reward", Stage.REWARD, "reward"), Job("policy", Stage.POLICY, "ppo"))
SAMPLE = (Job("samples", Stage.SAMPLES, "sample"),)
COMPARE = (Job("baseline", Stage.SAMPLES, "sample"),)


def jobs_of(round_: Round) -> tuple[Job, ...]:
    """The programs that the round runs, in order."""
    if not round_.learns:
        return SAMPLE
    learn = LEARN if round_.uses_reward_model else LEARN[1:]
    return learn + SAMPLE + (COMPARE if round_.settings["round"]["shown_prompts"] else ())


def directory_of(round_: Round) -> Path:
    return settings.DATA_DIR / "rounds" / round_.project.slug / f"{round_.number:04d}"


def own_directory(round_: Round) -> Path:
    """The round's directory, made if need be. One that another round of this number left is moved aside.

    (The database may have been made anew while the files stayed: their results are not this round's.)
    """
    directory = directory_of(round_)
    identity = {"project": round_.project.slug, "round": round_.number, "created_at": round_.created_at.isoformat()}
    file = directory / "round.json"
    if directory.exists() and (not file.is_file() or json.loads(file.read_text("utf-8")) != identity):
        aside = next(
            name for n in range(1, 10_000) if not (name := directory.with_name(f"{directory.name}.{n}")).exists()
        )
        directory.rename(aside)
    if not directory.exists():
        draft = directory.with_name(f"{directory.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        (draft / "round.json").write_text(json.dumps(identity, indent=2), "utf-8")
        draft.rename(directory)
    return directory


def fill(round_: Round, job: Job) -> Path:
    """The job's directory with its inputs and config.json, which comes last: where it is, all is there."""
    directory = own_directory(round_) / job.name
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
    own: dict[str, Any] = (
        {"completions_per_prompt": 1} if job.name == "baseline" else {}
    )  # one is enough beside another
    if job.program == "sample" and round_.learns:
        own["rewards"] = round_.settings["ppo"]["rewards"]
    files.write_config({**round_.settings[job.program], **own, **models(round_, job)})
    return directory


def models(round_: Round, job: Job) -> dict[str, str]:
    """The models that a program starts from: the base, or what the programs before it made."""
    directory, own = directory_of(round_), round_.settings[job.program]
    trained = str(directory / "reward" / "model") if round_.uses_reward_model else ""
    reward_model = trained if round_.learns else round_.base.reward_model_path
    model = str(directory / "policy" / "model") if round_.learns and job.name == "samples" else round_.base.path
    return models_of(job.program, own, model, reward_model)


def snapshot_of(directory: Path) -> dict[str, int] | None:
    """Return how many rankings a job directory was filled with and how many were left out; None if it has none."""
    file = directory / SNAPSHOT
    counts: dict[str, int] | None = json.loads(file.read_text("utf-8")) if file.is_file() else None
    return counts


def rankings(round_: Round, counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """The rows of rankings.jsonl, counted: without those that have a flag of the project's own."""
    weighed = weights(round_)
    for row in ranking_record.rankings(round_.project, until=round_.cutoff, still_counting=True, reliability=weighed):
        is_flagged = has_project_flag(row["flags"])
        counts["flagged_rankings" if is_flagged else "rankings"] += 1
        if not is_flagged:
            yield row


def prompts(round_: Round, job: Job) -> Iterator[dict[str, Any]]:
    """The rows of a job's prompts.jsonl."""
    own = round_.settings["round"]
    if job.name == "policy":
        for count, split in ((own["policy_prompts"], "train"), (round_.settings["ppo"]["eval_prompts"], "held_out")):
            yield from prompt_rows(chosen(round_, count, split, with_references=round_.compares_with_references))
    elif job.name == "samples":
        yield from prompt_rows(chosen(round_, own["prompts"]))
    else:
        yield from prompt_rows(shown(round_))


def weights(round_: Round) -> dict[int, float] | None:
    """The annotators' reliability as of the round's cut-off, if that is what its rankings are weighted by."""
    if round_.settings["round"].get("weights") != "reliability":
        return None
    return reliability.values(reliability.of_moment(round_.project, round_.cutoff))


def chosen(round_: Round, count: int, split: str | None = None, with_references: bool = False) -> list[int]:
    """At most `count` prompts of the project: another draw each round, the same draw each time it is asked for.

    Prompts that came in after the round started are left out, so that a resume does not choose anew. with_references:
    only those that have some, which is all that a metric can be learned from.
    """
    prompts = Prompt.objects.filter(project=round_.project, created_at__lte=round_.created_at)
    if split is not None:
        prompts = prompts.filter(split=split)
    if with_references:
        prompts = prompts.exclude(references=[])
    ids = list(prompts.order_by("pk").values_list("pk", flat=True))
    random.Random(round_.settings["round"]["seed"]).shuffle(ids)
    return ids[:count]


def shown(round_: Round) -> list[int]:
    """The prompts that both the new checkpoint and the base answer: held-out ones first, which neither learned from.

    Where scores compare with reference answers, prompts that have some come before all others.
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
    """prompts.jsonl's rows for prompts of these ids, in this order."""
    for begin in range(0, len(ids), 1000):
        part = ids[begin : begin + 1000]
        found = Prompt.objects.in_bulk(part)
        for prompt in (found[pk] for pk in part if pk in found):
            row = {"prompt_id": prompt.pk, "messages": prompt.messages, "split": prompt.split}
            yield {**row, "references": prompt.references} if prompt.references else row


def drop_states(round_: Round) -> None:
    """Free the disk of what only a resume would read: a finished round is never resumed."""
    for job in jobs_of(round_):
        shutil.rmtree(directory_of(round_) / job.name / "state", ignore_errors=True)
