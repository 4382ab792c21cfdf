"""The recipe q: the completions that a round learns from, and a whole round."""

import json

import pytest

from feedback import imports
from feedback.actions import members
from feedback.errors import Invalid
from feedback.models import Completion, Demonstration, Prompt, Ranking
from tests.training import tiny
from training.models import Round
from training.rounds import settings as round_settings
from training.rounds.recipes import RECIPES
from training.rounds.recipes.description import Counts
from training.rounds.start import start_round
from training.run_round import jobs, run_round

FEW = {"value_epochs": 2, "policy_epochs": 1, "eval_prompts": 2, "optimum_samples": 2, "batch_completions": 8}
METRIC = {"round": {"recipe": "q", "prompts": 4, "shown_prompts": 2}, "q": {**FEW, "rewards": [{"name": "similarity"}]}}


def rows_of(started):
    """Return the rows of completions.jsonl of a round, and its counts."""
    job = next(job for job in started.jobs if job.name == "policy")
    directory = jobs.fill(started, job)
    lines = (directory / "completions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], jobs.snapshot_of(directory)


def test_a_reward_model_is_trained_only_if_it_is_a_term():
    for terms, first in (([{"name": "reward_model"}], "reward"), ([{"name": "similarity"}], "policy")):
        settings = round_settings.resolve({"round": {"recipe": "q"}, "q": {"rewards": terms}}, seed=1)
        listed = RECIPES["q"].jobs(settings, Counts(10, 0))
        samples = next(job for job in listed if job.name == "samples")
        assert listed[0].name == first and samples.settings["rewards"] == terms


def test_a_round_learns_from_all_completions_written_before_it(project, base, comparisons, annotator):
    Prompt.objects.update(references=["Soon."])
    Completion.objects.filter(pk=Completion.objects.order_by("pk").first().pk).update(sampling={"ended": False})
    started = start_round(project, None, METRIC)
    before = Completion.objects.count()
    imports.add_demonstration(members.membership_of(annotator, project.slug), project.prompts.first(), "Later.")
    rows, counts = rows_of(started)
    assert len(rows) == before == counts["completions"] + counts["held_out_completions"] < Completion.objects.count()
    assert [row["finished"] for row in rows] == [False] + [True] * (before - 1)
    assert {row["split"] for row in rows} <= {"train", "held_out"} and rows[0]["references"] == ["Soon."]


def test_completions_not_for_training_are_left_out(project, base, rankings, annotator):
    Prompt.objects.update(references=["Soon."])
    member = members.membership_of(annotator, project.slug)
    imports.add_demonstration(member, project.prompts.first(), "Withdrawn.")
    Demonstration.objects.update(withdrawn_at="2026-01-01T00:00:00Z")
    flagged = Ranking.objects.filter(is_live=True).first()
    Ranking.objects.filter(pk=flagged.pk).update(flags=["personal_data"])
    left_out = set(flagged.comparison.items.values_list("completion__text", flat=True))
    rows, _ = rows_of(start_round(project, None, METRIC))
    texts = {(row["prompt_id"], row["completion"]) for row in rows}
    assert not texts & {(flagged.comparison.prompt_id, text) for text in left_out}
    assert "Withdrawn." not in {text for _, text in texts} and len(rows) == Completion.objects.count() - 1 - len(
        left_out
    )


def test_a_round_with_nothing_to_learn_from_is_refused(project, base, comparisons):
    with pytest.raises(Invalid, match=r"similarity.* needs"):
        start_round(project, None, METRIC)
    Prompt.objects.update(split="held_out")
    with pytest.raises(Invalid, match="no completions of training prompts to learn from yet"):
        start_round(project, None, METRIC)


@pytest.mark.full
@pytest.mark.process
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("forked_programs")
def test_a_round_learns_from_all_completions_by_the_reward_model(project, tiny_base, rankings, manager, client):
    settings = {name: tiny.SETTINGS[name] for name in ("common", "reward")}
    settings |= {"round": {**tiny.SETTINGS["round"], "recipe": "q"}, "q": FEW}
    run_round.run(start_round(project, manager, settings).pk)
    done = Round.objects.get()
    assert (done.error, done.status) == ("", "finished")
    assert set(done.results) == {"snapshot", "durations", "comparisons", "reward", "policy", "samples", "baseline"}
    policy = done.results["policy"]
    assert policy["program"] == "q" and policy["train_completions"] == done.results["snapshot"]["completions"] > 0
    assert done.checkpoint.parent == tiny_base and done.checkpoint.reward_model_path
    client.force_login(manager)
    page = client.get("/projects/support/rounds/1/").content.decode()
    assert "Completions learned from" in page and "Mean reward of these completions" in page
