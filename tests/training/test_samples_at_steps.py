"""Samples at fixed prompts: a bounded part of samples_at_steps.jsonl in the database, and on the round's page."""

import itertools

import pytest
from django.test import Client

from training.models import Metric, SampleAtStep
from training.rounds import lifecycle, samples_at_steps

PAGE = "/projects/support/rounds/1/"
STEPS = f"{PAGE}samples/steps/"
STATUS = "/projects/support/rounds/1/status/"


def lines(project, *steps):
    prompts = project.prompts.order_by("pk")[:2]
    return [
        {"step": step, "prompt_id": prompt.pk, "messages": [], "text": f"*step* {step}\0", "reward": step / 8}
        for step in steps
        for prompt in prompts
    ]


def test_the_first_and_the_newest_step_are_kept_and_those_between_stay_far_apart():
    kept: list[int] = []
    for step in range(0, 1000, 5):
        kept = samples_at_steps.thinned([*kept, step])
    assert (len(kept), kept[0], kept[-1]) == (samples_at_steps.MAX_STEPS, 0, 995)
    gaps = [after - before for before, after in itertools.pairwise(kept)]
    assert max(gaps) <= 995 / (samples_at_steps.MAX_STEPS - 1) * 3
    assert samples_at_steps.thinned(range(100_000))[-1] == 99_999


def test_a_bounded_part_of_the_file_is_stored_and_a_rewritten_file_replaces_it(claim, project, monkeypatch):
    monkeypatch.setattr(samples_at_steps, "MAX_STEPS", 3)
    monkeypatch.setattr(samples_at_steps, "MAX_PROMPTS", 1)
    monkeypatch.setattr(samples_at_steps, "MAX_CHARACTERS", 7)
    samples_at_steps.record(claim, "policy", lines(project, 0, 1, 2), from_start=True)
    samples_at_steps.record(claim, "policy", lines(project, 4), from_start=False)
    stored = SampleAtStep.objects.order_by("step").values_list("step", "prompt_id", "text")
    first = project.prompts.order_by("pk").first().pk
    assert list(stored) == [(step, first, "*step* ") for step in (0, 2, 4)]
    samples_at_steps.record(claim, "policy", lines(project, 0), from_start=True)
    assert [row[0] for row in stored.all()] == [0]


def test_a_worker_that_lost_its_claim_stores_no_samples_and_no_metrics(claim, project):
    lifecycle.release(claim)
    lifecycle.claim(claim.round_id, "gpu-2:200")
    with pytest.raises(lifecycle.ClaimLost):
        samples_at_steps.record(claim, "policy", lines(project, 0), from_start=True)
    with pytest.raises(lifecycle.ClaimLost):
        lifecycle.record_metrics(claim, "policy", [{"step": 1}], from_start=True)
    assert not SampleAtStep.objects.exists() and not Metric.objects.exists()


@pytest.mark.slow
def test_the_page_shows_the_first_the_newest_and_a_chosen_step(claim, project, manager):
    client = Client()
    client.force_login(manager)
    assert "No samples yet" in client.get(PAGE).content.decode()
    samples_at_steps.record(claim, "policy", lines(project, 0, 2, 4, 6), from_start=True)
    shown = client.get(STEPS, {"step": "2"})
    page = shown.content.decode()
    assert page.count("<em>*step*</em> 2") == 2 and "<em>*step*</em> 0" in page and "<em>*step*</em> 6" in page
    assert "<em>*step*</em> 4" not in page
    version = {"version": shown.context["at_steps"].version}
    assert f'value="{version["version"]}"' in page
    assert "HX-Trigger" not in client.get(STATUS, version)
    samples_at_steps.record(claim, "policy", lines(project, 8), from_start=False)
    assert client.get(STATUS, version)["HX-Trigger"] == "new-samples"
    assert "<em>*step*</em> 8" in client.get(STEPS, {"step": "2"}).content.decode()
    lifecycle.fail(claim, "It broke.")
    ended = client.get(PAGE, {"step": "4"}).content.decode()
    assert "<em>*step*</em> 4" in ended and "new-samples" not in ended
