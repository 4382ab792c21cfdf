"""The console's pages."""

from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone

from feedback.actions.rankings import revise_ranking
from feedback.models import Membership, Project
from feedback.reports import quality_snapshot
from tests.factories import FAST, fake_model
from training import checkpoints, curves
from training.models import Round
from training.rounds import lifecycle, results
from training.rounds.settings import resolve
from training.rounds.start import start_round, start_sampling

pytestmark = pytest.mark.slow

URL = "/projects/support"


def signed_in(user):
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def console(manager):
    return signed_in(manager)


def round_form(page) -> dict[str, object]:
    """The fields of the page's form of a new round, as a browser sends them back."""
    form = page.context["form"]
    return {name: form[name].value() for name in form.fields if form[name].value() is not None}


@pytest.fixture
def finished(waiting, claim, project):
    """The waiting round, finished: its checkpoint and its base have answered the first prompts."""
    pks = list(project.prompts.order_by("pk").values_list("pk", flat=True))

    def answers(pk, text, score):
        return {"prompt_id": pk, "text": text, "sampling": {"round": 1, "score": score}}

    outcome = results.Outcome(
        model="/models/new",
        reward_model="/models/reward",
        samples=[answers(pk, f"new {n} to {pk}", 2.0 + n) for pk in pks[:5] for n in range(3)],
        baseline=[answers(pk, f"old to {pk}", 1.0) for pk in pks[:2]],
    )
    lifecycle.finish(claim, outcome)
    return Round.objects.get(pk=waiting.pk)


def test_the_console_of_an_empty_project_says_what_to_do(console, project):
    page = console.get(f"{URL}/console/")
    assert page.status_code == 200
    assert "No checkpoint is served yet" in page.content.decode()


def test_the_console_shows_whether_the_labels_can_be_trusted(console, base, rankings):
    page = console.get(f"{URL}/console/").content.decode()
    assert "Can the labels be trusted?" in page
    assert "Unknown: no pair of completions was ranked by two people" in page


def test_without_rankings_the_console_shows_no_verdict_on_the_labels(console, base):
    assert console.get(f"{URL}/console/").context["verdict"] is None


def test_the_console_summarises_the_loop(console, finished):
    page = console.get(f"{URL}/console/")
    assert (page.context["ranking_count"], page.context["new_rankings"], page.context["refusal"]) == (6, 0, "")
    assert "round-0001" in page.content.decode()


def test_the_forms_changes_are_the_rounds_settings(console, base, rankings, project):
    data = round_form(console.get(f"{URL}/rounds/new/"))
    answer = console.post(f"{URL}/rounds/start/", {**data, "ppo-steps": "7"})
    assert answer.url == f"{URL}/rounds/1/"
    started = Round.objects.get()
    assert started.settings["ppo"]["steps"] == 7
    assert started.settings == {
        **resolve({"ppo": {"steps": 7}}, seed=1),
    }


def test_a_setting_out_of_range_is_an_error_at_its_field(console, base, rankings):
    data = round_form(console.get(f"{URL}/rounds/new/"))
    answer = console.post(f"{URL}/rounds/start/", {**data, "ppo-steps": "0"})
    assert answer.status_code == 200
    assert answer.context["form"].errors == {"ppo-steps": ["Must be at least 1."]}
    assert not Round.objects.exists()


def test_a_short_models_first_completions_can_be_written_from_the_console(console, project, tmp_path, comparisons):
    """The defaults ask for 512 + 256 tokens, and a model of 512 positions has no room for them."""
    folder = fake_model(tmp_path / "short", max_position_embeddings=512)
    checkpoints.import_checkpoint(project, str(folder), "short", serve=True, verdict=FAST)
    shown = round_form(console.get(f"{URL}/rounds/new/"))
    console.post(f"{URL}/rounds/sample/")
    for settings in (Round.objects.get().settings[program] for program in ("sample", "ppo", "reward")):
        assert (settings["max_prompt_tokens"], settings["max_completion_tokens"]) == (342, 170)
    assert shown["common-max_completion_tokens"] == 170


