"""Workers are shown with their heartbeats, what they run and what waits for them."""

import signal
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from django.test import Client

from feedback.models import Project
from tests.factories import FAST, URL, add_comparisons, client_of, fake_model
from tests.training import services
from training import checkpoints
from training.checkpoints import checks
from training.models import Worker
from training.rounds import lifecycle
from training.rounds.start import start_sampling
from training.workers import heartbeat, machine, report, rows

PAGE = "/projects/support/machines/"
GIB = 2**30
LOAD = {"memory_total": 64 * GIB, "memory_used": 16 * GIB, "process_memory": GIB, "cpu_percent": 12.0}
H100 = {"name": "NVIDIA H100 80GB HBM3", "memory_total": 80 * GIB, "memory_used": 20 * GIB, "percent": 97}
GB10 = {
    "name": "NVIDIA GB10",
    "memory_total": None,
    "memory_used": None,
    "percent": 3,
}  # it shares the machine's memory


@pytest.fixture
def gpu(db):
    """The worker that `claim` claims for."""
    rows.register("gpu-1", 100, queues=["gpu"], version="abc1234567", gpus=[H100], **LOAD)
    rows.register("web-1", 7, queues=["default"], version="abc1234567", **LOAD)
    return Worker.objects.filter(host="gpu-1")


@pytest.fixture
def client(manager, plain_static_files):
    client = Client()
    client.force_login(manager)
    return client


def states(project):
    return {state.worker.address: state.state for state in report.machines_of(project).workers}


def test_a_worker_is_dead_half_a_minute_after_its_last_heartbeat(project, gpu):
    for seconds, state in ((0, "live"), (31, "dead")):
        gpu.update(heartbeat_at=Now() - timedelta(seconds=seconds))
        assert states(project) == {"gpu-1:100": state, "web-1:7": "live"}
    assert rows.beat("gpu-1", 100)
    assert states(project)["gpu-1:100"] == "live"


def test_a_worker_that_ended_by_itself_is_stopped_and_not_dead(project, gpu):
    rows.mark_stopped("gpu-1", 100)
    gpu.update(heartbeat_at=Now() - timedelta(hours=1))
    assert states(project)["gpu-1:100"] == "stopped"


def test_rows_of_ended_workers_are_deleted_after_some_days(project, gpu):
    gpu.update(heartbeat_at=Now() - timedelta(days=2))
    assert rows.delete_ended() == 0
    gpu.update(heartbeat_at=Now() - timedelta(days=4))
    assert rows.delete_ended() == 1
    assert list(states(project)) == ["web-1:7"]


def test_a_new_process_of_the_same_number_replaces_the_old_row(project, gpu):
    rows.mark_stopped("gpu-1", 100)
    rows.register("gpu-1", 100, queues=["default"], **LOAD)
    worker = Worker.objects.get(host="gpu-1")
    assert (worker.queues, worker.stopped_at, states(project)["gpu-1:100"]) == (["default"], None, "live")


def test_a_heartbeat_writes_a_row_that_was_deleted_meanwhile_again(project):
    running = heartbeat.WorkerHeartbeat(["default"])
    for _ in range(2):
        running._beat_once()
        assert states(project) == {machine.this_worker(): "live"}
        Worker.objects.all().delete()


def test_the_load_is_that_of_the_kernels_own_figures():
    pytest.importorskip("resource")
    load = machine.load()
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1])
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * 4096
    assert load["memory_total"] == total * 1024
    assert 0 < load["memory_used"] < load["memory_total"]
    assert load["process_memory"] >= 0.9 * resident


@pytest.mark.parametrize(
    ("printed", "gpus"),
    [
        ("NVIDIA H100 80GB HBM3, 81920, 20480, 97\n", [H100]),
        ("NVIDIA GB10, [N/A], [N/A], 3\n", [GB10]),
        ("No devices were found\n", None),
    ],
)
def test_gpus_are_those_of_nvidia_smi_and_unknown_if_it_prints_something_else(monkeypatch, printed, gpus):
    monkeypatch.setattr(machine, "_output", lambda command: printed)
    assert machine.gpus() == gpus


@pytest.mark.parametrize(("driver", "gpus"), [("/dev/null", None), ("/dev/no-such-gpu", [])])
def test_without_nvidia_smi_a_gpu_is_unknown_where_a_driver_is_loaded(monkeypatch, driver, gpus):
    monkeypatch.setattr(machine, "_output", lambda command: "")
    monkeypatch.setattr(machine, "DRIVERS", (driver,))
    assert machine.gpus() == gpus


def test_only_the_gpus_that_programs_see_are_asked_for(monkeypatch, settings):
    asked = []
    monkeypatch.setattr(machine, "_output", lambda command: asked.append(command) or "")
    settings.VISIBLE_GPUS = ["1", "3"]
    machine.gpus()
    assert asked[0][-2:] == ["-i", "1,3"]
    settings.VISIBLE_GPUS = []
    assert machine.gpus() == [] and len(asked) == 1


