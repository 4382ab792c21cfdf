"""Demonstrations in rounds: when and how many are imitated, and the figures on held-out ones."""

import json

import pytest

from feedback import imports
from feedback.actions import members
from feedback.errors import Invalid
from feedback.models import Prompt
from tests.training import tiny
from training import reports
from training.models import Round
from training.rounds import settings as round_settings
from training.rounds.recipes import RECIPES
from training.rounds.recipes.description import Counts
from training.rounds.settings import resolve
from training.rounds.start import start_round
from training.run_round import jobs, run_round
from training.web.round_form import RoundForm


def demonstrate(project, author, split, count):
    """Write demonstrations of the first prompts of a split."""
    member = members.membership_of(author, project.slug)
    for prompt in project.prompts.filter(split=split).order_by("pk")[:count]:
        imports.add_demonstration(member, prompt, f"The answer to {prompt.pk}.")


@pytest.fixture
def demonstrations(project, comparisons, annotator):
    """Three demonstrations to learn from, and two that only measure."""
    demonstrate(project, annotator, "train", 3)
    demonstrate(project, annotator, "held_out", 2)


@pytest.mark.parametrize("recipe", ["ppo", "metric"])
@pytest.mark.parametrize(
    ("chosen", "count", "first", "sentence"),
    [
        ({}, 50, True, "It imitates 50 demonstrations."),
        ({}, 49, False, "49 demonstrations are too few to imitate: the settings ask for 50."),
        ({}, 0, False, ""),
        ({"min_demonstrations": 1}, 1, True, "It imitates 1 demonstration."),
        ({"sft_first": "always"}, 2, True, "It imitates 2 demonstrations."),
        ({"sft_first": "never"}, 99, False, "Its settings leave out 99 demonstrations."),
    ],
)
def test_a_round_begins_with_its_demonstrations_if_there_are_enough(recipe, chosen, count, first, sentence):
    settings = round_settings.resolve({"round": {"recipe": recipe, **chosen}}, seed=1)
    counts = Counts(10, count)
    listed = RECIPES[recipe].jobs(settings, counts)
    assert (listed[0].name == "sft") == first
    start = "sft" if first else "base"
    assert {job.models["model"] for job in listed if job.name in ("reward", "policy")} == {start}
    assert {job.name: job.models["model"] for job in listed}["baseline"] == "base"
    assert reports.imitation_sentence(RECIPES[recipe], settings, counts) == sentence


@pytest.mark.slow
def test_only_demonstrations_of_training_prompts_are_learned_from(project, base, demonstrations):
    started = start_round(project, None, {"round": {"recipe": "sft"}})
    assert (started.demonstration_count, started.demonstrations_used, started.ranking_count) == (3, 3, 0)
    directory = jobs.fill(started, started.jobs[0])
    rows = [json.loads(line) for line in (directory / "demonstrations.jsonl").read_text().splitlines()]
    assert [row["split"] for row in rows] == ["train"] * 3 + ["held_out"] * 2
    assert rows[0]["completion"].startswith("The answer to ") and rows[0]["messages"][0]["role"] == "user"
    assert jobs.snapshot_of(directory) == {"demonstrations": 3, "held_out_demonstrations": 2}


def test_later_demonstrations_do_not_change_a_round(project, base, demonstrations, colleague):
    started = start_round(project, None, {"round": {"recipe": "sft"}})
    demonstrate(project, colleague, "train", 2)
    assert jobs.snapshot_of(jobs.fill(started, started.jobs[0]))["demonstrations"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [{"recipe": "sft"}, {"recipe": "metric", "sft_first": "always"}])
def test_imitation_without_demonstrations_is_refused(project, base, comparisons, annotator, chosen):
    Prompt.objects.update(references=["Soon."])
    with pytest.raises(Invalid, match="There are no demonstrations to imitate yet"):
        start_round(project, None, {"round": chosen})
    demonstrate(project, annotator, "held_out", 2)
    with pytest.raises(Invalid, match="All demonstrations answer held-out prompts"):
        start_round(project, None, {"round": chosen})