def test_a_failed_round_is_started_again_with_other_settings(console, base, rankings, project):
    chosen = {"ppo": {"algorithm": "grpo", "completions_per_prompt": 4}, "common": {"max_completion_tokens": 300}}
    lifecycle.fail(lifecycle.claim(start_round(project, None, chosen).pk, "worker"), "out of memory")
    page = console.get(f"{URL}/rounds/1/").content.decode()
    assert f"{URL}/rounds/new/?again=1" in page
    opened = console.get(f"{URL}/rounds/new/?again=1")
    assert "the settings of round 1" in opened.content.decode()
    console.post(f"{URL}/rounds/start/", {**round_form(opened), "common-max_completion_tokens": 64})
    again = Round.objects.get(number=2).settings
    assert (again["ppo"]["algorithm"], again["ppo"]["seed"]) == ("grpo", 2)
    assert {again[program]["max_completion_tokens"] for program in ("reward", "ppo", "sample")} == {64}


def test_a_failed_sampling_is_started_again_with_other_settings(console, base, comparisons, project):
    lifecycle.fail(lifecycle.claim(start_sampling(project, None).pk, "worker"), "no room for the prompt")
    opened = console.get(f"{URL}/rounds/new/?again=0")
    of_training = {name for name in opened.context["form"].fields if name.startswith(("ppo", "reward"))}
    assert of_training == {"ppo-environment", "ppo-environment-user", "ppo-environment-turns"}  # the samples have it
    console.post(f"{URL}/rounds/start/", {**round_form(opened), "round-prompts": 5})
    again = Round.objects.get(number=1)
    assert (again.learns, again.base, again.settings["round"]["prompts"]) == (False, base, 5)


def test_a_finished_round_is_started_again_with_other_settings(console, finished, base):
    assert f"{URL}/rounds/new/?again=1" in console.get(f"{URL}/rounds/1/").content.decode()
    opened = console.get(f"{URL}/rounds/new/?again=1")
    page = opened.content.decode()
    assert "the settings of round 1: change what should differ" in page and f"It starts from {base}." in page
    console.post(f"{URL}/rounds/start/", {**round_form(opened), "round-prompts": 7})
    again = Round.objects.get(number=2)
    assert (again.status, again.base, again.settings["round"]["prompts"]) == ("waiting", base, 7)
    assert f"{URL}/rounds/new/?again=2" not in console.get(f"{URL}/rounds/2/").content.decode()


def test_no_other_projects_round_lends_its_settings(console, base, rankings):
    assert console.get(f"{URL}/rounds/new/?again=7").status_code == 404
    assert console.get(f"{URL}/rounds/new/?again=x").status_code == 404


def test_a_round_is_followed_until_its_end(console, waiting, claim):
    assert console.get(f"{URL}/rounds/1/").status_code == 200
    lifecycle.set_stage(claim, "policy")
    lifecycle.record_metrics(claim, "policy", [{"step": 3, "total": 12, "time": 1.0, "kl": 0.5}], from_start=True)
    status = console.get(f"{URL}/rounds/1/status/")
    assert (status.status_code, status.context["progress"]) == (200, 25.0)
    assert [stage["state"] for stage in status.context["stages"]] == ["done", "done", "now", "next", "next", "next"]
    first = console.get(f"{URL}/rounds/1/metrics/").json()
    assert first["ended"] is False
    (curve,) = first["curves"]
    assert curve == {"job": "policy", "metric": "kl", "steps": [3], "values": [0.5], "means": []}
    lifecycle.record_metrics(claim, "policy", [{"step": 4, "total": 12, "time": 2.0, "kl": 0.7}], from_start=False)
    later = console.get(f"{URL}/rounds/1/status/", {"after": first["after"]}).context["new_lines"]
    assert [(line["job"], line["step"], line["values"]) for line in later["lines"]] == [("policy", 4, {"kl": 0.7})]
    again = console.get(f"{URL}/rounds/1/status/", {"after": later["after"]}).context["new_lines"]
    assert (again["lines"], again["after"]) == ([], later["after"])
    ranged = console.get(f"{URL}/rounds/1/metrics/", {"job": "policy", "metrics": "kl reward", "from": "4", "to": "9"})
    assert [(curve["metric"], curve["steps"]) for curve in ranged.json()["curves"]] == [("kl", [4])]
    lifecycle.fail(claim, "The ppo program failed: no memory", "the last line")
    ended = console.get(f"{URL}/rounds/1/status/")
    assert (ended.status_code, ended["HX-Refresh"]) == (286, "true")
    assert "no memory" in ended.content.decode()
    assert "the last line" in console.get(f"{URL}/rounds/1/").content.decode()


