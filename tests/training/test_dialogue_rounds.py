"""Rounds and dialogues: rows that a round reads, leaves out, and writes."""

import json
from pathlib import Path
from uuid import uuid4

import pytest

from feedback import imports
from feedback.actions import demonstrations, members, projects, rankings
from feedback.errors import Invalid
from feedback.models import Comparison, Completion, Project, Prompt, Ranking
from feedback.queue import blinding, leases
from tests.factories import FAST, client_of, fake_model
from training import checkpoints, evaluations
from training.models import Checkpoint, LoopSettings, Round
from training.rounds import lifecycle, results, schedule
from training.rounds.recipes import RECIPES
from training.rounds.recipes.description import Counts
from training.rounds.settings import resolve
from training.rounds.start import start_round, start_sampling
from training.run_round import jobs
from training.web.round_form import RoundForm

pytestmark = pytest.mark.slow

TURNS = [
    {"role": "assistant", "content": "Which order?"},
    {"role": "user", "content": "Number 7."},
    {"role": "assistant", "content": "On its way."},
]


def rows_of(started, job_name, file):
    """Return the rows of an input file of a round's job, and its counts."""
    job = next(job for job in started.jobs if job.name == job_name)
    directory = jobs.fill(started, job)
    return [json.loads(line) for line in (directory / file).read_text().splitlines()], jobs.snapshot_of(directory)


@pytest.fixture
def ranked_dialogue(project, annotator):
    """A ranking of a dialogue and a text."""
    row = {"prompt": "Where is my parcel?", "completions": [{"turns": TURNS}, "Soon."]}
    (pk,) = imports.add_prompts(project, [row], compare=True).comparison_ids
    member = members.membership_of(annotator, project.slug)
    lease = leases.lease_next(member)
    rankings.record_ranking(member, lease.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0)
    return Comparison.objects.get(pk=pk)


def test_the_reward_model_learns_from_whole_dialogues(project, base, ranked_dialogue):
    (row,), counts = rows_of(start_round(project, None), "reward", "rankings.jsonl")
    assert row["turns"] == [TURNS, None] and counts == {"rankings": 1, "flagged_rankings": 0, "held_out_rankings": 1}


@pytest.mark.parametrize("recipe", ["dpo", "kto"])
def test_programs_that_learn_from_rankings_directly_get_whole_dialogues(project, base, ranked_dialogue, recipe):
    started = start_round(project, None, {"round": {"recipe": recipe}})
    (row,), counts = rows_of(started, started.jobs[0].name, "rankings.jsonl")
    assert row["turns"] == [TURNS, None] and counts == {"rankings": 1, "flagged_rankings": 0, "held_out_rankings": 1}


def test_q_learns_from_texts_and_dialogues(project, base, ranked_dialogue):
    Prompt.objects.update(references=["Soon."], split="train")
    Completion.objects.filter(turns__isnull=False).update(sampling={"ended": True, "truncated": True})
    Completion.objects.filter(turns__isnull=True).update(sampling={"ended": True, "truncated": False})
    started = start_round(project, None, {"round": {"recipe": "q"}, "q": {"rewards": [{"name": "similarity"}]}})
    (dialogue, text), counts = rows_of(started, "policy", "completions.jsonl")
    assert (dialogue["turns"], text["completion"], "turns" in text) == (TURNS, "Soon.", False)
    assert (dialogue["finished"], dialogue["truncated"], "truncated" in text) == (True, True, False)
    assert counts == {"completions": 2, "held_out_completions": 0}


