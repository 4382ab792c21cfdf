"""Rankings of trials in rounds: those on held-out prompts train nothing, others if the trial may train."""

import json

import pytest

from feedback.actions import trials
from feedback.errors import Invalid
from feedback.models import Comparison, Prompt, Ranking, Source
from tests.factories import add_work, rank_next
from training.reports import details_sentences, loop_of
from training.rounds.inputs.rankings import trainable_rankings
from training.rounds.inputs.ratings import training_counts
from training.rounds.start import start_round
from training.run_round import jobs


@pytest.fixture
def trial(project, base, ann):
    """Return a function that starts a trial, in which a training and a held-out comparison are ranked and rated."""

    def started(*, may_train):
        prompts = [comparison.prompt_id for comparison in add_work(project, 3)]
        Comparison.objects.all().delete()
        for prompt, split in zip(prompts, ("train", "held_out", "train"), strict=True):
            Prompt.objects.filter(pk=prompt).update(split=split)
        sources = [Source.objects.get(name=name) for name in ("source-0", "source-1")]
        made = trials.start_trial(project, sources, share=100, may_train=may_train)
        while rank_next(ann):
            pass
        Ranking.objects.update(ratings={"honest": [5, 1]}, flags=["all bad"], spans=[])
        return made

    return started


@pytest.fixture
def ann(project, annotator):
    return project.memberships.select_related("project", "user").get(user=annotator)


def written(round_):
    job = next(job for job in round_.jobs if job.program == "reward")
    directory = jobs.fill(round_, job)
    rankings, ratings = (
        [json.loads(line) for line in (directory / name).read_text("utf-8").splitlines()]
        for name in ("rankings.jsonl", "ratings.jsonl")
    )
    return rankings, ratings, jobs.snapshot_of(directory)


FEW = {"round": {"min_rated_completions": 1}}


@pytest.mark.slow
def test_rankings_on_training_prompts_are_left_out_and_counted_if_the_trial_must_not_train(project, trial, ann):
    trial(may_train=False)
    assert trainable_rankings(project).count() == 1  # on the held-out prompt: it measures
    assert training_counts(trainable_rankings(project)) == {"honest": 0}
    add_work(project, 1)
    Prompt.objects.order_by("pk").filter(pk=Prompt.objects.order_by("-pk").first().pk).update(split="train")
    ordinary = rank_next(ann)
    Ranking.objects.filter(pk=ordinary.pk).update(ratings={"honest": [4, 2]})
    round_ = start_round(project, None, FEW)
    assert round_.ranking_count == loop_of(project).ranking_count == 2
    rankings, ratings, snapshot = written(round_)
    assert [(row["split"], row["trial"]) for row in rankings] == [("held_out", 1), ("train", None)]
    assert {row["split"] for row in ratings} == {"held_out", "train"} and len(ratings) == 4
    assert (snapshot["rankings"], snapshot["trial_rankings"]) == (2, 2)
    assert snapshot["rated_completions.honest"] == 2
    round_.results["snapshot"] = snapshot
    assert "It leaves out 2 rankings of trials that must not train." in details_sentences(round_)


def test_rankings_on_training_prompts_are_learned_if_the_trial_may_train(project, trial):
    trial(may_train=True)
    round_ = start_round(project, None, FEW)
    rankings, _ratings, snapshot = written(round_)
    assert sorted(row["split"] for row in rankings) == ["held_out", "train", "train"]
    assert "trial_rankings" not in snapshot
    assert snapshot["rated_completions.honest"] == 4  # of the training prompts


def test_a_round_needs_a_ranking_that_may_train(project, trial):
    trial(may_train=False)
    Prompt.objects.update(split="train")
    with pytest.raises(Invalid, match="belongs to a trial that must not train"):
        start_round(project, None)


def test_a_round_that_reads_no_details_says_how_many_rankings_of_trials_it_leaves_out(project, trial):
    trial(may_train=False)
    round_ = start_round(project, None, {"round": {"recipe": "dpo"}})
    job = next(job for job in round_.jobs if job.program == "dpo")
    round_.results["snapshot"] = jobs.snapshot_of(jobs.fill(round_, job))
    assert round_.results["snapshot"]["trial_rankings"] == 2
    assert details_sentences(round_) == "It leaves out 2 rankings of trials that must not train."
