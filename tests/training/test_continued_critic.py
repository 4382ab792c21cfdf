"""A round's critic continues the one that the round of its base kept, if the settings ask for it."""

import json

import pytest
from django.urls import reverse

from feedback.errors import Invalid
from training.models import Checkpoint, Round
from training.rounds import continued_critic
from training.rounds.start import start_round
from training.run_round import jobs

CONTINUE = {"round": {"critic_start": "last"}}


def started(project, settings=CONTINUE):
    return start_round(project, None, settings)


def finish(round_, critic_start="new", is_served=True):
    """End a round as a worker would, with a checkpoint and a kept critic; return the checkpoint."""
    source = round_.project.sources.create(name=f"round-{round_.number}", kind="checkpoint")
    folder = jobs.directory_of(round_) / "policy"
    (folder / "critic").mkdir(parents=True)
    made = Checkpoint.objects.get(pk=round_.base_id)
    made.pk, made.source, made.parent, made.kind, made.path = None, source, round_.base, "round", str(folder / "model")
    made.is_served = False
    made.save()
    Round.objects.filter(pk=round_.pk).update(
        status="finished", checkpoint=made, results={"policy": {"critic_start": critic_start}}
    )
    if is_served:
        serve(made)
    return made


def serve(checkpoint):
    Checkpoint.objects.update(is_served=False)
    Checkpoint.objects.filter(pk=checkpoint.pk).update(is_served=True)


def filled(round_):
    """Return the settings in the job directory of the round's policy."""
    job = next(job for job in round_.jobs if job.program == "ppo")
    return json.loads((jobs.fill(round_, job) / "config.json").read_text())


def critics(*checkpoints):
    return [continued_critic.critic_folder(checkpoint).is_dir() for checkpoint in checkpoints]


@pytest.mark.slow
def test_a_round_continues_the_critic_of_its_base_and_keeps_its_own(project, base, rankings):
    first = started(project)
    assert continued_critic.critic_to_continue(first) == ""  # the base was imported
    made = finish(first)
    second = started(project)
    folder = continued_critic.critic_folder(made)
    assert continued_critic.critic_to_continue(second) == str(folder) == str(jobs.directory_of(first) / "policy/critic")


@pytest.mark.slow
@pytest.mark.parametrize(("chosen", "kept"), [(CONTINUE, True), ({}, False)])
def test_the_job_directory_names_the_critic_and_asks_to_keep_the_new_one(project, base, rankings, chosen, kept):
    made = finish(started(project))
    config = filled(started(project, chosen))
    assert config.get("critic_model", "") == (str(continued_critic.critic_folder(made)) if kept else "")
    assert config.get("keep_critic", False) is kept


@pytest.mark.slow
def test_a_critic_of_another_kind_or_that_is_gone_is_not_continued(project, base, rankings):
    made = finish(started(project))
    other = started(project, {**CONTINUE, "ppo": {"critic": "shared"}})
    assert continued_critic.critic_to_continue(other) == ""
    other.delete()
    continued_critic.critic_folder(made).rmdir()
    assert continued_critic.critic_to_continue(started(project)) == ""


@pytest.mark.slow
def test_a_base_by_another_recipe_has_no_critic_to_continue(project, base, rankings):
    made = finish(started(project, {"round": {"recipe": "dpo"}}))
    assert continued_critic.critic_folder(made).is_dir()  # no program made it
    assert continued_critic.critic_to_continue(started(project)) == ""


@pytest.mark.slow
def test_a_folder_beside_an_imported_model_is_not_its_critic(project, base, rankings, tmp_path):
    (tmp_path / "critic").mkdir()
    assert continued_critic.critic_folder(base).is_dir()
    assert continued_critic.critic_to_continue(started(project)) == ""


@pytest.mark.parametrize(
    ("ppo", "words"),
    [
        ({"critic": "reward_model"}, "set critic to separate or shared to keep it"),
        ({"algorithm": "rloo", "completions_per_prompt": 4}, "the algorithm rloo has no critic"),
        ({"lora_rank": 4}, "set critic to shared"),
        ({"algorithm": []}, "algorithm"),
    ],
)
@pytest.mark.parametrize("recipe", ["ppo", "metric"])
def test_settings_without_a_critic_to_continue_are_refused_at_the_start(project, base, rankings, ppo, words, recipe):
    with pytest.raises(Invalid, match=words):
        started(project, {"round": {"recipe": recipe, "critic_start": "last"}, "ppo": ppo})
    assert not Round.objects.exists()


def test_that_a_critic_is_kept_follows_from_its_start_alone(project, base, rankings):
    with pytest.raises(Invalid, match='"keep_critic" itself: set "critic_start"'):
        started(project, {"ppo": {"keep_critic": True}})
    assert "keep_critic" not in started(project).settings["ppo"]


@pytest.mark.slow
def test_the_page_says_where_the_critic_started(client, project, base, rankings, manager):
    client.force_login(manager)
    first = started(project)
    assert continued_critic.sentence(first) == ""  # not trained yet
    finish(first)
    second = started(project)
    finish(second, "critic_model")
    third = started(project, {})
    finish(third)
    texts = [
        client.get(reverse("round", args=[project.slug, round_.number])).content.decode()
        for round_ in (first, second, third)
    ]
    assert "Its critic is new, as base has none of this kind to continue." in texts[0]
    assert "Its critic continues that of round-1." in texts[1]
    assert "Its critic" not in texts[2]


@pytest.mark.slow
def test_the_form_and_the_api_show_the_setting_and_take_it(client, project, base, rankings, manager):
    client.force_login(manager)
    page = client.get(reverse("round-new", args=[project.slug])).content.decode()
    assert 'name="round-critic_start"' in page and 'name="round-reward_start"' in page
    response = client.post(
        f"/api/v1/projects/{project.slug}/rounds", {"settings": CONTINUE}, content_type="application/json"
    )
    assert response.status_code == 201, response.content
    shown = client.get(f"/api/v1/projects/{project.slug}/rounds/{response.json()['number']}").json()
    assert shown["settings"]["round"]["critic_start"] == "last"


def test_critics_that_no_round_will_continue_are_deleted(project, base, rankings):
    first, second = finish(started(project)), finish(started(project))
    third_round = started(project)
    third = finish(third_round, is_served=False)
    assert critics(first, second, third) == [True, True, True]
    jobs.drop_critics(third_round)
    assert critics(first, second, third) == [False, True, True]  # the served one, and the one that may be served next


def test_the_critic_of_a_round_that_can_be_resumed_stays(project, base, rankings):
    first = finish(started(project))
    failed = started(project)
    Round.objects.filter(pk=failed.pk).update(status="failed")
    second_round = started(project)
    finish(second_round)
    last_round = started(project)
    last = finish(last_round)
    jobs.drop_critics(last_round)
    assert critics(first, last) == [True, True]
    Round.objects.filter(pk=failed.pk).update(status="finished")
    jobs.drop_critics(last_round)
    assert critics(first, last) == [False, True]
