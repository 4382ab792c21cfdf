"""Rounds by a real Celery worker, over each broker, and stopped in every way."""

import os
import re
import shutil
import signal
import time
from datetime import timedelta

import pytest
from celery import current_app
from django.db import connection
from safetensors import safe_open

from tests.forks import Forked
from tests.training import forked, services, tiny
from tests.training.services import PATIENCE, is_alive, redis_server, using_broker, wait_until, worker
from training import checkpoints
from training.models import Checkpoint, Metric, Round
from training.rounds import lifecycle
from training.rounds.start import start_round, start_sampling
from training.run_round import jobs, process

pytestmark = [pytest.mark.process, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def _no_program_is_left_behind(settings):
    yield
    places = [folder.parent for folder in settings.DATA_DIR.rglob("config.json")]
    wait_until(lambda: not any(map(process.programs_on, places)), "no program works on the test's files any more")


@pytest.fixture(params=["pgmq", pytest.param("redis", marks=pytest.mark.full)])
def broker_url(request, db, tmp_path):
    if request.param == "pgmq":
        with using_broker("pgmq://"):
            yield "pgmq://"
        return
    if shutil.which("redis-server") is None:
        sentence = "no redis-server on this machine: Celery over Redis is NOT tested (Debian: apt install redis-server)"
        pytest.fail(sentence) if os.environ.get("CI") else pytest.skip(sentence)
    with redis_server(tmp_path) as url, using_broker(url):
        yield url


def read(round_):
    return Round.objects.get(pk=round_.pk)


def test_a_worker_writes_completions_while_the_light_queue_goes_on(
    broker_url, project, tiny_base, comparisons, tmp_path
):
    def forked_worker(queue):
        return worker(broker_url, queue, tmp_path / f"{queue}.log", is_forked=True)

    with forked_worker("gpu"), forked_worker("default"):
        sampling = start_sampling(project, None, tiny.SETTINGS)
        wait_until(lambda: read(sampling).status != "waiting", "the worker has claimed the round")
        for name in ("sweep_lost_rounds", "send_waiting_rounds", "start_due_rounds", "sweep_leases"):
            current_app.send_task(f"training.tasks.{name}")
        light = tmp_path / "default.log"
        wait_until(lambda: light.read_text().count(" succeeded in ") == 4, "the light tasks are done")
        wait_until(lambda: not read(sampling).is_active, "the round has ended")
    done = read(sampling)
    assert (done.error, done.status) == ("", "finished")
    assert tiny_base.source.completions.count() > 0


@pytest.mark.parametrize("broker_url", ["pgmq"], indirect=True)
def test_a_worker_checks_an_imported_model_which_is_then_served(broker_url, project, tiny_model, tmp_path):
    with worker(broker_url, "gpu", tmp_path / "gpu.log", is_forked=True):
        imported = checkpoints.import_checkpoint(project, str(tiny_model), "mine", serve=True)
        wait_until(lambda: read_checkpoint(imported).verdict != "waiting", "the model is checked")
    assert checkpoints.served(project) == imported
    assert read_checkpoint(imported).verdict == "exact_fast"


def read_checkpoint(checkpoint):
    return Checkpoint.objects.get(pk=checkpoint.pk)


@pytest.mark.full
@pytest.mark.parametrize("broker_url", ["pgmq"], indirect=True)
def test_a_round_that_is_stopped_in_every_way_ends_in_the_same_weights(
    broker_url, project, tiny_base, rankings, tmp_path, monkeypatch
):
    """Cancelled, its worker shut down, then worker and program killed outright, always in the middle of PPO."""
    own = {
        **tiny.SETTINGS,
        "round": {**tiny.SETTINGS["round"], "shown_prompts": 0},
        "ppo": {**tiny.SETTINGS["ppo"], "steps": 120, "save_every": 16},
    }
    with worker(broker_url, "gpu", tmp_path / "1.log") as first:
        round_ = start_round(project, None, own)
        wait_for_step(round_, 2)
        lifecycle.request_cancel(read(round_))
        wait_until(lambda: not read(round_).is_active, "the round is cancelled")
        assert read(round_).status == "cancelled"

        lifecycle.resume(read(round_))
        wait_for_step(round_, step_of(round_) + 2)
        assert first.end(signal.SIGTERM) == 0
        assert read(round_).status == "waiting"

    with worker(broker_url, "gpu", tmp_path / "2.log") as second:
        lifecycle.send_waiting()
        wait_for_step(round_, step_of(round_) + 2)
        (program,) = process.programs_on(jobs.directory_of(read(round_)) / "policy")
        program.kill()
        second.end(signal.SIGKILL)
    assert read(round_).status in ("running", "failed")  # failed, if the worker saw its program die before its own end
    monkeypatch.setattr(lifecycle, "LOST_AFTER", timedelta(seconds=1))
    wait_until(lambda: lifecycle.sweep_lost() or not read(round_).is_active, "the loss is noticed")
    assert read(round_).status == "failed"
    assert read(round_).error

    with worker(broker_url, "gpu", tmp_path / "3.log"):
        lifecycle.resume(read(round_))
        wait_until(lambda: not read(round_).is_active, "the round has ended")
    done = read(round_)
    assert (done.error, done.status, done.attempt) == ("", "finished", 4)
    assert list(done.metrics.filter(job="policy").values_list("step", flat=True)) == list(range(1, 121))

    policy, undisturbed = jobs.directory_of(done) / "policy", tmp_path / "undisturbed"
    undisturbed.mkdir()
    for name in ("config.json", "prompts.jsonl"):
        shutil.copy(policy / name, undisturbed / name)
    monkeypatch.setattr(process, "start", forked.start)
    process.run("ppo", undisturbed, 1, watch=lambda: False)
    assert weights(policy / "model") == weights(undisturbed / "model")


@pytest.mark.full
def test_a_forked_worker_is_killed_with_its_programs_which_share_its_connections(db, tmp_path, monkeypatch):
    def open_connection_and_start_program(queue):
        connection.ensure_connection()
        (tmp_path / "backend").write_text(str(connection.connection.info.backend_pid))
        with (tmp_path / "program.log").open("ab") as output:
            Forked(ignore_sigterm, output)
        print(" ready.", flush=True)
        signal.pause()

    def ignore_sigterm():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("started", flush=True)
        time.sleep(PATIENCE)

    monkeypatch.setattr(services, "run_worker", open_connection_and_start_program)
    with worker("memory://", "gpu", tmp_path / "gpu.log", is_forked=True) as started:
        wait_until(lambda: "started" in (tmp_path / "program.log").read_text(), "the program ignores SIGTERM")
        (program,) = started.programs()
        backend = int((tmp_path / "backend").read_text())
        assert backend in connections_of_server(), (tmp_path / "gpu.log").read_text()
    assert not is_alive(program)
    wait_until(lambda: backend not in connections_of_server(), "the server has ended the worker's connection")


def connections_of_server():
    """The database of each connection of the server, by the number of its process."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pid, datname FROM pg_stat_activity")
        return dict(cursor.fetchall())


def step_of(round_):
    last = Metric.objects.filter(round=round_, job="policy").order_by("-step").first()
    return last.step if last else 0


def wait_for_step(round_, step):
    def reached():
        assert read(round_).is_active, read(round_).error
        return read(round_).status == "running" and step_of(round_) >= step

    wait_until(reached, f"PPO's step {step}")


def weights(folder):
    """Return the bytes of all weights."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}  # noqa: SIM118 (not a dict)


@pytest.mark.full
def test_a_worker_on_the_database_logs_no_error_while_it_waits(db, tmp_path):
    """Its events, gossip and mingling cannot be sent over PGMQ, and failed every second and a half."""
    log = tmp_path / "default.log"
    with using_broker("pgmq://"), worker("pgmq://", "default", log):
        time.sleep(6)
    assert not re.search(r"ERROR|CRITICAL|Traceback|send_topic", log.read_text()), log.read_text()
