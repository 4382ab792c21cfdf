"""A round's reward model continues the one of the round that made its base, if the settings ask for it."""

import json

import pytest
from django.urls import reverse

from feedback.errors import Invalid
from tests.training import tiny
from training import checkpoints
from training.models import Checkpoint, Round
from training.rounds import continued_critic, continued_reward
from training.rounds.start import start_round
from training.run_round import jobs, run_round

CONTINUE = {"round": {"reward_start": "last", "full_reward_every": 3}}


def finish(round_, continued):
    """End a round as a worker would, with a served checkpoint and a reward model; return the checkpoint."""
    made = Checkpoint.objects.get(is_served=True)
    Checkpoint.objects.update(is_served=False)
    source = made.project.sources.create(name=f"round-{round_.number}", kind="checkpoint")
    made.pk, made.source, made.parent, made.is_served = None, source, round_.base, True
    made.reward_model_path = f"/models/reward-{round_.number}"
    made.save()
    Round.objects.filter(pk=round_.pk).update(
        status="finished", checkpoint=made, results={"reward": {"start": "last_reward_model" if continued else "model"}}
    )
    return made


def started(project, settings=CONTINUE):
    return start_round(project, None, settings)


@pytest.mark.slow
def test_every_third_reward_model_starts_from_the_base(project, base, rankings):
    continued = []
    for _ in range(7):
        round_ = started(project)
        continued.append(continued_reward.reward_model_to_continue(round_))
        finish(round_, bool(continued[-1]))
    names = [path.removeprefix("/models/reward-") for path in continued]
    assert names == ["", "1", "2", "", "4", "5", ""]


@pytest.mark.slow
def test_without_full_trainings_every_round_continues(project, base, rankings):
    settings = {"round": {"reward_start": "last", "full_reward_every": 0}}
    for _ in range(4):
        round_ = started(project, settings)
        path = continued_reward.reward_model_to_continue(round_)
        finish(round_, bool(path))
    assert path == "/models/reward-3"


@pytest.mark.slow
def test_a_round_continues_the_reward_model_of_its_base_not_of_the_last_round(project, base, rankings):
    first = finish(started(project), False)
    finish(started(project), True)
    Checkpoint.objects.update(is_served=False)
    Checkpoint.objects.filter(pk=first.pk).update(is_served=True)
    assert continued_reward.reward_model_to_continue(started(project)) == first.reward_model_path


@pytest.mark.slow
def test_the_job_directory_names_the_reward_model_to_continue(project, base, rankings):
    finish(started(project), False)
    for settings, expected in ((CONTINUE, "/models/reward-1"), ({}, "")):
        round_ = started(project, settings)
        job = next(job for job in round_.jobs if job.name == "reward")
        config = json.loads((jobs.fill(round_, job) / "config.json").read_text())
        assert (config["model"], config["last_reward_model"]) == (round_.base.path, expected)
        round_.delete()


@pytest.mark.slow
def test_the_page_says_where_the_reward_model_started(client, project, base, rankings, manager):
    client.force_login(manager)
    first = started(project)
    assert continued_reward.sentence(first) == ""  # not trained yet
    finish(first, False)
    second = started(project)
    finish(second, True)
    third = started(project, {"round": {"reward_start": "last", "full_reward_every": 2}})
    finish(third, False)
    fourth = started(project, {})
    finish(fourth, False)
    texts = [
        client.get(reverse("round", args=[project.slug, round_.number])).content.decode()
        for round_ in (first, second, third, fourth)
    ]
    assert "Its reward model starts from the base, which has none to continue." in texts[0]
    assert "Its reward model continues that of round-1." in texts[1]
    assert "Its reward model starts from the base, as a full training was due." in texts[2]
    assert "Its reward model" not in texts[3]


def test_adapters_are_refused_at_the_start(project, base, rankings):
    with pytest.raises(Invalid, match="cannot continue another one"):
        started(project, {**CONTINUE, "reward": {"lora_rank": 4}})


@pytest.mark.full
@pytest.mark.process
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("forked_programs")
def test_the_second_of_two_whole_rounds_continues_the_first_ones_reward_model_and_critic(project, tiny_base, rankings):
    settings = {**tiny.SETTINGS, "round": {**tiny.SETTINGS["round"], **CONTINUE["round"], "critic_start": "last"}}
    for _ in range(2):
        run_round.run(started(project, settings).pk)
        done = Round.objects.order_by("number").last()
        assert (done.error, done.status) == ("", "finished")
        checkpoints.promote(done.checkpoint, None)
    first, second = Round.objects.order_by("number")
    assert [round_.results["reward"]["start"] for round_ in (first, second)] == ["model", "last_reward_model"]
    steps = [round_.metrics.filter(job="reward").count() for round_ in (first, second)]
    assert 3 * steps[0] == 4 * steps[1] > 0  # epochs, then continued_epochs; a pass has one or two batches
    assert continued_reward.sentence(second) == "Its reward model continues that of round-0001."
    assert [round_.results["policy"]["critic_start"] for round_ in (first, second)] == ["new", "critic_model"]
    assert continued_critic.sentence(first) == "Its critic is new, as tiny has none of this kind to continue."
    assert continued_critic.sentence(second) == "Its critic continues that of round-0001."
    assert all(continued_critic.critic_folder(round_.checkpoint).is_dir() for round_ in (first, second))
