"""A round by the recipe dpo: the policy learns from the rankings, and no reward model is trained."""

import pytest

from tests.training import tiny
from training import reports
from training.models import Round
from training.rounds import settings as round_settings
from training.rounds.recipes import RECIPES
from training.rounds.recipes.description import Counts
from training.rounds.start import start_round
from training.run_round import run_round

SETTINGS = {
    "common": tiny.SETTINGS["common"],
    "round": {**tiny.SETTINGS["round"], "recipe": "dpo"},
    "dpo": {"batch_rankings": 2, "epochs": 2, "eval_prompts": 2, "learning_rate": 0.01, "save_every": 2},
}


def test_it_begins_with_enough_demonstrations_and_its_policy_starts_from_them():
    recipe = RECIPES["dpo"]
    settings = round_settings.resolve({"round": {"recipe": "dpo"}}, seed=1)
    assert [job.name for job in recipe.jobs(settings, Counts(10, 0))] == ["policy", "samples", "baseline", "guards"]
    sft, policy, *_ = recipe.jobs(settings, Counts(10, 50))
    assert (sft.name, policy.models["model"], policy.models["reference_model"]) == ("sft", "sft", "")
    assert settings["dpo"]["loss"] == "dpo" and "ppo" not in settings and "reward" not in settings


@pytest.mark.process
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("forked_programs")
@pytest.mark.parametrize("loss", ["dpo", pytest.param("plackett_luce", marks=pytest.mark.full)])
def test_a_round_learns_from_rankings_without_a_reward_model(project, tiny_base, rankings, manager, client, loss):
    started = start_round(project, manager, {**SETTINGS, "dpo": {**SETTINGS["dpo"], "loss": loss}})
    assert started.learns_from_rankings and started.ranking_count == 6
    run_round.run(started.pk)
    done = Round.objects.get(pk=started.pk)
    assert (done.error, done.status, done.stage) == ("", "finished", "comparisons")
    assert set(done.results) == {"snapshot", "durations", "comparisons", "policy", "samples", "baseline"}
    assert done.results["policy"]["program"] == "dpo" and done.results["policy"]["kl"] is not None
    assert done.checkpoint.reward_model_path == "" and done.checkpoint.source.completions.exists()
    lines = list(done.metrics.filter(job="policy"))
    assert len(lines) == done.results["policy"]["steps"] > 1
    assert {0, len(lines)} <= set(done.samples_at_steps.filter(job="policy").values_list("step", flat=True))
    assert [stage.name for stage in reports.stages_of(done)] == ["snapshot", "policy", "samples", "comparisons"]

    client.force_login(manager)
    page = client.get(f"/projects/{project.slug}/rounds/{done.number}/").content.decode()
    assert (
        "Samples at fixed prompts" in page and "Preference" in page and "KL" in page and "Reward accuracy" not in page
    )
    assert 'data-job="policy" data-metric="reward_margin held_out_reward_margin"' in page
