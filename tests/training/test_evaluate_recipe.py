"""The recipe evaluate: a round that measures a checkpoint and makes none, on pages and through the API."""

import csv
import io
import json

import pytest

from feedback.errors import Conflict, Invalid
from feedback.models import Comparison, Completion, Prompt
from feedback.reports.source_ratings import get_ratings
from tests.factories import FAST, client_of, fake_model, rank
from training import checkpoints, evaluations, reports
from training.models import LoopSettings, Round
from training.rounds import lifecycle, schedule
from training.rounds.results import Outcome
from training.rounds.start import start_round, start_sampling
from training.run_round import jobs, run_round
from training.web.forms import LoopForm

URL = "/projects/support"
EVALUATE = {"round": {"recipe": "evaluate"}}
FIGURES = {
    "tokens": {"value": 12.5, "low": 11.0, "high": 14.0, "count": 40},
    "similarity": {"value": 0.25, "low": None, "high": None, "count": 7},
    "a_new_metric": {"value": 0.75, "low": 0.5, "high": 1.0, "count": 40},
    "reward_model": {"value": -0.5, "low": -0.75, "high": -0.25, "count": 40},
}


@pytest.fixture
def second(project, base, tmp_path):
    """A checkpoint that is not served: a child of the base with a reward model."""
    made = checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "second")), "second", verdict=FAST)
    made.parent, made.reward_model_path = base, "/models/reward"
    made.save()
    return made


def finished(project, checkpoint, figures=FIGURES):
    """Return an evaluation of the checkpoint that has ended with these figures."""
    started = evaluations.evaluate(project, None, checkpoint)
    claim = lifecycle.claim(started.pk, "gpu-1:100")
    lifecycle.store_result(claim, "evaluate", {"metrics": figures})
    lifecycle.finish(claim, Outcome.read(started, jobs.make_directory(started)))
    return Round.objects.get(pk=started.pk)


def config_of(started):
    (job,) = started.jobs
    directory = jobs.fill(started, job)
    prompts = [json.loads(line)["prompt_id"] for line in (directory / "prompts.jsonl").read_text().splitlines()]
    return json.loads((directory / "config.json").read_text()), prompts


def test_its_only_job_has_the_newest_reward_model_and_the_root(project, base, second, comparisons):
    config, prompts = config_of(evaluations.evaluate(project, None, second))
    assert [config[name] for name in ("model", "reward_model", "root_model")] == [
        second.path, "/models/reward", base.path
    ]  # fmt: skip
    assert sorted(prompts) == sorted(Prompt.objects.filter(split="held_out").values_list("pk", flat=True))


def test_greedy_answers_have_no_kl(project, base, comparisons):
    config, _ = config_of(start_round(project, None, {**EVALUATE, "evaluate": {"temperature": 0.0}}))
    assert (config["root_model"], config["reward_model"]) == ("", "")


def test_later_evaluations_are_of_the_same_prompts_with_the_same_seed(project, base, second, comparisons):
    Prompt.objects.update(split="held_out")
    limited, chosen = {"round": {"recipe": "evaluate", "evaluation_prompts": 6}}, []
    for checkpoint in (base, second):
        started = start_sampling(project, None, limited, checkpoint)
        config, prompts = config_of(started)
        assert (config["model"], config["seed"]) == (checkpoint.path, 0)
        chosen.append(prompts)
        lifecycle.request_cancel(started)
    assert chosen[0] == chosen[1] and len(chosen[0]) == 6


def test_it_ends_without_a_checkpoint_completions_or_comparisons(project, base, second, comparisons):
    before = Completion.objects.count(), Comparison.objects.count(), project.checkpoints.count()
    done = finished(project, second)
    assert (done.number, done.status, done.stage) == (1, "finished", "result")
    assert done.checkpoint is None and not done.learns
    assert [stage.name for stage in reports.stages_of(done)] == ["snapshot", "evaluate", "result"]
    assert (Completion.objects.count(), Comparison.objects.count(), project.checkpoints.count()) == before
    assert checkpoints.served(project) == base and checkpoints.served_before(project) is None