def test_a_round_imitates_the_turn_that_an_annotator_edited_and_not_those_before(
    project, base, annotator, ranked_dialogue
):
    member = members.membership_of(annotator, project.slug)
    order = Ranking.objects.get().display_order
    place = order.index(ranked_dialogue.items.get(completion__turns__isnull=False).position)
    Prompt.objects.update(split=Prompt.Split.TRAIN)
    number = blinding.comparison_number(member, ranked_dialogue.pk)
    demonstrations.record_demonstration(member, number, "It comes today.", place=place)
    rows, counts = rows_of(start_round(project, None, {"round": {"recipe": "sft"}}), "sft", "demonstrations.jsonl")
    opening = [{"role": "user", "content": "Where is my parcel?"}, *TURNS[:2]]
    assert [(row["messages"], row["completion"]) for row in rows] == [(opening, "It comes today.")]
    assert "turns" not in rows[0]
    assert counts["demonstrations"] == 1


def test_a_round_stores_the_dialogues_that_it_sampled(project, waiting, claim):
    prompt = project.prompts.first()
    folder = jobs.directory_of(waiting) / "samples"
    folder.mkdir(parents=True)
    hostile = [{**TURNS[0], "content": "a\0b"}, *TURNS[1:]]
    samples = [{"prompt_id": prompt.pk, "index": n, "turns": turns, "ended": True, "truncated": n > 0, "tokens": 4,
                "score": 0.5} for n, turns in enumerate([TURNS, hostile])]  # fmt: skip
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    outcome = results.Outcome.read(waiting, jobs.directory_of(waiting))
    lifecycle.finish(claim, outcome)
    written = Completion.objects.filter(turns__isnull=False).order_by("pk")
    assert [completion.turns for completion in written] == [TURNS, [{**TURNS[0], "content": "ab"}, *TURNS[1:]]]
    assert [(one.sampling["tokens"], one.sampling["truncated"]) for one in written] == [(4, False), (4, True)]
    assert Comparison.objects.filter(items__completion__in=written).distinct().get().size == 2


# ---- the environment of a round ----

SCRIPT = {"name": "dialogue", "lines": ["b", "c"], "turns": 3}
DIALOGUES = {"ppo": {"environment": SCRIPT}}


def configs(started):
    """Return config.json of every job of a round, by the name of the job."""
    return {job.name: json.loads((jobs.fill(started, job) / "config.json").read_text()) for job in started.jobs}


def test_the_policy_and_all_samples_of_a_round_play_the_same_dialogues(project, base, rankings):
    by_job = configs(start_round(project, None, DIALOGUES))
    assert by_job["reward"].keys().isdisjoint({"environment"})
    assert [by_job[name]["environment"] for name in ("policy", "samples", "baseline", "guards")] == [SCRIPT] * 4


def test_a_round_without_training_writes_the_dialogues_of_the_projects_settings(project, base, comparisons):
    LoopSettings.objects.create(project=project, settings=DIALOGUES)
    (config,) = configs(start_sampling(project, None)).values()
    assert config["environment"] == SCRIPT


def test_a_prompt_brings_the_lines_of_its_own_user(project, base, rankings):
    imports.add_prompts(project, [{"prompt": "Where is it?", "metadata": {"user_turns": ["Order 7."]}}])
    rows, _ = rows_of(start_round(project, None, DIALOGUES), "samples", "prompts.jsonl")
    assert [row["user_turns"] for row in rows if "user_turns" in row] == [["Order 7."]]


def test_the_form_offers_the_lines_of_a_simulated_user(client, manager, project, base, rankings):
    client.force_login(manager)
    url = "/projects/support/rounds/new/"
    form = client.get(url).context["form"]
    field = form["ppo-environment"]
    assert (field.label, field.initial) == ("Lines of a simulated user", "")
    data = {name: form[name].initial for name in form.fields if form[name].initial is not None}
    client.post("/projects/support/rounds/start/", data | {"ppo-environment": "It is new.\r\n\r\n  What now? "})
    stored = Round.objects.get().settings["ppo"]["environment"]
    assert stored == {"name": "dialogue", "lines": ["It is new.", "What now?"], "turns": 3}


