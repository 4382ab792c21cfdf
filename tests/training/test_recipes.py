"""Recipes: jobs, settings, pages and API of a round follow from its recipe."""

import json
import re

import pytest

from feedback.errors import Invalid
from tests.factories import FAST, fake_model
from training import checkpoints, reports
from training.models import Round
from training.rounds import recipes, schedule
from training.rounds import settings as round_settings
from training.rounds.recipes.description import (
    NONE,
    PROMPTS_TO_ANSWER,
    RANKINGS,
    ROOT,
    Counts,
    Curve,
    Fact,
    FormField,
    Job,
    Recipe,
    Stage,
)
from training.rounds.recipes.parts import sample_jobs
from training.rounds.start import settings_of_repeat, start_round
from training.run_round import jobs

DRAFTS = Stage("drafts", "Drafts")


def two_passes(settings, counts):
    """The root writes drafts, which the base is fine-tuned on."""
    return (
        Job("drafts", DRAFTS, "sample", {"prompts.jsonl": PROMPTS_TO_ANSWER}, {"model": ROOT}, {"temperature": 0.5}),
        Job(
            "policy",
            Stage("policy", "Imitation"),
            "sft",
            {"demonstrations.jsonl": "drafts/samples.jsonl", "rankings.jsonl": RANKINGS},
            {"model": "base"},
            curves=(Curve("Loss of imitation", "loss", ("training",)),),
            facts=(Fact("loss", "Last loss", "of imitation"),),
        ),
        *sample_jobs(settings, "policy", NONE),
    )


@pytest.fixture
def drafts(monkeypatch):
    recipe = Recipe(
        "drafts",
        "Two passes",
        "Drafts by the root, imitated.",
        ("sft", "sample", "guards"),
        two_passes,
        (FormField("sft", "epochs"),),
    )
    monkeypatch.setitem(recipes.RECIPES, "drafts", recipe)
    limits = round_settings.RoundSettings.__dataclass_fields__["recipe"].metadata["limits"]
    monkeypatch.setitem(limits, "choices", tuple(recipes.RECIPES))
    return {"round": {"recipe": "drafts", "shown_prompts": 0}}


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_is_described_completely(name):
    recipe = recipes.RECIPES[name]
    assert recipe.name == name and str(recipe.label) and str(recipe.help).endswith(".")
    settings = round_settings.completed({"round": {"recipe": name}})
    listed = recipe.jobs(settings, Counts(100, 100))
    assert {job.program for job in listed} <= set(recipe.programs)
    names = [job.name for job in listed]
    assert len(set(names)) == len(names)
    assert ("samples" in names[1:]) == recipe.learns
    assert all(len(text) <= 20 for job in listed for text in (job.name, job.stage.name))
    assert {job.stage.name for job in listed} <= set(names), "a stage has the name of its first job"
    for field in recipe.fields:
        assert field.name in settings[field.section]


@pytest.mark.parametrize(("algorithm", "has_critic"), [("ppo", True), ("grpo", False), ("reinforce", False)])
def test_only_an_algorithm_with_a_critic_draws_a_value_loss(algorithm, has_critic):
    settings = round_settings.completed({"round": {"recipe": "ppo"}, "ppo": {"algorithm": algorithm}})
    policy = next(job for job in recipes.RECIPES["ppo"].jobs(settings, Counts()) if job.name == "policy")
    drawn = {name for curve in policy.curves for name in curve.metrics.split()}
    assert ({"value_loss", "explained_variance"} <= drawn, "value_loss" in drawn) == (has_critic, has_critic)
    assert {"reward", "kl", "objective", "entropy", "clip_fraction", "ended_fraction", "tokens_per_second"} <= drawn


def test_a_round_that_was_stored_before_recipes_is_ppo(waiting):
    del waiting.settings["round"]["recipe"]
    waiting.save()
    stored = Round.objects.get()
    assert stored.recipe.name == "ppo" and [job.name for job in stored.jobs][:2] == ["reward", "policy"]
    assert settings_of_repeat(stored)["ppo"] and stored.reward_terms == ["reward_model"]


def test_a_recipe_is_stored_with_the_sections_that_it_uses(project, base, rankings, drafts):
    schedule.configure(project, None, {"ppo": {"steps": 7}, "sample": {"temperature": 0.7}})
    started = start_round(project, None, {**drafts, "common": {"dtype": "bfloat16"}})
    assert set(started.settings) == {"round", "sft", "sample", "guards"}
    assert started.settings["sft"]["dtype"] == "bfloat16" and started.settings["sample"]["temperature"] == 0.7
    assert (started.recipe.name, started.learns_from_rankings, started.ranking_count) == ("drafts", True, 6)