def test_the_page_reads_the_thinned_curves_again_after_too_many_new_steps(console, claim, monkeypatch):
    monkeypatch.setattr(curves, "MAX_NEW_LINES", 2)
    lines = [{"step": step, "total": 3, "time": 1.0, "kl": 0.5} for step in (1, 2, 3)]
    lifecycle.record_metrics(claim, "policy", lines, from_start=True)
    assert '{"lines": null, "after": 0' in console.get(f"{URL}/rounds/1/status/", {"after": 0}).content.decode()
    first = Round.objects.get().metrics.earliest("pk").pk
    assert len(console.get(f"{URL}/rounds/1/status/", {"after": first}).context["new_lines"]["lines"]) == 2


def test_all_values_of_a_chart_are_saved_as_csv_with_those_of_other_rounds(console, claim, project):
    lines = [
        {"step": 1, "total": 2, "time": 1.0, "kl": 0.5},
        {"step": 2, "total": 2, "time": 2.0, "kl": 1e-7, "eval_kl": 2},
    ]
    lifecycle.record_metrics(claim, "policy", lines, from_start=True)
    lifecycle.fail(claim, "stopped")
    second = lifecycle.claim(start_round(project, None).pk, "worker")
    lifecycle.record_metrics(second, "policy", lines[:1], from_start=True)
    answer = console.get(f"{URL}/rounds/2/metrics.csv", {"job": "policy", "metrics": "kl eval_kl", "with": "1"})
    rows = b"".join(answer.streaming_content).decode().splitlines()
    assert rows == ["round,job,step,kl,eval_kl", "2,policy,1,0.5,", "1,policy,1,0.5,", "1,policy,2,1e-07,2"]
    assert answer["Content-Disposition"] == 'attachment; filename="support-round-2-policy-kl-eval_kl.csv"'
    for query in ({}, {"job": "policy"}, {"job": "policy", "metrics": "password"}, {"job": "x", "metrics": "kl"}):
        assert console.get(f"{URL}/rounds/2/metrics.csv", query).status_code == 404


def test_a_round_is_cancelled_and_resumed(console, waiting):
    console.post(f"{URL}/rounds/1/cancel/")
    assert Round.objects.get().status == "cancelled"
    console.post(f"{URL}/rounds/1/resume/")
    assert Round.objects.get().status == "waiting"


def test_a_round_of_an_archived_project_is_cancelled_on_its_page_and_not_resumed(console, waiting, project):
    Project.objects.filter(pk=project.pk).update(archived_at=timezone.now())
    assert "/rounds/1/cancel/" in console.get(f"{URL}/rounds/1/").content.decode()
    console.post(f"{URL}/rounds/1/cancel/")
    assert Round.objects.get().status == "cancelled"
    page = console.get(f"{URL}/rounds/1/").content.decode()
    assert "/rounds/1/cancel/" not in page and "/rounds/1/resume/" not in page and "?again=" not in page
    assert console.post(f"{URL}/rounds/1/resume/").status_code == 423


def test_a_round_that_only_samples_is_started_on_the_page(console, base, comparisons):
    assert console.post(f"{URL}/rounds/sample/").url == f"{URL}/rounds/0/"


def test_samples_without_scores_name_no_rewards(console, finished):
    finished.settings["round"]["recipe"] = "sft"
    finished.settings["sample"]["rewards"] = []
    finished.save()
    page = console.get(f"{URL}/rounds/1/samples/").content.decode()
    assert "The same prompts, answered by both." in page and "Scores are" not in page


def test_a_gain_shows_whether_it_is_of_training_prompts(console, finished):
    gain = {"reward": 0.5, "reward_reference": 0.1, "reward_gain": 0.4, "evaluation_prompts": 3}
    for where, sentence in (("train", "on 3 training prompts"), ("held_out", "on 3 held-out prompts")):
        finished.results["policy"] = gain | {"evaluated_on": where}
        finished.save()
        assert sentence in console.get(f"{URL}/rounds/1/").content.decode()