def test_a_changed_line_keeps_the_settings_that_the_form_does_not_show(client, manager, project, base, rankings):
    client.force_login(manager)
    stored = {"name": "dialogue", "lines": ["b", "c"], "turns": 2, "end_word": "bye"}
    LoopSettings.objects.create(project=project, settings={"ppo": {"environment": stored}})
    form = client.get("/projects/support/rounds/new/").context["form"]
    data = {name: form[name].initial for name in form.fields if form[name].initial is not None}
    assert data["ppo-environment-turns"] == 2  # fewer than the lines have answers
    client.post("/projects/support/rounds/start/", data | {"ppo-environment": "b\r\nd"})
    assert Round.objects.get().settings["ppo"]["environment"] == stored | {"lines": ["b", "d"]}


def test_the_form_offers_the_projects_checkpoints_as_the_user(client, manager, project, base, rankings):
    client.force_login(manager)
    form = client.get("/projects/support/rounds/new/").context["form"]
    assert form.fields["ppo-environment-user"].choices == [("script", "The lines below"), ("checkpoint base", "base")]
    data = {name: form[name].initial for name in form.fields if form[name].initial is not None}
    client.post("/projects/support/rounds/start/", data | {"ppo-environment-user": "checkpoint base"})
    started = Round.objects.get()
    assert started.settings["ppo"]["environment"] == {
        "name": "dialogue", "user": "checkpoint", "model": "base", "turns": 2
    }  # fmt: skip
    lifecycle.request_cancel(started)
    again = client.get("/projects/support/rounds/new/?again=1").context["form"]
    assert again["ppo-environment-user"].initial == "checkpoint base"


@pytest.mark.parametrize(
    ("recipe", "section"),
    [("metric", "ppo"), ("dpo", "sample"), ("kto", "sample"), ("q", "sample"), ("sft", "sample"),
     ("evaluate", "evaluate")],
)  # fmt: skip
def test_a_project_of_dialogues_plays_them_by_every_recipe(project, recipe, section):
    loop = {"ppo": {"environment": SCRIPT, "steps": 7}}
    chosen = {"round": {"recipe": recipe}}
    assert resolve(loop, chosen, seed=0)[section]["environment"] == SCRIPT
    single = {"round": {"recipe": recipe}, section: {"environment": {"name": "single_turn"}}}
    assert resolve(loop, single, seed=0)[section]["environment"] == {"name": "single_turn"}
    assert resolve(chosen, seed=0)[section]["environment"] == {"name": "single_turn"}


def test_the_button_evaluates_a_project_of_dialogues_on_dialogues(project, base, comparisons):
    LoopSettings.objects.create(project=project, settings=DIALOGUES)
    started = evaluations.evaluate(project, None, base)
    assert configs(started)["evaluate"]["environment"] == SCRIPT


def test_the_recipe_of_best_of_n_answers_once_in_a_project_of_dialogues():
    settings = resolve(DIALOGUES, {"round": {"recipe": "best_of_n"}}, seed=0)
    assert settings["sample"]["environment"] == {"name": "single_turn"}


def test_a_project_of_dialogues_stays_one_when_its_recipe_changes(project):
    LoopSettings.objects.create(project=project, settings=DIALOGUES)
    changed = schedule.configure_with_recipe(project, None, "dpo")
    assert changed.settings == {"sample": {"environment": SCRIPT}, "round": {"recipe": "dpo"}}


@pytest.mark.parametrize("recipe", ["dpo", "sft"])
def test_the_form_lets_a_recipe_that_learns_from_what_exists_sample_dialogues(
    client, manager, project, base, rankings, recipe
):
    shown = {"text": "Yes.", "source": "agents", "demonstration": True}
    imports.add_prompts(project, [{"prompt": f"Question {n}?", "completions": [shown]} for n in range(9)])
    client.force_login(manager)
    form = client.get(f"/projects/support/rounds/new/?recipe={recipe}").context["form"]
    typed = {"sample-environment": "It is new.", "sample-environment-user": "script", "recipe": recipe}
    data = {name: form[name].initial for name in form.fields if form[name].initial is not None}
    client.post("/projects/support/rounds/start/", data | typed)
    started = Round.objects.get()
    assert started.settings["sample"]["environment"] == {"name": "dialogue", "lines": ["It is new."], "turns": 2}


