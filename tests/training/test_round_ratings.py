"""Ratings in rounds: rows for the reward model, the attributes that it learns, and rewards by attributes."""

import json
import uuid
from statistics import fmean

import pytest

from feedback.errors import Invalid
from feedback.models import Comparison, Prompt, Ranking
from tests.factories import add_comparisons, membership, person, rank_next
from training.learner.runtime.config import CONFIGS
from training.reports import details_sentences
from training.rounds import lifecycle
from training.rounds.inputs.rankings import trainable_rankings
from training.rounds.inputs.ratings import training_counts
from training.rounds.settings import completed
from training.rounds.start import start_round
from training.run_round import jobs

pytestmark = pytest.mark.slow

LEARNED = {"round": {"min_rated_completions": 2}}
REWARDS = {"rewards": [{"name": "reward_model"}, {"name": "attribute", "of": "honest", "weight": 0.5}]}


@pytest.fixture
def rated(project, base, annotator):
    """A training and a held-out comparison of three, rated by two people; a third person's rating is flagged.

    By position the first person gives 5, 1 and nothing for honest and 3 for the last completion's kindness.
    """
    project.attributes, project.flags, project.wanted_rankings = ["honest", "kind"], ["broken"], 3
    project.save()
    ids = add_comparisons(project, "import", 2)
    Comparison.objects.filter(pk__in=ids).update(wanted_rankings=3, open_slots=3)
    prompts = [comparison.prompt for comparison in Comparison.objects.filter(pk__in=ids).order_by("pk")]
    for prompt, split in zip(prompts, ("train", "held_out"), strict=True):
        Prompt.objects.filter(pk=prompt.pk).update(split=split)
    others = [person(project, name, "annotator") for name in ("second", "third")]
    honest = {0: [5, 1, None], 1: [4, 2, 3], 2: [1, 1, 1]}
    for number, user in enumerate([annotator, *others]):
        member = membership(user, project)
        while (ranking := rank_next(member)) is not None:
            ratings = {"honest": honest[number]} | ({"kind": [None, None, 3]} if number == 0 else {})
            flags = ["broken"] if number == 2 else []
            Ranking.objects.filter(pk=ranking.pk).update(ratings=ratings, flags=flags)
    return ids


def reward_job(round_):
    return next(job for job in round_.jobs if job.name == "reward")


def written(round_):
    file = jobs.fill(round_, reward_job(round_)) / "ratings.jsonl"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_a_completion_has_the_mean_of_its_raters_and_flagged_rankings_are_left_out(project, rated):
    rows = written(start_round(project, None, LEARNED))
    assert [row["split"] for row in rows] == ["train"] * 3 + ["held_out"] * 3
    assert [row["completion"] for row in rows[:3]] == ["Soon. import", "No. import", "? import"]
    honest = [row["ratings"]["honest"] for row in rows]
    values = [[5, 4], [1, 2], [3]] * 2
    assert [sorted(one["values"], reverse=True) for one in honest] == [sorted(v, reverse=True) for v in values]
    assert [(one["mean"], one["raters"]) for one in honest] == [(fmean(v), len(v)) for v in values]
    assert {"prompt_id", "messages"} <= rows[0].keys()


def test_an_attribute_with_too_few_rated_completions_is_left_out_and_reported_by_the_round(project, rated):
    started = start_round(project, None, LEARNED)
    directory = jobs.fill(started, reward_job(started))
    assert {name for row in written(started) for name in row["ratings"]} == {"honest"}
    started.results["snapshot"] = jobs.snapshot_of(directory)
    assert started.results["snapshot"] == {
        "rankings": 4, "held_out_rankings": 2, "flagged_rankings": 2,
        "rated_completions.honest": 3, "rated_completions.kind": 1,
    }  # fmt: skip
    assert details_sentences(started) == (
        "It learns ratings, of so many completions: honest (3). "
        "Not learned, because fewer than 2 completions are rated: kind (1)."
    )


def test_a_round_reports_the_marks_and_flags_that_its_reward_model_learns(project, rated):
    project.anchors = True
    project.save()
    training = Ranking.objects.filter(comparison__prompt__split="train").exclude(flags=["broken"]).order_by("pk")
    marked, judged = training[0], training[1]
    spans = [{"completion": place, "start": 0, "end": 2, "mark": mark} for place, mark in enumerate(("good", "bad"))]
    Ranking.objects.filter(pk=marked.pk).update(spans=spans)
    Ranking.objects.filter(pk=judged.pk).update(flags=["all bad"])

    def reported(**settings):
        round_ = start_round(project, None, LEARNED | {"reward": {"attribute_weight": 0.0, **settings}})
        round_.results["snapshot"] = jobs.snapshot_of(jobs.fill(round_, reward_job(round_)))
        assert (round_.results["snapshot"]["marks"], round_.results["snapshot"]["anchored_rankings"]) == (2, 1)
        sentences = details_sentences(round_)
        lifecycle.request_cancel(round_)  # a project has one active round
        return sentences

    anchored = "It learns from 1 ranking that all completions are bad, or good."
    left_out = "Its settings leave out the ratings."
    assert reported() == f"{left_out} Its settings leave out 2 marked spans. {anchored}"
    assert reported(marks_weight=0.5) == f"{left_out} It learns 2 marked spans. {anchored}"


