"""The recipe trial: named checkpoints answer the same prompts, on pages and through the API."""

import json

import pytest

from feedback.errors import Conflict, Invalid
from feedback.models import Comparison, Completion, Prompt
from tests.factories import FAST, client_of, fake_model
from tests.training import tiny
from tests.training.trial_worlds import import_second, open_trial
from training import checkpoints, gate, reports
from training.learner.runtime.jobdir import JobDirectory
from training.models import Round
from training.rounds import lifecycle
from training.rounds.start import check_can_start, start_round
from training.run_round import jobs, run_round

URL = "/projects/support"
TRIAL = {"round": {"recipe": "trial", "checkpoints": ["base", "second"]}}


@pytest.fixture
def second(project, base, tmp_path):
    """A checkpoint that is not served."""
    return import_second(project, tmp_path)


def filled(started):
    """The configuration and the prompts of every job of the round."""
    directories = [jobs.fill(started, job) for job in started.jobs]
    configs = [json.loads((directory / "config.json").read_text()) for directory in directories]
    rows = [(directory / "prompts.jsonl").read_text().splitlines() for directory in directories]
    return configs, [[json.loads(row)["prompt_id"] for row in lines] for lines in rows]


def test_all_checkpoints_answer_the_same_prompts_once_with_the_same_seed(project, base, second, comparisons):
    second.reward_model_path = "/models/reward"
    second.save()
    started = start_round(project, None, TRIAL | {"sample": {"completions_per_prompt": 3}})
    assert (started.base, started.learns, started.only_samples) == (base, False, False)
    configs, prompts = filled(started)
    assert [config["model"] for config in configs] == [base.path, second.path]
    assert {config["completions_per_prompt"] for config in configs} == {1}
    assert not {config.get("reward_model") for config in configs} - {None, ""}
    assert configs[0] | {"model": ""} == configs[1] | {"model": ""}
    assert prompts[0] == prompts[1] and sorted(prompts[0]) == sorted(Prompt.objects.values_list("pk", flat=True))
    assert [(stage.name, str(stage.label)) for stage in reports.stages_of(started)] == [
        ("snapshot", "Snapshot"),
        ("completions_0", "Completions of base"),
        ("completions_1", "Completions of second"),
        ("comparisons", "Comparisons"),
    ]


@pytest.mark.slow
def test_held_out_prompts_come_first_and_training_prompts_fill_up(project, base, second, comparisons):
    held_out = set(Prompt.objects.order_by("pk").values_list("pk", flat=True)[:6])
    Prompt.objects.update(split="train")
    Prompt.objects.filter(pk__in=held_out).update(split="held_out")
    for count, expected in ((4, 4), (6, 6), (10, 6)):
        started = start_round(project, None, {"round": TRIAL["round"] | {"trial_prompts": count}})
        _, (prompts, _) = filled(started)
        assert len(prompts) == len(set(prompts)) == count and set(prompts[:expected]) <= held_out
        assert not set(prompts[expected:]) & held_out
        lifecycle.request_cancel(started)


def test_the_first_named_checkpoint_is_the_one_to_beat_even_if_another_is_served(project, base, second, comparisons):
    started = start_round(project, None, {"round": {"recipe": "trial", "checkpoints": ["second", "base"]}})
    assert started.base == second and [job.models["model"] for job in started.jobs] == [
        "checkpoint second", "checkpoint base"
    ]  # fmt: skip


@pytest.mark.parametrize("named", [[], ["base"], ["base", "base"], ["base", "second", "c", "d", "e"]])
def test_a_trial_needs_two_to_four_different_checkpoints(project, base, second, comparisons, named):
    with pytest.raises(Invalid, match="needs two to four different checkpoints"):
        start_round(project, None, {"round": {"recipe": "trial", "checkpoints": named}})
    assert not Round.objects.exists()