def test_the_form_has_a_simulated_user_exactly_where_a_round_can_have_one(project, base):
    def user_fields(recipe, **options):
        form = RoundForm(None, resolve({"round": {"recipe": recipe}}, seed=0), **options)
        return [name for name in form.fields if name.endswith("-environment-user")]

    assert {recipe: user_fields(recipe) for recipe in RECIPES} == {
        "ppo": ["ppo-environment-user"],
        "metric": ["ppo-environment-user"],
        "best_of_n": [],  # its policy answers once
        "dpo": ["sample-environment-user"],
        "kto": ["sample-environment-user"],
        "q": ["sample-environment-user"],
        "sft": ["sample-environment-user"],
        "evaluate": ["evaluate-environment-user"],
        "trial": ["sample-environment-user"],
    }
    assert user_fields("ppo", only_samples=True) == ["ppo-environment-user"]  # the samples are played like the policy
    assert user_fields("dpo", only_samples=True) == ["sample-environment-user"]


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ({"ppo-environment-user": "checkpoint base", "ppo-environment": "Why?"}, "These lines are used only if"),
        ({"ppo-environment-turns": 3}, "Without a simulated user the policy answers once"),
    ],
)
def test_the_form_refuses_lines_and_turns_that_no_round_would_use(
    client, manager, project, base, rankings, typed, sentence
):
    client.force_login(manager)
    form = client.get("/projects/support/rounds/new/").context["form"]
    data = {name: form[name].initial for name in form.fields if form[name].initial is not None}
    answer = client.post("/projects/support/rounds/start/", data | typed, follow=True)
    assert sentence in answer.content.decode()
    assert not Round.objects.exists()


def refusal_of(manager, environment):
    """Return status and message of the API's answer to a start with this environment."""
    settings = {"ppo": {"environment": environment}}
    answer = client_of(manager).post("/api/v1/projects/support/rounds", {"settings": settings}, format="json")
    assert not Round.objects.exists()
    return answer.status_code, answer.json()["message"]


def test_the_api_refuses_a_user_that_would_send_requests_or_run_code(manager, project, base, rankings):
    for environment, sentence in (
        ({"name": "dialogue", "user": "endpoint", "url": "http://127.0.0.1:9/v1"}, "has no setting 'url'"),
        ({"name": "dialogue", "user": "checkpoint", "model": "/etc"}, 'no checkpoint "/etc"'),
        ({"name": "python", "make": "os:system"}, "programs run by hand"),
    ):
        status, message = refusal_of(manager, environment)
        assert status == 400 and sentence in message


def test_a_user_must_be_a_usable_checkpoint_of_the_project_whose_files_are_found(manager, project, base, rankings):
    user = {"name": "dialogue", "user": "checkpoint", "model": "talker"}
    assert refusal_of(manager, user) == (
        400, 'This project has no checkpoint "talker" that could be the simulated user: use one of base.'
    )  # fmt: skip
    folder = fake_model(Path(base.path).parent / "talker")
    other = projects.create_project(manager, Project(slug="other", name="Other"))
    checkpoints.import_checkpoint(other, str(folder), "talker", verdict=FAST)
    assert refusal_of(manager, user)[0] == 400
    talker = checkpoints.import_checkpoint(project, str(folder), "talker")
    assert "is not checked yet" in refusal_of(manager, user)[1]
    Checkpoint.objects.filter(pk=talker.pk).update(verdict=Checkpoint.Verdict.EXACT_FAST)
    (folder / "model.safetensors").unlink()
    assert 'The simulated user "talker" cannot be loaded' in refusal_of(manager, user)[1]


