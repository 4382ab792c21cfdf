"""A model that is imported by page or API waits for its check, and is used only if that finds it exact."""

import json
from datetime import timedelta

import pytest
from celery import current_app
from django.db.models.functions import Now
from django.test import Client
from rest_framework.test import APIClient

from feedback.actions.tokens import issue_token
from feedback.errors import Conflict
from tests.factories import FAST, fake_model, random_model
from training import checkpoints, tasks
from training.checkpoints import checks
from training.checkpoints.checks import Verdict
from training.models import Checkpoint, Promotion, Round
from training.rounds import lifecycle
from training.rounds.results import Outcome
from training.rounds.start import start_round, start_sampling
from training.run_round import heartbeat, probe_model, process
from training.serving.engine import Engine, follow

pytestmark = pytest.mark.process  # most of them check a model in a process

PAGE = "/projects/support"
API = "/api/v1/projects/support"
REFUSED = Verdict("refused", "", "", "it is not causal")
GENERIC = Verdict("generic", "padded", "cached", "in packed passes states differ")


@pytest.fixture
def sent(monkeypatch):
    """The ids of the checkpoints whose check was requested."""
    ids = []
    monkeypatch.setattr(current_app, "send_task", lambda name, args, **options: ids.append((name, *args)))
    return ids


@pytest.fixture
def administrator(manager):
    manager.is_staff = True
    manager.save()
    return manager


@pytest.fixture
def console(administrator):
    client = Client()
    client.force_login(administrator)
    return client


@pytest.fixture
def api(administrator):
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_token(administrator, 'test')[1]}")
    return client


@pytest.fixture
def waits(project, tmp_path, manager):
    """A checkpoint that waits for its check, and is to be served after it."""
    return checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "mine")), "mine", serve=True, actor=manager)


def read(checkpoint):
    return Checkpoint.objects.get(pk=checkpoint.pk)


@pytest.mark.usefixtures("forked_programs")
def test_an_exact_model_imported_on_the_page_is_served_once_a_worker_has_checked_it(
    console, project, administrator, tmp_path, sent, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        data = {"path": str(random_model(tmp_path / "mine")), "label": "mine", "serve": "on"}
        assert console.post(f"{PAGE}/checkpoints/import/", data).status_code == 302
    mine = Checkpoint.objects.get()
    assert sent == [("training.tasks.check_checkpoint", mine.pk)]
    assert current_app.amqp.router.route({}, sent[0][0])["queue"].name == "gpu"
    page = console.get(f"{PAGE}/console/")
    assert (mine.verdict, mine.is_served, page.context["is_checking"]) == ("waiting", False, True)
    assert "mine is not checked yet" in page.context["refusal"]
    table = console.get(f"{PAGE}/checkpoints/table/")
    assert (table.status_code, "Waiting for its check" in table.content.decode()) == (200, True)
    tasks.check_checkpoint(mine.pk)
    mine = read(mine)
    assert (mine.verdict, mine.verdict_reason, mine.is_served) == ("exact_fast", "", True)
    assert Promotion.objects.get().actor == administrator
    ended = console.get(f"{PAGE}/checkpoints/table/")
    assert (ended.status_code, ended["HX-Refresh"], "Exact and fast" in ended.content.decode()) == (286, "true", True)
    assert "It starts from mine." in console.get(f"{PAGE}/rounds/new/").content.decode()


@pytest.mark.usefixtures("forked_programs")
def test_a_model_that_is_not_causal_is_refused_everywhere(api, console, project, base, comparisons, tmp_path):
    folder = random_model(tmp_path / "mine", "bert", is_decoder=False, max_position_embeddings=64)
    answer = api.post(f"{API}/checkpoints", {"path": str(folder), "label": "mine", "serve": True}, format="json")
    assert (answer.status_code, answer.data["verdict"], answer.data["is_served"]) == (201, "waiting", False)
    mine = f"{API}/checkpoints/{answer.data['id']}"
    tasks.check_checkpoint(answer.data["id"])
    shown = api.get(mine).data
    assert (shown["verdict"], shown["is_served"]) == ("refused", False)
    reason = shown["verdict_reason"]
    assert "hidden states of a prefix without the tokens after it" in reason
    for path, body in (
        (f"{mine}/promote", {}),
        (f"{API}/rounds", {"learns": False, "checkpoint": answer.data["id"]}),
    ):
        refused = api.post(path, body, format="json")
        assert (refused.status_code, reason in json.dumps(refused.json(), ensure_ascii=False)) == (409, True), path
    page = console.get(f"{PAGE}/console/").content.decode()
    assert "Refused" in page and f"checkpoints/{answer.data['id']}/promote/" not in page
    assert console.post(f"{PAGE}/checkpoints/{answer.data['id']}/promote/").status_code == 409
    assert checkpoints.served(project) == base and not Round.objects.exists()


def test_only_administrators_import_through_the_api(api, manager, tmp_path):
    manager.is_staff = False
    manager.save()
    data = {"path": str(fake_model(tmp_path / "mine")), "label": "mine"}
    assert api.post(f"{API}/checkpoints", data, format="json").status_code == 403
    assert not Checkpoint.objects.exists()


def test_a_model_on_the_generic_path_is_served_and_the_page_explains_why_it_is_slow(console, waits, comparisons):
    checkpoints.settle_check(waits, GENERIC)
    page = console.get(f"{PAGE}/console/")
    assert waits.is_served and page.context["can_sample"]
    assert "padded rows, cached decoding: in packed passes states differ" in page.content.decode()


def test_a_checkpoint_that_waits_for_its_check_cannot_be_used(project, base, waits, comparisons, manager):
    for act in (
        lambda: checkpoints.promote(waits, manager),
        lambda: start_sampling(project, None, checkpoint=waits),
    ):
        with pytest.raises(Conflict, match="mine is not checked yet"):
            act()


def test_a_refused_checkpoint_that_is_served_starts_no_round_and_no_engine(project, base, rankings, console):
    failed = start_sampling(project, None)
    lifecycle.fail(lifecycle.claim(failed.pk, "gpu-1"), "it ended")
    Checkpoint.objects.update(verdict="refused", verdict_reason="it is not causal")
    assert console.get(f"{PAGE}/console/").context["refusal"] == "base cannot be used: it is not causal"
    failed.refresh_from_db()
    for act in (
        lambda: start_round(project, None),
        lambda: lifecycle.resume(Round.objects.get(pk=failed.pk)),
        lambda: follow(project, Engine("true", "127.0.0.1", 1), print, lambda: True),
    ):
        with pytest.raises(Conflict, match="base cannot be used: it is not causal"):
            act()


def test_a_model_still_to_be_checked_does_not_replace_a_later_promotion(project, base, waits, import_two):
    checkpoints.promote(import_two, None)
    checkpoints.settle_check(waits, FAST)
    assert checkpoints.served(project) == import_two


@pytest.fixture
def import_two(project, tmp_path):
    return checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "two")), "two", verdict=FAST)