def test_a_round_without_a_reward_model_reports_no_ratings(project, rated):
    round_ = start_round(project, None, {"round": {"recipe": "dpo"}})
    round_.results["snapshot"] = {"rankings": 4, "marks": 2, "anchored_rankings": 1}
    assert details_sentences(round_) == ""


def test_the_database_counts_rated_completions_as_a_loop_over_the_rankings_does(project, rated):
    completions = {"honest": set(), "kind": set()}
    for ranking in Ranking.objects.exclude(annotator__username="third").select_related("comparison__prompt"):
        if ranking.comparison.prompt.split == "train":
            for name, values in ranking.ratings.items():
                items = ranking.comparison.items.order_by("position")
                completions[name] |= {
                    item.completion_id for item, value in zip(items, values, strict=True) if value is not None
                }
    assert training_counts(trainable_rankings(project)) == {name: len(ids) for name, ids in completions.items()}
    Prompt.objects.update(split="held_out")
    assert training_counts(trainable_rankings(project)) == {"honest": 0, "kind": 0}
    assert training_counts(Ranking.objects.none()) == {}


def test_a_refusal_reads_the_ratings_by_one_query(project, rated, django_assert_num_queries):
    with django_assert_num_queries(1):
        training_counts(trainable_rankings(project))


def test_a_round_with_enough_ratings_or_none_reports_no_missing_ratings(waiting):
    assert written(waiting) == []
    assert details_sentences(waiting) == ""


def test_ratings_after_the_start_of_a_round_are_not_in_it(project, rated):
    started = start_round(project, None, LEARNED)
    later = Ranking.objects.filter(annotator__username="second").first()
    Ranking.objects.filter(pk=later.pk).update(is_live=False)
    again = {field.attname: getattr(later, field.attname) for field in Ranking._meta.fields
             if field.attname not in ("id", "sequence", "revision", "idempotency_key")}  # fmt: skip
    Ranking.objects.create(**again | {"ratings": {"honest": [1, 1, 1]}, "revision": 2, "idempotency_key": uuid.uuid4()})
    assert [row["ratings"]["honest"]["mean"] for row in written(started)] == [4.5, 1.5, 3.0] * 2


def test_settings_of_an_older_round_are_completed(waiting):
    old = {section: dict(values) for section, values in waiting.settings.items()}
    del old["round"]["min_rated_completions"], old["reward"]["attribute_weight"]
    new = completed(old)
    assert new["round"]["min_rated_completions"] == 100 and new["reward"]["attribute_weight"] > 0
    waiting.settings = old
    assert written(waiting) == []
    assert CONFIGS["reward"].from_json(old["reward"] | {"model": "m"})


@pytest.mark.parametrize("recipe", ["ppo", "q", "best_of_n"])
def test_an_attribute_can_be_a_reward_of_recipes_with_a_reward_model(project, rated, recipe):
    Ranking.objects.update(flags=[])  # q leaves completions of flagged rankings out, and here all are
    attribute_alone = [REWARDS["rewards"][1]]
    for rewards in (REWARDS["rewards"], attribute_alone):
        settings = {"round": {**LEARNED["round"], "recipe": recipe}, recipe: {"rewards": rewards}}
        started = start_round(project, None, settings)
        assert [job.name for job in started.jobs] == ["reward", "policy", "samples", "baseline", "guards"]
        for job in started.jobs[1:-1]:  # the guards have no rewards
            config = started.settings[job.program] | dict(job.settings) | jobs.models(started, job)
            assert CONFIGS[job.program].from_json(config).rewards == rewards
        started.delete()


@pytest.mark.parametrize(("name", "count"), [("kind", 1), ("funny", 0)])
def test_a_reward_by_an_unlearned_attribute_is_refused_and_the_learned_ones_are_listed(project, rated, name, count):
    with pytest.raises(Invalid) as refusal:
        start_round(project, None, {**LEARNED, "ppo": {"rewards": [{"name": "attribute", "of": name}]}})
    assert str(refusal.value.message) == (
        f'The reward term attribute cannot use "{name}": it has ratings of {count} completions of training prompts, '
        "and min_rated_completions asks for 2. Attributes with enough: honest."
    )


def test_a_reward_by_an_attribute_needs_the_loss_of_ratings(project, rated):
    with pytest.raises(Invalid, match="attribute_weight is 0"):
        start_round(project, None, {**LEARNED, "ppo": REWARDS, "reward": {"attribute_weight": 0}})


def test_the_recipe_metric_trains_no_reward_model_and_so_knows_no_attribute(project, rated):
    with pytest.raises(Invalid, match="trains no reward model"):
        start_round(project, None, {"round": {"recipe": "metric"}, "ppo": {"rewards": REWARDS["rewards"][1:]}})