def test_a_round_reports_how_many_rankings_are_left_out_for_their_flags(console, finished):
    assert "left out" not in console.get(f"{URL}/rounds/1/").content.decode()
    finished.results["snapshot"] = {"rankings": 6, "flagged_rankings": 2}
    finished.save()
    page = console.get(f"{URL}/rounds/1/").content.decode()
    assert "2 more have a flag that means not for training and are left out" in page


def test_a_round_reports_which_dialogues_are_left_out_and_which_recipe_learns_from_them(console, finished):
    finished.results["snapshot"] = {"rankings": 4, "dialogues_left_out": 2}
    for recipe, sentence in (
        ("kto", "2 of these rankings are left out: they compare dialogues, and KTO learns from single answers. To"),
        ("q", "2 completions are left out: they are dialogues, and Q-learning learns from single answers. To learn"),
    ):
        finished.settings["round"]["recipe"] = recipe
        finished.save()
        assert sentence in console.get(f"{URL}/rounds/1/").content.decode()


def test_a_round_shows_how_its_attributes_correlate_with_ratings_and_which_had_too_few(console, finished):
    assert "rank correlation" not in console.get(f"{URL}/rounds/1/").content.decode()
    finished.results["snapshot"] = {"rankings": 6, "rated_completions.honest": 120, "rated_completions.<kind>": 7}
    figures = {"name": "honest", "correlation": 0.61, "correlation_low": 0.5, "correlation_high": 0.7,
               "correlation_people": 0.55, "correlation_people_low": None, "correlation_people_high": None,
               "correlation_one_person": 0.52}  # fmt: skip
    finished.results["reward"] = finished.results.get("reward", {}) | {"attributes": [figures]}
    finished.save()
    page = console.get(f"{URL}/rounds/1/").content.decode()
    assert "Ratings of honest" in page
    assert "0.500 – 0.700, rank correlation with held-out ratings; with one person's ratings 0.520" in page
    assert "; between two people 0.550" in page
    assert "fewer than 100 completions are rated: &lt;kind&gt; (7)." in page


def test_samples_stand_beside_the_served_ones_on_the_same_prompts(console, finished, base):
    page = console.get(f"{URL}/rounds/1/samples/")
    shown = list(page.context["samples"].object_list)
    assert len(shown) == 5
    assert [each["theirs"] is not None for each in shown] == [True, True, False, False, False]
    assert (shown[0]["ours"]["score"], shown[0]["theirs"]["score"]) == (2.0, 1.0)
    assert page.context["other"] == base
    summary = page.context["summary"]
    assert (summary.better, summary.count) == (1.0, 2)
    assert 0.3 < summary.low < 0.4 and summary.high == 1.0


def test_a_promoted_checkpoint_is_compared_with_its_parent(console, finished, base, manager):
    checkpoints.promote(finished.checkpoint, manager)
    assert console.get(f"{URL}/rounds/1/samples/").context["other"] == base


def test_a_checkpoint_is_promoted_and_rolled_back(console, finished, base):
    console.post(f"{URL}/checkpoints/{finished.checkpoint.pk}/promote/")
    assert str(checkpoints.served(finished.project)) == "round-0001"
    console.post(f"{URL}/checkpoints/roll-back/")
    assert checkpoints.served(finished.project) == base


def test_administrators_import_models(console, manager, project, tmp_path):
    data = {"path": str(fake_model(tmp_path / "mine")), "label": "mine", "serve": "on"}
    assert console.post(f"{URL}/checkpoints/import/", data).status_code == 403
    manager.is_staff = True
    manager.save()
    refused = console.post(f"{URL}/checkpoints/import/", {**data, "path": "/nowhere"})
    assert "no folder /nowhere" in str(refused.context["import_form"].errors)
    assert console.post(f"{URL}/checkpoints/import/", data).url == f"{URL}/console/"
    imported = project.checkpoints.get()
    assert (str(imported), imported.verdict, imported.imported_by) == ("mine", "waiting", manager)