def test_a_checkpoint_that_cannot_be_used_is_refused_with_its_reason(project, base, second, comparisons, stranger):
    def refused(error, reason, *named):
        with pytest.raises(error, match=reason):
            start_round(project, None, {"round": {"recipe": "trial", "checkpoints": ["base", *named]}})
        assert not Round.objects.exists()

    refused(Invalid, 'no checkpoint "nobody"', "nobody")
    second.verdict = "waiting"
    second.save()
    refused(Conflict, "second is not checked yet", "second")
    second.verdict, second.path = "exact_fast", "/gone"
    second.save()
    refused(Invalid, '"second" cannot be loaded: There is no folder /gone', "second")
    with pytest.raises(Invalid, match="checkpoints must be names"):
        start_round(project, None, {"round": {"checkpoints": [7]}})


def test_a_trial_cannot_start_before_there_are_two_usable_checkpoints(project, base, comparisons):
    with pytest.raises(Invalid, match="needs two usable checkpoints"):
        check_can_start(project, recipe="trial")


def test_default_lengths_fit_into_the_smallest_model(project, base, comparisons, tmp_path):
    folder = fake_model(tmp_path / "short", max_position_embeddings=30)
    checkpoints.import_checkpoint(project, str(folder), "short", verdict=FAST)
    started = start_round(project, None, {"round": {"recipe": "trial", "checkpoints": ["base", "short"]}})
    sample = started.settings["sample"]
    assert sample["max_prompt_tokens"] + sample["max_completion_tokens"] <= 30


@pytest.mark.slow
def test_the_form_proposes_the_served_checkpoint_and_the_newest_other(
    client, project, base, second, comparisons, manager
):
    client.force_login(manager)
    page = client.get(f"{URL}/rounds/new/?recipe=trial")
    form = page.context["form"]
    assert {name for name in form.fields if name.startswith("round-")} == {
        "round-checkpoints", "round-trial_prompts", "round-trial_share", "round-trial_may_train",
        "round-trial_worthwhile_share", "round-seed", "round-processes",
    }  # fmt: skip
    assert "sample-completions_per_prompt" not in form.fields  # each checkpoint writes one
    assert form.fields["round-checkpoints"].initial == ["base", "second"]
    values = {name: field.initial for name, field in form.fields.items() if field.initial is not None}
    values |= {"recipe": "trial", "round-trial_share": 40}
    del values["round-trial_may_train"]  # an unchecked box is not sent
    answer = client.post(f"{URL}/rounds/start/", values)
    assert answer.status_code == 302, answer.context["form"].errors
    chosen = Round.objects.get().settings["round"]
    assert (chosen["checkpoints"], chosen["trial_share"], chosen["trial_may_train"]) == (["base", "second"], 40, False)


def test_the_api_starts_it_with_ids_of_checkpoints(project, base, second, comparisons, manager, stranger):
    api, body = client_of(manager), {"settings": {"round": {"recipe": "trial"}}}
    answer = api.post(f"/api/v1{URL}/rounds", body | {"checkpoints": [base.pk, second.pk]}, format="json")
    assert answer.status_code == 201, answer.data
    assert answer.data["recipe"] == "trial" and answer.data["stages"][1] == "completions_0"
    assert Round.objects.get().settings["round"]["checkpoints"] == ["base", "second"]
    Round.objects.all().delete()
    answer = api.post(f"/api/v1{URL}/rounds", body | {"checkpoints": [base.pk, 0]}, format="json")
    assert answer.status_code == 404 and not Round.objects.exists()


def answered(started, *texts):
    """Write what the programs of the round would: each checkpoint answers every prompt; {} is the prompt's id."""
    for job, text in zip(started.jobs, texts, strict=True):
        files = JobDirectory(jobs.fill(started, job))
        rows = [row["prompt_id"] for row in files.rows("prompts.jsonl")]
        files.write_rows("samples.jsonl", iter([{"prompt_id": pk, "index": 0, "text": text.format(pk)} for pk in rows]))
        files.write_result({"program": "sample", "samples": len(rows)})


