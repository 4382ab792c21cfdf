"""The recipe kto: a whole round on a tiny model, started through the API, and what its page shows."""

import pytest

from tests.training import tiny
from training.models import Round
from training.rounds import settings as round_settings
from training.rounds.recipes import RECIPES
from training.rounds.recipes.description import Counts
from training.run_round import jobs, run_round

SETTINGS = {
    "kto": {"epochs": 2, "batch_labels": 6, "labels_from": "ranks"},
}
PROGRAMS = {"kto": ["kto", "sample", "sample"]}
PAGE_TEXTS = {
    "kto": ("Good answers", "Answers without a label", 'data-metric="desirable_reward undesirable_reward"'),
}


@pytest.mark.parametrize("recipe", SETTINGS)
def test_it_begins_with_the_demonstrations_if_there_are_enough(recipe):
    settings = round_settings.resolve({"round": {"recipe": recipe}}, seed=1)
    for count, start in ((50, "sft"), (49, "base")):
        models = {job.name: job.models["model"] for job in RECIPES[recipe].jobs(settings, Counts(10, count))}
        assert ("sft" in models, models["policy"], models["samples"]) == (start == "sft", start, "policy")
        assert models.get("reward", start) == start and models["baseline"] == "base"


@pytest.mark.process
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("forked_programs")
@pytest.mark.parametrize("recipe", SETTINGS)
def test_a_round_makes_a_checkpoint(client, project, tiny_base, rankings, manager, recipe):
    client.force_login(manager)
    sections = {name: tiny.SETTINGS[name] for name in ("common", "round")}
    sections["round"] = {**sections["round"], "recipe": recipe}
    sections |= {recipe: SETTINGS[recipe]}
    answer = client.post(f"/api/v1/projects/{project.slug}/rounds", {"settings": sections}, "application/json")
    assert answer.status_code == 201, answer.content
    run_round.run(Round.objects.get().pk)
    done = Round.objects.get()
    assert (done.error, done.status) == ("", "finished")
    assert [job.program for job in done.jobs] == PROGRAMS[recipe] and done.learns_from_rankings
    made = jobs.directory_of(done) / "policy" / "model"
    assert done.checkpoint.path == str(made) and (made / "model.safetensors").is_file()
    assert done.checkpoint.reward_model_path == ""
    result = done.results["policy"]
    assert result["desirable_labels"] and result["undesirable_labels"]
    assert result["steps"] == done.metrics.filter(job="policy").count()
    page = client.get(f"/projects/{project.slug}/rounds/1/").content.decode()
    for text in (str(RECIPES[recipe].label), *PAGE_TEXTS[recipe]):
        assert text in page, text
    form = client.get(f"/projects/{project.slug}/rounds/new/?recipe={recipe}").content.decode()
    for field in RECIPES[recipe].fields:
        assert f'name="{field.section}-{field.name}"' in form