@pytest.mark.slow
def test_a_worker_shows_the_round_and_the_check_that_it_runs(project, gpu, claim, tmp_path):
    imported = checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "mine")), "mine")
    (busy, idle) = report.machines_of(project).workers
    assert [work.round for work in busy.work] == [project.rounds.get()] and idle.work == []
    assert checks.claim(imported.pk, "gpu-1:100")
    (busy, _) = report.machines_of(project).workers
    assert [work.checkpoint for work in busy.work] == [None, imported]
    lifecycle.fail(claim, "out of memory")
    (busy, _) = report.machines_of(project).workers
    assert [work.kind for work in busy.work] == ["check"]


def test_the_queue_counts_what_waits_and_runs(project, gpu, waiting, tmp_path):
    checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "mine")), "mine")
    queue = report.machines_of(project).queues[0]
    assert (queue.waiting_rounds, queue.running_rounds, queue.waiting_checks, queue.running_checks) == (1, 0, 1, 0)
    lifecycle.claim(waiting.pk, "gpu-1:100")
    queue = report.machines_of(project).queues[0]
    assert (queue.waiting_rounds, queue.running_rounds, queue.waiting_checks, queue.running_checks) == (0, 1, 1, 0)


def test_the_page_warns_of_a_waiting_round_that_no_live_worker_can_run(project, client, gpu, waiting):
    assert report.gpu_hint(project) == "" and report.machines_of(project).warnings == []
    gpu.update(heartbeat_at=Now() - timedelta(minutes=1))
    assert "No live worker serves the queue gpu" in report.gpu_hint(project)
    for path in (PAGE, "/projects/support/rounds/1/status/"):
        assert "manage.py up --only gpu" in client.get(path).content.decode()


def test_a_check_that_waits_while_every_worker_is_busy_says_so(project, gpu, claim, tmp_path):
    assert report.gpu_hint(project) == ""
    checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "mine")), "mine")
    assert "Every worker of the queue gpu is busy" in report.gpu_hint(project)
    rows.register("gpu-2", 5, queues=["gpu"], **LOAD)
    assert report.gpu_hint(project) == ""


def test_without_a_worker_of_default_and_with_different_versions_the_page_warns(project, gpu):
    rows.register("web-1", 7, queues=["default"], version="0123456789", **LOAD)
    assert "different versions of the code (0123456789, abc1234567)" in report.machines_of(project).warnings[0]
    rows.mark_stopped("web-1", 7)
    assert "No live worker serves the queue default" in report.machines_of(project).warnings[0]


def test_a_round_of_another_project_is_not_named_but_to_administrators(client, manager, project, gpu, base, tmp_path):
    other = Project.objects.create(name="Secret plans", slug="secret")
    model = fake_model(tmp_path / "other")
    checkpoints.import_checkpoint(other, str(model), "hidden", serve=True, verdict=FAST)
    add_comparisons(other, "import", 1)
    lifecycle.claim(start_sampling(other, None).pk, "gpu-1:100")
    page = client.get(PAGE).content.decode()
    assert "a round of another project" in page and "ecret" not in page
    (work,) = client_of(manager).get(f"{URL}/machines").data["workers"][0]["work"]
    assert work == {"kind": "round", "round": None, "stage": None, "checkpoint": None}
    assert client.get("/machines/").status_code == 403
    manager.is_staff = True
    manager.save()
    assert "Secret plans" in client.get("/machines/").content.decode()


def test_page_and_api_show_the_workers_with_their_devices(client, manager, project, gpu):
    page = client.get(PAGE).content.decode()
    for text in (
        "gpu-1",
        "NVIDIA H100 80GB HBM3",
        "20.0\xa0GB of 80.0\xa0GB",
        "abc1234567",
        "1.0\xa0GB by its processes",
    ):
        assert text in page, text
    answer = client_of(manager).get(f"{URL}/machines").data
    assert [(worker["host"], worker["state"]) for worker in answer["workers"]] == [("gpu-1", "live"), ("web-1", "live")]
    assert (answer["workers"][0]["gpus"], answer["workers"][1]["gpus"]) == ([H100], None)
    assert (answer["queues"][0]["name"], answer["queues"][0]["live_workers"]) == ("gpu", 1)


def test_without_a_worker_the_page_says_how_to_start_one(client, project):
    assert "No worker yet" in client.get(PAGE).content.decode()


def test_a_poll_gets_the_changing_part_and_fewer_queries_than_workers(client, gpu, django_assert_num_queries):
    for number in range(20):
        rows.register("more", number, queues=["gpu"], **LOAD)
    client.get(PAGE)
    with django_assert_num_queries(8):  # session, user, membership, and five of the report
        poll = client.get(PAGE, headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in poll and 'hx-trigger="news"' in poll


@pytest.mark.process
@pytest.mark.django_db(transaction=True)
def test_a_killed_worker_shows_as_dead_and_one_that_ends_as_stopped(project, tmp_path, monkeypatch):
    def state():
        return next(iter(states(project).values()), None)

    with services.using_broker("pgmq://"):
        for end, shown in ((signal.SIGKILL, "dead"), (signal.SIGTERM, "stopped")):
            monkeypatch.setattr(rows, "DEAD_AFTER", timedelta(minutes=10))
            with services.worker("pgmq://", "default", tmp_path / "default.log", is_forked=True) as started:
                services.wait_until(lambda: state() == "live", "the worker has a row")
                started.end(end)
            monkeypatch.setattr(rows, "DEAD_AFTER", timedelta(0))
            assert state() == shown
            Worker.objects.all().delete()