def test_a_user_with_too_few_positions_for_the_rounds_lengths_is_refused(manager, project, base, rankings):
    folder = fake_model(Path(base.path).parent / "talker")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 40}))
    checkpoints.import_checkpoint(project, str(folder), "talker", verdict=FAST)
    user = {"environment": {"name": "dialogue", "user": "checkpoint", "model": "talker"}}
    for prompt, is_refused in ((33, True), (32, False)):
        ppo = user | {"max_prompt_tokens": prompt, "max_completion_tokens": 8}
        if is_refused:
            with pytest.raises(Invalid, match=r"has 40 positions, fewer than .* \(41\)"):
                start_round(project, None, {"ppo": ppo})
        else:
            start_round(project, None, {"ppo": ppo})


def test_programs_get_the_folder_of_a_checkpoint_that_is_the_user(project, base, rankings):
    environment = {"name": "dialogue", "user": "checkpoint", "model": "base", "turns": 2, "instruction": "Be short."}
    started = start_round(project, None, {"ppo": {"environment": environment}})
    by_job = configs(started)
    for name in ("policy", "samples", "baseline", "guards"):
        assert by_job[name]["environment"] == environment | {"model": base.path}
    assert started.settings["ppo"]["environment"] == environment


def test_an_endpoint_is_the_installations_and_its_key_is_in_no_setting_and_no_file(
    project, base, rankings, manager, settings, client
):
    environment = {"name": "dialogue", "user": "endpoint", "turns": 2}
    assert "No endpoint is set on this installation" in refusal_of(manager, environment)[1]
    settings.SIMULATED_USER_URL, settings.SIMULATED_USER_MODEL = "http://127.0.0.1:9/v1", "talker"
    settings.SIMULATED_USER_KEY = "sk-hidden"
    started = start_round(project, manager, {"ppo": {"environment": environment}})
    located = {"url": "http://127.0.0.1:9/v1", "model": "talker"}
    assert configs(started)["policy"]["environment"] == environment | located
    written = [file.read_text() for file in jobs.directory_of(started).rglob("*") if file.is_file()]
    client.force_login(manager)
    pages = [client.get(f"/projects/support/{page}/").content.decode() for page in ("console", "rounds/1")]
    assert "endpoint" in pages[1]
    assert not any("sk-hidden" in text for text in [*written, *pages, json.dumps(started.settings)])


@pytest.mark.parametrize("recipe", ["dpo", "kto", "q", "sft"])
def test_recipes_that_learn_from_what_exists_may_sample_dialogues(recipe):
    settings = resolve({"round": {"recipe": recipe}, "sample": {"environment": SCRIPT}}, seed=0)
    jobs_of_recipe = RECIPES[recipe].jobs(settings, Counts())
    sampled = [settings["sample"] | job.settings for job in jobs_of_recipe if job.program == "sample"]
    assert len(sampled) == 2 and all(one["environment"] == SCRIPT for one in sampled)


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"round": {"recipe": "ppo"}, "sample": {"environment": SCRIPT}}, 'set "environment" in section "ppo"'),
        ({"round": {"recipe": "best_of_n"}, "sample": {"environment": SCRIPT}}, "answers once, so it cannot sample"),
        ({"round": {"recipe": "best_of_n"}, "best_of_n": {"environment": SCRIPT}}, "unknown setting 'environment'"),
        ({"round": {"recipe": "dpo"}, "dpo": {"environment": SCRIPT}}, "unknown setting 'environment' for dpo"),
        ({"round": {"recipe": "dpo"}, "ppo": {"environment": SCRIPT}}, 'The recipe "dpo" has no section "ppo"'),
        ({"round": {"recipe": "dpo"}, "sample": {"environment": {"name": "python", "make": "os:system"}}}, "by hand"),
    ],
)
def test_an_environment_where_a_recipe_has_none_is_refused_with_a_sentence(sections, sentence):
    with pytest.raises(Invalid, match=sentence):
        resolve(sections, seed=0)