def test_the_end_of_the_round_starts_the_trial_of_its_settings(project, base, second, comparisons, manager):
    Prompt.objects.filter(pk__in=Prompt.objects.order_by("pk").values("pk")[:4]).update(split="held_out")
    settings = {"trial_prompts": 9, "trial_share": 40, "trial_may_train": False, "trial_worthwhile_share": 0.55}
    before = Comparison.objects.count()
    started = start_round(project, manager, {"round": TRIAL["round"] | settings})
    answered(started, "base to {}", "second to {}")
    run_round.run(started.pk)
    done = reports.round_of(project, started.number)
    assert (done.status, done.stage, done.error, done.checkpoint) == ("finished", "comparisons", "", None)
    trial = done.trial
    assert [row.source for row in trial.trial_sources.all()] == [base.source, second.source]
    assert (trial.share, trial.may_train, trial.worthwhile_share, trial.started_by) == (40, False, 0.55, manager)
    assert trial.is_open and trial.comparisons.count() == 9 == Comparison.objects.count() - before
    held_out = Prompt.objects.filter(split="held_out").count()
    assert trial.comparisons.filter(prompt__split="held_out").count() == min(9, held_out)
    assert Completion.objects.filter(source=second.source).count() == 9
    assert client_of(manager).get(f"/api/v1{URL}/rounds/{started.number}").data["trial"] == trial.number


def test_a_round_whose_answers_are_all_equal_fails_with_a_sentence(project, base, second, comparisons):
    started = start_round(project, None, TRIAL)
    answered(started, "the same", "the same")
    run_round.run(started.pk)
    started.refresh_from_db()
    assert (started.status, started.trial) == ("failed", None)
    assert "wrote the same texts on every prompt" in started.error


@pytest.mark.slow
def test_a_second_trial_is_refused_while_one_is_open(client, project, base, second, comparisons, manager):
    open_trial(project, base, second, prompts=2)
    with pytest.raises(Conflict, match="Trial 1 is open: end it before the next one starts"):
        start_round(project, None, TRIAL)
    client.force_login(manager)
    page = client.get(f"{URL}/rounds/new/?recipe=trial")
    assert page.context["plan"].refusal.startswith("Trial 1 is open")
    assert client.post(f"{URL}/checkpoints/{second.pk}/try/").status_code == 409
    assert not Round.objects.exists()


@pytest.mark.slow
def test_a_trial_that_opened_meanwhile_fails_the_round_which_can_resume(project, base, second, comparisons, manager):
    started = start_round(project, None, TRIAL)
    answered(started, "base to {}", "second to {}")
    other = open_trial(project, base, second, prompts=2)
    run_round.run(started.pk)
    started.refresh_from_db()
    assert (started.status, started.error) == ("failed", "Trial 1 is open: end it before the next one starts.")
    assert Completion.objects.filter(text__startswith="second to").count() == 2, (
        "the round's completions are not stored"
    )
    gate.end(other, manager)
    run_round.run(lifecycle.resume(started).pk)
    started.refresh_from_db()
    assert (started.status, started.trial.number) == ("finished", 2)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.full
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("forked_programs")
def test_two_real_models_answer_for_a_trial(project, tiny_base, tmp_path, comparisons, manager):
    other = tiny.make_chat_model(tmp_path / "other")
    checkpoints.import_checkpoint(project, str(other), "other", verdict=FAST)
    sizes = {"max_prompt_tokens": 32, "max_completion_tokens": 8}
    chosen = {"recipe": "trial", "checkpoints": ["tiny", "other"], "trial_prompts": 5}
    run_round.run(start_round(project, manager, {"common": sizes, "round": chosen}).pk)
    done = Round.objects.get()
    assert (done.status, done.error) == ("finished", "")
    assert {name: done.results[name]["samples"] for name in ("completions_0", "completions_1")} == {
        "completions_0": 5, "completions_1": 5
    }  # fmt: skip
    assert done.trial.comparisons.count() + done.trial.identical == 5
