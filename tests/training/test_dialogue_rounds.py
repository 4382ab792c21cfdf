"""Rounds and dialogues: what a round reads, leaves out, and writes."""

import json
from uuid import uuid4

import pytest

from feedback import imports
from feedback.actions import members, rankings
from feedback.errors import Invalid
from feedback.models import Comparison, Completion, Prompt
from feedback.queue import leases
from tests.factories import rank
from training.rounds import lifecycle, results
from training.rounds.start import start_round
from training.run_round import jobs

TURNS = [
    {"role": "assistant", "content": "Which order?"},
    {"role": "user", "content": "Number 7."},
    {"role": "assistant", "content": "On its way."},
]


def rows_of(started, job_name, file):
    """Return the rows of an input file of a round's job, and its counts."""
    job = next(job for job in started.jobs if job.name == job_name)
    directory = jobs.fill(started, job)
    return [json.loads(line) for line in (directory / file).read_text().splitlines()], jobs.snapshot_of(directory)


@pytest.fixture
def ranked_dialogue(project, annotator):
    """A ranking of a dialogue and a text."""
    row = {"prompt": "Where is my parcel?", "completions": [{"turns": TURNS}, "Soon."]}
    (pk,) = imports.add_prompts(project, [row], compare=True).comparison_ids
    member = members.membership_of(annotator, project.slug)
    lease = leases.lease_next(member)
    rankings.record_ranking(member, lease.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0)
    return Comparison.objects.get(pk=pk)


def test_the_reward_model_learns_from_whole_dialogues(project, base, ranked_dialogue):
    (row,), counts = rows_of(start_round(project, None), "reward", "rankings.jsonl")
    assert row["turns"] == [TURNS, None] and counts == {"rankings": 1, "flagged_rankings": 0}


@pytest.mark.parametrize("recipe", ["dpo", "kto"])
def test_programs_that_would_learn_the_users_turns_get_no_dialogue(project, base, ranked_dialogue, annotator, recipe):
    with pytest.raises(Invalid, match="cannot learn from dialogues, and all rankings are of dialogues"):
        start_round(project, None, {"round": {"recipe": recipe}})
    imports.add_prompts(project, [{"prompt": "Hello", "completions": ["a", "b", "c"]}], compare=True)
    rank(project, annotator, 1)
    started = start_round(project, None, {"round": {"recipe": recipe}})
    (row,), counts = rows_of(started, started.jobs[0].name, "rankings.jsonl")
    assert sorted(row["completions"]) == ["a", "b", "c"]
    assert counts == {"rankings": 1, "flagged_rankings": 0, "dialogues_left_out": 1}


def test_q_learns_from_texts_only_and_counts_the_dialogues(project, base, ranked_dialogue):
    Prompt.objects.update(references=["Soon."], split="train")
    started = start_round(project, None, {"round": {"recipe": "q"}, "q": {"rewards": [{"name": "similarity"}]}})
    rows, counts = rows_of(started, "policy", "completions.jsonl")
    assert [row["completion"] for row in rows] == ["Soon."] and counts["dialogues_left_out"] == 1


def test_a_round_stores_the_dialogues_that_it_sampled(project, waiting, claim):
    prompt = project.prompts.first()
    folder = jobs.directory_of(waiting) / "samples"
    folder.mkdir(parents=True)
    hostile = [{**TURNS[0], "content": "a\0b"}, *TURNS[1:]]
    samples = [{"prompt_id": prompt.pk, "index": n, "turns": turns, "ended": True, "tokens": 4, "score": 0.5}
               for n, turns in enumerate([TURNS, hostile])]  # fmt: skip
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    outcome = results.Outcome.read(waiting, jobs.directory_of(waiting))
    lifecycle.finish(claim, outcome)
    written = Completion.objects.filter(turns__isnull=False).order_by("pk")
    assert [completion.turns for completion in written] == [TURNS, [{**TURNS[0], "content": "ab"}, *TURNS[1:]]]
    assert written[0].sampling["tokens"] == 4
    assert Comparison.objects.filter(items__completion__in=written).distinct().get().size == 2