@pytest.mark.slow
def test_rankings_stay_new_after_an_evaluation(project, base, rankings):
    schedule.configure(project, 6)
    finished(project, base)
    assert reports.loop_of(project).new_rankings == 6
    (automatic,) = schedule.start_due()
    assert automatic.recipe.name == "ppo" and automatic.learns


def test_it_cannot_be_the_recipe_of_all_rounds(project, base):
    with pytest.raises(Invalid, match='"evaluate" trains nothing: choose it for one round'):
        schedule.configure(project, None, EVALUATE)
    assert not LoopSettings.objects.exists()
    assert "evaluate" not in dict(LoopForm().fields["recipe"].choices)


def test_it_needs_held_out_prompts_and_a_checked_checkpoint(project, base, second, comparisons):
    second.verdict = "waiting"
    second.save()
    with pytest.raises(Conflict, match="second is not checked yet"):
        evaluations.evaluate(project, None, second)
    Prompt.objects.update(split="train")
    with pytest.raises(Invalid, match="no held-out prompts to evaluate on"):
        evaluations.evaluate(project, None, base)


def test_a_simulated_user_that_is_not_there_is_refused_at_the_start(project, base, comparisons):
    environment = {"name": "dialogue", "user": "checkpoint", "model": "nobody"}
    with pytest.raises(Invalid, match='no checkpoint "nobody" that could be the simulated user'):
        start_round(project, None, {**EVALUATE, "evaluate": {"environment": environment}})
    config, _ = config_of(
        start_round(project, None, {**EVALUATE, "evaluate": {"environment": environment | {"model": "base"}}})
    )
    assert config["environment"]["model"] == base.path


@pytest.mark.slow
def test_the_page_of_the_round_shows_the_table(client, project, base, second, comparisons, manager):
    finished(project, base)
    client.force_login(manager)
    page = client.get(f"{URL}/rounds/1/")
    assert [row.name for row in page.context["evaluation"]] == ["similarity", "reward_model", "tokens", "a_new_metric"]
    text = page.content.decode()
    for part in ("It measures base and makes no checkpoint.", "by the reward model of second", "-0.750 to -0.250"):
        assert part in text, part
    assert "Samples, and promote" not in text and "sampling only" not in client.get(f"{URL}/console/").content.decode()
    assert client.get(f"{URL}/rounds/1/samples/").status_code == 404


def test_the_table_is_downloaded_as_json_and_csv(client, project, base, second, comparisons, manager):
    finished(project, base)
    client.force_login(manager)
    answer = client.get(f"{URL}/rounds/1/evaluation.json")
    assert answer.json() == {"round": 1, "checkpoint": "base", "reward_model": "second", "metrics": FIGURES}
    answer = client.get(f"{URL}/rounds/1/evaluation.csv")
    assert answer["Content-Disposition"] == 'attachment; filename="support-round-1.csv"'
    header, *rows = csv.reader(io.StringIO(answer.content.decode()))
    assert header == ["metric", "value", "low", "high", "count"]
    assert rows[0] == ["similarity", "0.25", "", "", "7"] and rows[2] == ["tokens", "12.5", "11.0", "14.0", "40"]
    start_round(project, None, EVALUATE)
    assert client.get(f"{URL}/rounds/2/evaluation.csv").status_code == 404


@pytest.mark.slow
def test_a_checkpoints_page_has_its_evaluations_side_by_side_beside_its_human_rating(
    client, project, base, comparisons, annotator, manager
):
    client.force_login(manager)
    address = f"{URL}/checkpoints/{base.pk}/"
    page = client.get(address).content.decode()
    assert "Nobody has compared" in page and "No evaluation yet" in page
    finished(project, base)
    finished(project, base, {"similarity": {"value": 0.5, "low": 0.4, "high": 0.6, "count": 40}})
    answer = client.get(address)
    assert [round_.number for round_ in answer.context["evaluations"]] == [2, 1]
    rows = {str(row.label): [cell and cell.value for cell in row.cells] for row in answer.context["history"]}
    assert rows["Similarity to the references"] == [0.5, 0.25] and rows["Length"] == [None, 12.5]
    assert "0.400 to 0.600" in answer.content.decode()
    ids = [row.completions.first().pk for row in project.comparisons.all()]
    Completion.objects.filter(pk__in=ids).update(source=base.source)
    rank(project, annotator, 6)
    rating = client.get(address).context["rating"]
    assert rating.source_id == base.source_id and rating.wins + rating.ties + rating.losses == 12
    assert rating == next(one for one in get_ratings(project).ratings.ratings if one.source_id == base.source_id)
    assert client.get(f"{URL}/checkpoints/999999/").status_code == 404


