"""Open pages ask for a small version, and for their content when it differs."""

import re
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from django.test import Client

from feedback.actions import trials
from tests.factories import fake_model, membership
from tests.training.test_samples_at_steps import lines as sample_lines
from tests.training.trial_worlds import import_second, open_trial, vote
from training import checkpoints
from training.models import Checkpoint, Round, Worker
from training.rounds import lifecycle, samples_at_steps
from training.watch import version_of
from training.web.watch import address_of
from training.workers import rows

PROJECT = "/projects/support"
LOAD = {"memory_total": 2**36, "memory_used": 2**34, "process_memory": 2**30, "cpu_percent": 12.0}


def changed(kind, pk, act) -> str:
    """The parts of the version that differ after `act`."""
    before = version_of(kind, pk)
    act()
    after = version_of(kind, pk)
    return " ".join(name for name in before._fields if getattr(before, name) != getattr(after, name))


def die() -> None:
    Worker.objects.update(heartbeat_at=Now() - rows.DEAD_AFTER - timedelta(seconds=1))


def test_the_version_of_a_round_tells_its_state_from_its_progress(project, waiting):
    claims = []

    def record(step):
        line = {"step": step, "total": 9, "time": 1.0, "kl": 0.5}
        return lambda: lifecycle.record_metrics(claims[0], "policy", [line], from_start=False)

    def difference(act):
        return changed("round", waiting.pk, act)

    assert difference(lambda: claims.append(lifecycle.claim(waiting.pk, "gpu-1:100"))) == "state"
    assert difference(lambda: lifecycle.set_stage(claims[0], "policy")) == "state"
    assert difference(record(1)) == difference(record(2)) == "progress"
    assert difference(lambda: lifecycle.beat(claims[0], "step 2")) == "progress"
    samples = sample_lines(project, 0)
    assert difference(lambda: samples_at_steps.record(claims[0], "policy", samples, from_start=True)) == "progress"
    assert difference(lambda: lifecycle.beat(claims[0])) == ""
    assert difference(lambda: lifecycle.request_cancel(waiting)) == "state"
    assert difference(lambda: lifecycle.cancel(claims[0])) == "state"


def test_the_version_of_the_machines_changes_when_a_worker_dies_but_its_state_not_by_a_heartbeat(waiting):
    rows.register("gpu-1", 100, queues=["gpu"], **LOAD)
    Worker.objects.update(heartbeat_at=Now() - timedelta(seconds=5))
    assert changed("machines", 1, lambda: rows.beat("gpu-1", 100)) == "progress"
    assert changed("round", waiting.pk, die) == "state", "the page says why a round waits"
    assert changed("machines", 1, lambda: rows.beat("gpu-1", 100)) == "state progress"
    assert changed("machines", 1, lambda: lifecycle.claim(waiting.pk, "gpu-1:100")) == "state"


def test_the_version_of_the_loop_and_of_checks(project, waiting, tmp_path):
    claim = lifecycle.claim(waiting.pk, "gpu-1:100")
    assert changed("loop", project.pk, lambda: lifecycle.set_stage(claim, "policy")) == "state"
    line = {"step": 3, "total": 9, "time": 1.0}
    record = {"claim": claim, "job": "policy", "lines": [line], "from_start": False}
    assert changed("loop", project.pk, lambda: lifecycle.record_metrics(**record)) == "progress"
    assert changed("loop", project.pk, lambda: lifecycle.fail(claim, "It broke.")) == "state progress"
    made = checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "new")), "new")
    settle = Checkpoint.objects.filter(pk=made.pk)
    assert changed("checks", project.pk, lambda: settle.update(check_heartbeat_at=Now())) == "state"
    assert changed("checks", project.pk, lambda: settle.update(verdict="exact_fast")) == "state"


def test_the_version_of_a_trial_changes_with_its_votes_and_its_end(project, base, annotator, tmp_path):
    trial, member = (
        open_trial(project, base, import_second(project, tmp_path), prompts=2),
        membership(annotator, project),
    )
    assert changed("trial", trial.pk, lambda: vote(member, "base")) == "progress"
    assert changed("trial", trial.pk, lambda: trials.end_trial(trial, decision="undecided")) == "state"


def test_a_version_costs_one_query_and_no_session(claim, django_assert_num_queries):
    address = address_of("round", Round.objects.get())
    with django_assert_num_queries(1):
        answer = Client().get(address)
    assert set(answer.json()) == {"state", "progress"} and answer["Cache-Control"] == "no-store"
    assert all(re.fullmatch("[0-9a-f]{16}", part) for part in answer.json().values())
    assert "Set-Cookie" not in answer and Client().post(address).status_code == 405


@pytest.mark.slow
def test_only_signed_addresses_have_a_version_and_it_may_be_of_something_deleted(waiting, manager):
    address = address_of("round", waiting)
    for forged in (address.replace("round", "trial"), "/watch/round:1/", "/watch/", address[:-3] + "/"):
        assert Client().get(forged).status_code == 404
    before = Client().get(address).json()
    waiting.delete()
    assert Client().get(address).json()["state"] != before["state"]


@pytest.mark.slow
@pytest.mark.parametrize("path", ["rounds/1/", "machines/", "console/"])
def test_the_page_names_its_version(waiting, manager, plain_static_files, path):
    client = Client()
    client.force_login(manager)
    page = client.get(f"{PROJECT}/{path}").content.decode()
    assert client.get(re.search('data-watch="([^"]+)"', page)[1]).status_code == 200