@pytest.mark.parametrize(("recipe", "section"), [("drafts", "ppo"), ("drafts", "reward"), ("ppo", "dpo_")])
def test_a_section_that_the_recipe_does_not_use_is_refused(project, base, rankings, drafts, recipe, section):
    with pytest.raises(Invalid, match=f'recipe "{recipe}" has no section "{section}" of settings: use round, common, '):
        start_round(project, None, {"round": {"recipe": recipe}, section: {}})
    assert not Round.objects.exists()


@pytest.mark.slow
def test_job_directories_are_filled_from_the_description(project, base, rankings, drafts):
    started = start_round(project, None, drafts)
    first, second, samples, guards = started.jobs
    directory = jobs.fill(started, first)
    config = json.loads((directory / "config.json").read_text())
    assert (config["model"], config["temperature"]) == (base.path, 0.5)
    (directory / "samples.jsonl").write_text('{"text": "a draft"}\n')
    directory = jobs.fill(started, second)
    assert (directory / "demonstrations.jsonl").read_text() == '{"text": "a draft"}\n'
    assert jobs.snapshot_of(directory)["rankings"] == 6
    assert jobs.models(started, samples) == {
        "model": str(jobs.directory_of(started) / "policy" / "model"), "reward_model": ""
    }  # fmt: skip
    assert (guards.name, jobs.models(started, guards)["base_model"]) == ("guards", base.path)


def test_the_root_of_a_checkpoint_is_its_imported_ancestor(project, base, tmp_path):
    second = checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "b")), "b", verdict=FAST)
    third = checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "c")), "c", verdict=FAST)
    second.parent, third.parent = base, second
    assert (third.root, base.root) == (base, base)


@pytest.fixture
def child(project, base, tmp_path):
    """A served checkpoint whose root is `base`."""
    made = checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "child")), "child", verdict=FAST)
    made.parent = base
    made.save()
    checkpoints.promote(made, None)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(("reference", "expected"), [("base", ""), ("root", "imported ancestor")])
def test_the_policy_stays_close_to_the_base_or_to_its_root(project, base, rankings, child, reference, expected):
    started = start_round(project, None, {"round": {"reference": reference}})
    assert started.base == child
    (policy,) = [job for job in started.jobs if job.program == "ppo"]
    assert jobs.models(started, policy)["reference_model"] == (base.path if expected else "")


@pytest.mark.slow
def test_pages_and_api_follow_the_recipe(client, project, base, rankings, manager, drafts):
    client.force_login(manager)
    page = client.get(f"/projects/{project.slug}/rounds/new/?recipe=drafts").content.decode()
    assert (
        "Drafts by the root, imitated." in page
        and "Passes over the demonstrations" in page
        and "Policy steps" not in page
    )
    started = client.post(
        f"/projects/{project.slug}/rounds/start/", {"recipe": "drafts", **fields(page), "sft-epochs": "3"}
    )
    assert started.status_code == 302, started.content.decode()
    round_ = Round.objects.get()
    assert (round_.recipe.name, round_.settings["sft"]["epochs"]) == ("drafts", 3)
    assert [stage.name for stage in reports.stages_of(round_)] == [
        "snapshot", "drafts", "policy", "samples", "guards", "comparisons"
    ]  # fmt: skip
    round_.results = {"policy": {"loss": 0.25}}
    round_.save()
    page = client.get(started.url).content.decode()
    for text in ("Two passes", "Drafts</li>", "Last loss", "0.25", 'data-job="policy" data-metric="loss"'):
        assert text in page, text


def fields(page):
    """The initial values of the form's fields in a page."""
    inputs = re.findall(r"<input[^>]*>", page)
    pairs = ((re.search(r'name="(\w+-\w+)"', tag), re.search(r'value="([^"]*)"', tag)) for tag in inputs)
    return {name[1]: value[1] for name, value in pairs if name and value}


@pytest.mark.slow
def test_the_recipe_of_automatic_rounds_is_chosen_on_the_page(client, project, base, rankings, manager, drafts):
    schedule.configure(project, None, {"ppo": {"steps": 7}, "sample": {"temperature": 0.7}})
    client.force_login(manager)
    address = f"/projects/{project.slug}/rounds/automatic/"
    assert client.post(address, {"round_every": "3", "recipe": "unknown"}).status_code == 400
    client.post(address, {"round_every": "3", "recipe": "ppo"})
    project.loop.refresh_from_db()
    assert project.loop.settings["ppo"] == {"steps": 7}
    schedule.configure_with_recipe(project, 3, "drafts")
    project.loop.refresh_from_db()
    assert project.loop.settings == {"sample": {"temperature": 0.7}, "round": {"recipe": "drafts"}}
    (automatic,) = schedule.start_due()
    assert automatic.recipe.name == "drafts"
