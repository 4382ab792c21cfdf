"""The recipe best_of_n: a whole round on a tiny model, started through the API, and what its pages show."""

import json

import pytest

from tests.training import tiny
from training import reports
from training.models import Round
from training.rounds import settings as round_settings
from training.rounds.recipes import RECIPES
from training.rounds.recipes.description import Counts
from training.run_round import jobs, run_round

SMALL = {"completions_per_prompt": 2, "prompts_per_iteration": 4, "sampling_prompts": 2, "batch_completions": 2,
         "iterations": 2, "epochs": 2, "eval_prompts": 2, "optimum_samples": 2}  # fmt: skip


def jobs_with(counts, **settings):
    resolved = round_settings.resolve({"round": {"recipe": "best_of_n"}, "best_of_n": settings}, seed=1)
    return {job.name: job for job in RECIPES["best_of_n"].jobs(resolved, counts)}


def test_a_reward_model_is_trained_only_if_it_is_a_term():
    listed = jobs_with(Counts(10, 0))
    assert list(listed) == ["reward", "policy", "samples", "baseline", "guards"]
    assert listed["policy"].models["reward_model"] == listed["samples"].models["reward_model"] == "reward"
    listed = jobs_with(Counts(10, 0), rewards=[{"name": "similarity"}])
    assert list(listed) == ["policy", "samples", "baseline", "guards"] and listed["policy"].models["reward_model"] == ""
    assert listed["samples"].settings["rewards"] == [{"name": "similarity"}]


def test_it_begins_with_the_demonstrations_if_there_are_enough():
    for count, start in ((50, "sft"), (49, "base")):
        models = {name: job.models["model"] for name, job in jobs_with(Counts(10, count)).items()}
        assert ("sft" in models, models["reward"], models["policy"]) == (start == "sft", start, start)


@pytest.mark.full
@pytest.mark.process
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("forked_programs")
def test_a_round_makes_a_checkpoint(client, project, tiny_base, rankings, manager):
    client.force_login(manager)
    sections = {name: tiny.SETTINGS[name] for name in ("common", "reward")}
    sections |= {"round": {**tiny.SETTINGS["round"], "recipe": "best_of_n"}, "best_of_n": SMALL}
    answer = client.post(f"/api/v1/projects/{project.slug}/rounds", {"settings": sections}, "application/json")
    assert answer.status_code == 201, answer.content
    run_round.run(Round.objects.get().pk)
    done = Round.objects.get()
    assert (done.error, done.status) == ("", "finished")
    assert [job.program for job in done.jobs] == ["reward", "best_of_n", "sample", "sample"]
    assert done.learns_from_rankings and done.checkpoint.parent == tiny_base and done.checkpoint.reward_model_path
    directory = jobs.directory_of(done) / "policy"
    assert done.checkpoint.path == str(directory / "model") and (directory / "model" / "model.safetensors").is_file()
    result = done.results["policy"]
    assert result["program"] == "best_of_n" and result["picks"] == result["imitated_picks"] == 4
    assert result["picked_reward"] >= result["sampled_reward"] and result["kl"] is not None
    assert result["steps"] == done.metrics.filter(job="policy").count() == 2 * (2 + 2 * 2)
    picked = {json.loads(line)["prompt_id"] for line in (directory / "picks.jsonl").read_text().splitlines()}
    assert picked <= set(project.prompts.filter(split="train").values_list("pk", flat=True))

    assert [stage.name for stage in reports.stages_of(done)] == [
        "snapshot", "reward", "policy", "samples", "comparisons"
    ]  # fmt: skip
    page = client.get(f"/projects/{project.slug}/rounds/1/").content.decode()
    for text in ("Best of n", "Mean reward of the best of n", 'data-metric="reward picked_reward"'):
        assert text in page, text
    form = client.get(f"/projects/{project.slug}/rounds/new/?recipe=best_of_n").content.decode()
    for field in RECIPES["best_of_n"].fields:
        assert f'name="{field.section}-{field.name}"' in form