@pytest.mark.slow
def test_a_checkpoint_shows_its_newest_evaluation(client, project, base, second, comparisons, manager):
    finished(project, base)
    finished(project, base, {"similarity": {"value": 0.5, "low": 0.4, "high": 0.6, "count": 40}})
    lifecycle.request_cancel(evaluations.evaluate(project, None, base))
    client.force_login(manager)
    page = client.get(f"{URL}/console/").content.decode()
    assert f'<a href="{URL}/rounds/2/">Evaluated in round 2</a> · Similarity to the references 0.500' in page
    assert page.count("Evaluated in round") == 1
    listed = client_of(manager).get(f"/api/v1{URL}/checkpoints").json()
    assert {row["name"]: row["evaluation"] for row in listed} == {"base": 2, "second": None}


@pytest.mark.slow
def test_the_button_evaluates_one_checkpoint(client, project, base, second, comparisons, manager):
    client.force_login(manager)
    address = f"{URL}/checkpoints/{second.pk}/evaluate/"
    assert address in client.get(f"{URL}/console/").content.decode()
    assert client.get(address).status_code == 405
    assert client.post(address).url == f"{URL}/rounds/1/"
    assert Round.objects.get().base == second and Round.objects.get().started_by == manager
    assert client.post(address).status_code == 409, "another round is active"
    assert address not in client.get(f"{URL}/console/").content.decode()


def test_a_failed_evaluation_is_started_again_with_other_settings(client, project, base, second, comparisons, manager):
    lifecycle.fail(lifecycle.claim(evaluations.evaluate(project, None, second).pk, "worker"), "out of memory")
    client.force_login(manager)
    opened = client.get(f"{URL}/rounds/new/?again=1")
    names = set(opened.context["form"].fields)
    assert {name for name in names if name.startswith("round-")} == {"round-evaluation_prompts", "round-processes"}
    assert {name.partition("-")[0] for name in names} == {"again", "round", "evaluate", "common"}
    fields = opened.context["form"].fields.items()
    values = {name: field.initial for name, field in fields if field.initial is not None}
    client.post(f"{URL}/rounds/start/", values | {"again": 1, "evaluate-completions_per_prompt": 3})
    again = Round.objects.get(number=2)
    assert (again.base, again.recipe.name, again.learns) == (second, "evaluate", False)
    assert again.settings["evaluate"]["completions_per_prompt"] == 3


@pytest.mark.full
@pytest.mark.process
@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("forked_programs")
def test_a_round_measures_a_checkpoint_that_is_not_served(project, tiny_base, tiny_model, comparisons, manager):
    other = checkpoints.import_checkpoint(project, str(tiny_model), "other", verdict=FAST)
    Prompt.objects.filter(pk__in=Prompt.objects.order_by("pk").values("pk")[:5]).update(
        split="held_out", references=["Soon."]
    )
    api, sizes = client_of(manager), {"max_prompt_tokens": 32, "max_completion_tokens": 8}
    body = {"settings": {**EVALUATE, "common": sizes}, "checkpoint": other.pk}
    assert api.post(f"/api/v1{URL}/rounds", body, format="json").status_code == 201
    run_round.run(Round.objects.get().pk)
    done = api.get(f"/api/v1{URL}/rounds/1").json()
    assert (done["status"], done["error"], done["base"], done["checkpoint"]) == ("finished", "", "other", None)
    assert (done["recipe"], done["learns"], done["stages"]) == ("evaluate", False, ["snapshot", "evaluate", "result"])
    figures = done["results"]["evaluate"]["metrics"]
    held_out = project.prompts.filter(split="held_out").count()
    assert figures["tokens"]["count"] == held_out and figures["similarity"]["count"] == 5
    assert figures["kl_from_root"]["value"] == pytest.approx(0, abs=1e-6) and "reward_model" not in figures
    assert not other.source.completions.exists()