def test_the_recipe_metric_trains_no_reward_model(project, base, comparisons):
    with pytest.raises(Invalid, match=r"similarity.* needs"):
        start_round(project, None, {"round": {"recipe": "metric"}})
    Prompt.objects.update(references=["Soon."])
    for rewards in ([{"name": "reward_model"}], [{"name": "rouge_l"}, {"name": "reward_model"}]):
        with pytest.raises(Invalid, match="the recipe metric trains no reward model"):
            start_round(project, None, {"round": {"recipe": "metric"}, "ppo": {"rewards": rewards}})
    started = start_round(project, None, {"round": {"recipe": "metric"}, "ppo": {"rewards": [{"name": "bleu"}]}})
    assert [job.name for job in started.jobs] == ["policy", "samples", "baseline", "guards"]
    assert (started.reward_terms, "reward" in started.settings) == (["bleu"], False)


@pytest.mark.slow
def test_a_metric_is_chosen_on_the_page(client, project, base, comparisons, manager):
    Prompt.objects.update(references=["Soon."])
    client.force_login(manager)
    page = client.get(f"/projects/{project.slug}/rounds/new/?recipe=metric").content.decode()
    assert '<option value="similarity" selected>' in page and '<option value="rouge_l">' in page
    settings = round_settings.resolve({"round": {"recipe": "metric"}}, seed=0)
    shown = {"ppo-steps": 5, "ppo-batch_episodes": 64, "ppo-learning_rate": 0, "ppo-kl_coefficient": 0.05,
             "round-prompts": 200, "sample-completions_per_prompt": 4, "sample-temperature": 1,
             "round-guard_prompts": 200,
             "common-max_completion_tokens": settings["ppo"]["max_completion_tokens"],
             "round-processes": 1, "round-reference": "base", "round-critic_start": "new"}  # fmt: skip
    client.post(f"/projects/{project.slug}/rounds/start/", {"recipe": "metric", "ppo-rewards": "rouge_l", **shown})
    started = Round.objects.get()
    assert (started.reward_terms, started.settings["ppo"]["steps"]) == (["rouge_l"], 5)


@pytest.mark.slow
def test_an_imitation_is_not_rewarded_by_the_terms_that_score_its_samples(
    client, project, base, comparisons, annotator, manager
):
    Prompt.objects.update(references=["Soon."])
    demonstrate(project, annotator, "train", 3)
    settings = {"round": {"recipe": "sft"}, "sample": {"rewards": [{"name": "rouge_l"}]}}
    started = start_round(project, manager, settings)
    started.results["samples"] = {"score_mean": 0.251}
    started.save()
    client.force_login(manager)
    page = client.get(f"/projects/{project.slug}/rounds/1/").content.decode()
    assert "rewarded by" not in page and "It imitates 3 demonstrations." in page
    assert "Mean score of the samples" in page and "0.251" in page
    assert RoundForm(None, resolve(settings, seed=0)).terms == []
    assert RoundForm(None, resolve({"round": {"recipe": "metric"}}, seed=0)).terms == ["similarity"]


@pytest.mark.process
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("forked_programs")
@pytest.mark.parametrize("recipe", [pytest.param("sft", marks=pytest.mark.full), "ppo"])
def test_demonstrations_change_the_next_checkpoint(client, project, tiny_base, rankings, annotator, manager, recipe):
    demonstrate(project, annotator, "train", 3)
    demonstrate(project, annotator, "held_out", 2)
    sft = {"epochs": 20, "learning_rate": 0.01}
    own = {"round": {**tiny.SETTINGS["round"], "recipe": recipe, "min_demonstrations": 3}, "sft": sft}
    others = {name: tiny.SETTINGS[name] for name in ("common", "reward", "ppo") if recipe == "ppo" or name == "common"}
    started = start_round(project, manager, {**others, **own})
    run_round.run(started.pk)
    done = Round.objects.get(pk=started.pk)
    assert (done.error, done.status) == ("", "finished")
    learned = done.results["sft"]
    assert (learned["demonstrations"], learned["held_out_demonstrations"]) == (3, 2)
    assert learned["held_out_loss"] < 0.8 * learned["held_out_loss_before"]
    assert done.results["snapshot"]["demonstrations"] == 3
    made = jobs.directory_of(done) / ("policy" if recipe == "ppo" else "sft") / "model"
    assert done.checkpoint.path == str(made) and (made / "model.safetensors").is_file()
    client.force_login(manager)
    page = client.get("/projects/support/rounds/1/").content.decode()
    assert "It imitates 3 demonstrations." in page and "Imitation loss before" in page
    assert 'data-job="sft" data-metric="loss held_out_loss"' in page