def test_a_roll_back_to_a_refused_checkpoint_is_refused(project, base, import_two):
    checkpoints.promote(import_two, None)
    Checkpoint.objects.filter(pk=base.pk).update(verdict="refused", verdict_reason="it is not causal")
    with pytest.raises(Conflict, match="it is not causal"):
        checkpoints.roll_back(project, None)
    assert checkpoints.served(project) == import_two


def test_a_checkpoint_of_a_round_has_the_verdict_of_its_base(project, base, waiting, claim):
    Checkpoint.objects.update(verdict="exact_generic", verdict_reason="slow rows")
    lifecycle.finish(claim, Outcome(model="/models/new", reward_model="", samples=[], baseline=[]))
    made = Round.objects.get(pk=waiting.pk).checkpoint
    assert (made.verdict, made.verdict_reason) == ("exact_generic", "slow rows")


def test_only_imported_checkpoints_of_an_earlier_version_are_checked(project, base, waiting, claim, sent):
    """After the migration all checkpoints wait, and only imported ones are checked."""
    lifecycle.finish(claim, Outcome(model="/models/new", reward_model="", samples=[], baseline=[]))
    Checkpoint.objects.update(verdict="waiting")
    assert list(checks.waiting()) == [base]
    checkpoints.settle_check(read(base), GENERIC)
    assert set(Checkpoint.objects.values_list("verdict", flat=True)) == {"exact_generic"}


def test_the_beat_recovers_lost_messages_and_lost_workers(waits, sent, django_capture_on_commit_callbacks):
    def beat():
        with django_capture_on_commit_callbacks(execute=True):
            tasks.send_waiting_checks()
        asked = [pk for _name, pk in sent]
        sent.clear()
        return asked

    assert beat() == [waits.pk]
    assert beat() == []  # asked just now
    Checkpoint.objects.update(check_queued_at=Now() - timedelta(minutes=6))
    assert beat() == [waits.pk]
    assert checks.claim(waits.pk, "gpu-1:100")
    Checkpoint.objects.update(check_queued_at=Now() - timedelta(minutes=6))
    assert beat() == [] and not checks.claim(waits.pk, "gpu-1:100")  # a worker is at it
    Checkpoint.objects.update(check_heartbeat_at=Now() - timedelta(seconds=31))
    assert beat() == [waits.pk] and checks.claim(waits.pk, "gpu-1:100")
    checkpoints.settle_check(waits, FAST)
    Checkpoint.objects.update(check_queued_at=None)
    assert beat() == [] and not checks.claim(waits.pk, "gpu-1:100")


def test_a_worker_that_shuts_down_gives_its_check_back(waits, monkeypatch):
    heartbeat.shutting_down.set()
    try:
        probe_model.run(waits.pk)
    finally:
        heartbeat.shutting_down.clear()
    waits.refresh_from_db()
    assert (waits.verdict, waits.check_heartbeat_at) == ("waiting", None)


def test_a_running_check_refreshes_its_heartbeat_and_leaves_no_process_when_stopped(tmp_path):
    calls = []

    def stop():
        calls.append(1)
        if len(calls) > 1:
            raise process.ProgramStopped

    folder = random_model(tmp_path / "mine")
    with pytest.raises(process.ProgramStopped):
        probe_model.probe(str(folder), stop)
    assert process.programs_on(folder) == []


def test_a_folder_that_was_deleted_before_its_check_is_refused_with_a_sentence(waits, tmp_path):
    (tmp_path / "mine" / "config.json").unlink()
    tasks.check_checkpoint(waits.pk)
    waits.refresh_from_db()
    assert waits.verdict == "refused" and "no config.json" in waits.verdict_reason


def test_a_refused_checkpoint_is_checked_again_on_request(console, api, waits):
    checkpoints.settle_check(waits, REFUSED)
    assert console.post(f"{PAGE}/checkpoints/{waits.pk}/check/").status_code == 302
    assert (read(waits).verdict, read(waits).verdict_reason) == ("waiting", "")
    assert api.post(f"{API}/checkpoints/{waits.pk}/check").status_code == 409  # it waits already
    checkpoints.settle_check(read(waits), FAST)
    assert read(waits).is_served


def test_the_same_folder_under_another_label_is_checked_for_itself(waits, project):
    again = checkpoints.import_checkpoint(project, waits.path, "again")
    assert list(checks.waiting().order_by("pk")) == [waits, again]