def test_a_manager_sets_after_how_many_rankings_rounds_start(console, project):
    console.post(f"{URL}/rounds/automatic/", {"round_every": "500"})
    assert project.loop.round_every == 500
    assert console.post(f"{URL}/rounds/automatic/", {"round_every": "0"}).status_code == 400
    console.post(f"{URL}/rounds/automatic/", {"round_every": ""})
    project.loop.refresh_from_db()
    assert project.loop.round_every is None


PAGES = ["console/", "rounds/1/", "rounds/1/status/", "rounds/1/metrics/", "rounds/1/metrics.csv", "rounds/1/samples/"]
ACTIONS = [
    "rounds/start/",
    "rounds/sample/",
    "rounds/automatic/",
    "rounds/1/cancel/",
    "rounds/1/resume/",
    "checkpoints/roll-back/",
    "checkpoints/import/",
]


def test_only_managers_may_use_the_console(waiting, annotator, stranger, client):
    of_stranger, of_annotator = signed_in(stranger), signed_in(annotator)
    for path in [*PAGES, *ACTIONS, "checkpoints/1/promote/"]:
        verb = "get" if path in PAGES else "post"
        assert getattr(of_stranger, verb)(f"{URL}/{path}").status_code == 404, path
        assert getattr(of_annotator, verb)(f"{URL}/{path}").status_code == 403, path
        assert client.get(f"{URL}/{path}").url.startswith("/sign-in/"), path
        assert Round.objects.get().status == "waiting", path


def test_get_requests_change_nothing(console, waiting):
    for path in ACTIONS:
        assert console.get(f"{URL}/{path}").status_code == 405, path


def test_an_action_without_its_token_is_refused(waiting, manager):
    client = Client(enforce_csrf_checks=True)
    client.force_login(manager)
    assert client.post(f"{URL}/rounds/1/cancel/").status_code == 403
    assert Round.objects.get().status == "waiting"


GAIN = {"reward": 0.81, "reward_reference": 0.67, "evaluation_prompts": 64, "kl": 0.5}
GAIN |= {"reward_gain": 0.14, "reward_gain_low": 0.05, "reward_gain_high": 0.23}


def test_one_gain_with_its_prompts_and_interval_is_on_both_pages(console, finished):
    Round.objects.update(results={"policy": GAIN})
    for page in (f"{URL}/rounds/1/", f"{URL}/rounds/1/samples/"):
        shown = console.get(page).content.decode()
        assert "+0.14" in shown and "0.05 to 0.23" in shown and "0.67 → 0.81 on 64 held-out prompts" in shown
    checkpoints.promote(finished.checkpoint, None)
    checkpoints.roll_back(finished.project, None)
    assert console.get(f"{URL}/rounds/1/samples/").context["gain"] == GAIN


def test_the_gain_is_not_shown_beside_a_checkpoint_that_it_was_not_measured_against(console, finished, tmp_path):
    Round.objects.update(results={"policy": GAIN})
    another = checkpoints.import_checkpoint(
        finished.project, str(fake_model(tmp_path / "another")), "another", verdict=FAST
    )
    checkpoints.promote(another, None)
    assert console.get(f"{URL}/rounds/1/samples/").context["gain"] is None


def test_a_reward_without_evaluation_names_the_prompts_it_was_measured_on(console, finished):
    Round.objects.update(results={"policy": {"reward": 0.5, "kl": 0.1}})
    assert "on the last training batch" in console.get(f"{URL}/rounds/1/").content.decode()


def test_the_verdict_is_counted_again_as_soon_as_there_is_something_new(console, base, rankings, project, monkeypatch):
    counted, take = [], quality_snapshot.take_snapshot
    monkeypatch.setattr(quality_snapshot, "take_snapshot", lambda of: counted.append(of) or take(of))
    console.get(f"{URL}/console/")
    console.get(f"{URL}/console/")
    assert len(counted) == 1
    ranking = project.rankings.select_related("annotator").first()
    ranks, member = ranking.ranks[::-1], Membership.objects.get(project=project, user=ranking.annotator)
    revise_ranking(member, ranking.pk, ranks, idempotency_key=uuid4(), seconds=1.0)
    console.get(f"{URL}/console/")
    assert len(counted) == 2
