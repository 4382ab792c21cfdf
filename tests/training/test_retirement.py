"""Retiring checkpoints, bringing them back, and deleting the files of retired ones."""

import os
import threading
from contextlib import contextmanager

import pytest
from celery import current_app
from django.db import IntegrityError, connection, transaction

from feedback.actions import trials as trial_actions
from feedback.errors import Conflict, Invalid
from feedback.models import Project, Source
from tests.factories import FAST, client_of, fake_model
from tests.training.trial_worlds import import_second, open_trial
from training import checkpoints, tasks
from training.checkpoints import disk
from training.home import figures
from training.models import Checkpoint, LoopSettings, Round
from training.rounds import lifecycle, named_checkpoints, simulated_user
from training.rounds.start import start_round, start_sampling

pytestmark = pytest.mark.slow

URL = "/api/v1/projects/support"


@pytest.fixture
def second(project, base, tmp_path):
    return import_second(project, tmp_path)


@pytest.fixture
def make(project, base, settings):
    """Make the checkpoint of a finished round, with files in its directory."""

    def make(number, parent=None, reward_model=True):
        folder = settings.DATA_DIR / "rounds" / "support" / f"{number:04d}"
        write(folder / "policy" / "metrics.jsonl", 10)
        write(folder / "policy" / "critic" / "value.safetensors", 300)
        write(folder / "sft" / "model" / "model.safetensors", 70)
        fake_model(folder / "policy" / "model")
        write(folder / "policy" / "model" / "model.safetensors", 5000)
        if reward_model:
            write(folder / "reward" / "model" / "model.safetensors", 4000)
        source = project.sources.create(name=f"round-{number:04d}", kind=Source.Kind.CHECKPOINT)
        made = Checkpoint.objects.create(
            project=project,
            source=source,
            kind=Checkpoint.Kind.ROUND,
            path=str(folder / "policy" / "model"),
            reward_model_path=str(folder / "reward" / "model") if reward_model else "",
            parent=parent or base,
            verdict="exact_fast",
        )
        values = {"status": "finished", "base": parent or base, "cutoff": 0, "ranking_count": 0}
        Round.objects.create(project=project, number=number, checkpoint=made, **values)
        return made

    return make


def write(file, size):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)


def change(checkpoint, **values):
    Checkpoint.objects.filter(pk=checkpoint.pk).update(**values)


@contextmanager
def undone():
    """Undo all writes of the block."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.fixture
def api(manager):
    return client_of(manager)


@pytest.fixture
def retired(make, manager):
    """A retired checkpoint whose reward model is not the newest one."""
    old, _newer = make(1), make(2)
    return checkpoints.retire(old, manager)


def test_a_retired_checkpoint_is_offered_nowhere_until_it_is_brought_back(project, base, second, comparisons, manager):
    checkpoints.retire(second, manager)
    assert (second.retired_by, second.is_usable, second.source.is_retired) == (manager, False, True)
    assert named_checkpoints.usable_names(project) == ["base"] == simulated_user.names_of_checkpoints(project)
    for use in (
        lambda: checkpoints.promote(second, manager),
        lambda: start_sampling(project, manager, checkpoint=second),
        lambda: start_round(project, manager, {"round": {"recipe": "trial", "checkpoints": ["base", "second"]}}),
        lambda: checkpoints.check_again(second),
    ):
        with pytest.raises(Conflict, match="second is retired: bring it back first, or use another checkpoint"):
            use()
    checkpoints.restore(second)
    assert (second.retired_at, second.is_usable) == (None, True)
    checkpoints.promote(second, manager)
    assert checkpoints.served(project) == second


def test_no_trial_of_stored_completions_compares_a_retired_checkpoint(project, base, second, manager):
    ended = open_trial(project, base, second, prompts=2)
    trial_actions.end_trial(ended, decision="undecided")
    checkpoints.retire(second, manager)
    with pytest.raises(Conflict, match="second is retired"):
        open_trial(project, base, second, prompts=2)


def test_a_check_that_would_serve_a_retired_model_does_not(project, base, tmp_path, manager):
    waiting = checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "late")), "late", serve=True)
    checkpoints.retire(waiting, manager)
    checkpoints.settle_check(waiting, FAST)
    assert checkpoints.served(project) == base


def test_a_checkpoint_in_use_is_not_retired(project, base, second, comparisons, api):
    trial = {"round": {"recipe": "trial", "checkpoints": ["base", "second"]}}
    as_user = {"ppo": {"environment": {"user": "checkpoint", "model": "second"}}}
    refusals = {
        "second is retired already.": lambda: checkpoints.retire(second, None),
        "second is served: promote another checkpoint first.": lambda: checkpoints.promote(second, None),
        "second is in trial 1, which is open: end it first.": lambda: open_trial(project, base, second, prompts=2),
        "Round 0 needs second: wait until it ends, or cancel it first.": lambda: start_sampling(
            project, None, checkpoint=second
        ),
        "Round 1 needs second: wait until it ends, or cancel it first.": lambda: start_round(project, None, trial),
        "The settings of this project's rounds name second: change them first.": lambda: LoopSettings.objects.create(
            project=project, settings=as_user
        ),
    }
    for sentence, prepare in refusals.items():
        with undone():
            prepare()
            answer = api.post(f"{URL}/checkpoints/{second.pk}/retire")
            assert (answer.status_code, answer.data["message"]) == (409, sentence)


def test_a_round_that_failed_is_not_resumed_from_a_retired_checkpoint(project, base, second, comparisons, manager):
    failed = start_sampling(project, manager, checkpoint=second)
    lifecycle.request_cancel(failed)
    tried = start_round(project, manager, {"round": {"recipe": "trial", "checkpoints": ["base", "second"]}})
    lifecycle.request_cancel(tried)
    checkpoints.retire(second, manager)
    for round_ in (failed, tried):
        with pytest.raises(Conflict, match="second is retired: bring it back first"):
            lifecycle.resume(round_)
    checkpoints.restore(second)
    assert lifecycle.resume(tried).status == "waiting"


def test_a_roll_back_passes_over_retired_checkpoints(project, base, second, tmp_path, manager):
    third = import_second(project, tmp_path, "third")
    for checkpoint in (second, third):
        checkpoints.promote(checkpoint, manager)
    checkpoints.retire(second, manager)
    assert checkpoints.roll_back(project, manager).checkpoint == base
    checkpoints.restore(second)
    assert checkpoints.served_before(project) is None
    with pytest.raises(Conflict, match="nothing to roll back to"):
        checkpoints.roll_back(project, manager)


def test_the_home_page_does_not_propose_a_retired_checkpoint(project, base, make, manager):
    made = make(1)
    summary = figures.figures_of(project)
    assert figures._candidate(summary, base) == made
    checkpoints.retire(made, manager)
    assert figures._candidate(figures.figures_of(project), base) is None


def test_sizes_are_measured_by_part_and_shared_files_apart(make, retired, settings, tmp_path):
    disk.measure(retired)
    retired.refresh_from_db()
    config = len('{"model_type": "llama"}')
    assert retired.file_sizes == {
        "model": 5000 + config,
        "reward_model": 4000,
        "critic": 300,
        "other": 70,
        "shared": 0,
    }
    folder = settings.DATA_DIR / "rounds" / "support" / "0001"
    os.link(folder / "reward" / "model" / "model.safetensors", folder / "sft" / "model" / "twice")
    os.link(folder / "policy" / "model" / "model.safetensors", tmp_path / "elsewhere")
    (folder / "sft" / "model" / "far").symlink_to(tmp_path)
    disk.measure(retired)
    retired.refresh_from_db()
    assert retired.file_sizes == {"model": config, "reward_model": 4000, "critic": 300, "other": 70, "shared": 5000}
    assert (retired.bytes_on_disk, retired.shared_bytes) == (config + 4370, 5000)


def test_an_imported_models_size_is_that_of_the_files_that_its_links_name(project, tmp_path):
    folder = fake_model(tmp_path / "model")
    write(tmp_path / "blobs" / "weights", 900)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "blobs" / "weights")
    write(folder / "onnx" / "model.onnx", 70)
    imported = checkpoints.import_checkpoint(project, str(folder), "linked", verdict=FAST)
    assert imported.bytes_on_disk == 900 + len('{"model_type": "llama"}')


def test_files_are_deleted_once_they_are_confirmed_and_the_record_stays(api, retired, manager, settings):
    disk.measure(retired)
    folder = settings.DATA_DIR / "rounds" / "support" / "0001"
    asked = api.delete(f"{URL}/checkpoints/{retired.pk}/files")
    assert asked.status_code == 409 and "9.2\xa0KB), which cannot be undone" in asked.data["message"]
    assert (folder / "policy" / "model").is_dir()
    deleted = api.delete(f"{URL}/checkpoints/{retired.pk}/files?confirmed=true")
    assert (deleted.status_code, deleted.data["files_deleted_by"]) == (200, "mona")
    tasks.settle_checkpoint_files()
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert left == ["policy/metrics.jsonl"]
    shown = api.get(f"{URL}/checkpoints/{retired.pk}").data
    assert shown["files_deleted_at"] and shown["file_sizes"]["reward_model"] == 4000
    for refused in (
        api.post(f"{URL}/checkpoints/{retired.pk}/restore"),
        api.delete(f"{URL}/checkpoints/{retired.pk}/files"),
    ):
        assert refused.status_code == 409 and "The files of round-0001 were deleted on" in refused.data["message"]


def test_a_deletion_that_was_interrupted_is_finished_by_the_next_worker(retired, manager, settings, monkeypatch):
    folder = settings.DATA_DIR / "rounds" / "support" / "0001"
    checkpoints.delete_files(retired, manager, confirmed=True)
    removed, remove = [], disk.shutil.rmtree

    def stop_after_one(path):
        if removed:
            raise KeyboardInterrupt
        removed.append(path)
        remove(path)

    monkeypatch.setattr(disk.shutil, "rmtree", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        disk.settle()
    retired.refresh_from_db()
    assert retired.is_being_deleted and disk.send_unsettled() and (folder / "sft" / "model").exists()
    monkeypatch.undo()
    disk.settle()
    retired.refresh_from_db()
    assert not retired.is_being_deleted and not (folder / "sft" / "model").exists()


def test_the_message_of_a_deletion_goes_to_the_workers_that_write_files_until_it_is_done(
    retired, manager, settings, monkeypatch, django_capture_on_commit_callbacks
):
    sent = []
    monkeypatch.setattr(current_app, "send_task", lambda name, **options: sent.append(name))
    Checkpoint.objects.update(file_sizes={})
    with django_capture_on_commit_callbacks(execute=True):
        checkpoints.delete_files(retired, manager, confirmed=True)
        tasks.send_unsettled_files()
    assert sent == [disk.SETTLE_FILES, disk.SETTLE_FILES]
    assert settings.CELERY_TASK_ROUTES[disk.SETTLE_FILES] == {"queue": "gpu"}
    tasks.settle_checkpoint_files()
    with django_capture_on_commit_callbacks(execute=True):
        tasks.send_unsettled_files()
    assert len(sent) == 2


def test_a_folder_that_cannot_be_removed_is_tried_again(retired, manager, monkeypatch):
    checkpoints.delete_files(retired, manager, confirmed=True)

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(disk.shutil, "rmtree", refuse)
    disk.settle()
    retired.refresh_from_db()
    assert retired.is_being_deleted
    monkeypatch.undo()
    disk.settle()
    assert not Checkpoint.objects.get(pk=retired.pk).is_being_deleted


def test_no_folder_outside_of_the_rounds_is_removed(retired, manager, tmp_path, settings):
    checkpoints.delete_files(retired, manager, confirmed=True)
    kept = [fake_model(tmp_path / "kept"), fake_model(settings.DATA_DIR / "demo" / "base")]
    outside = [*map(str, kept), str(settings.DATA_DIR / "rounds" / ".." / "demo" / "base")]
    Checkpoint.objects.filter(pk=retired.pk).update(folders_to_remove=outside)
    disk.settle()
    assert all(folder.is_dir() for folder in kept)


def test_files_that_are_needed_are_not_deleted(api, retired, base):
    newest = Checkpoint.objects.get(source__name="round-0002")
    refusals = {
        "Only files of a retired checkpoint can be deleted: retire round-0001 first.": lambda: checkpoints.restore(
            retired
        ),
        "round-0001 is not checked yet: its files can be deleted after its check.": lambda: change(
            retired, verdict="waiting"
        ),
        "/models/old is not in the data folder's rounds: delete it yourself.": lambda: change(
            retired, path="/models/old"
        ),
        "Evaluations score by the reward model of round-0001, the newest one: wait for another round's.": lambda: (
            change(newest, reward_model_path="")
        ),
        "base uses the same files.": lambda: change(base, path=retired.reward_model_path),
    }
    for sentence, prepare in refusals.items():
        with undone():
            prepare()
            answer = api.delete(f"{URL}/checkpoints/{retired.pk}/files?confirmed=true")
            assert (answer.status_code, answer.data["message"]) == (409, sentence)
            assert Checkpoint.objects.get(pk=retired.pk).files_deleted_at is None


def test_files_of_an_imported_model_or_of_another_project_are_not_deleted(api, project, retired, second, stranger):
    checkpoints.retire(second, None)
    answer = api.delete(f"{URL}/checkpoints/{second.pk}/files?confirmed=true")
    assert answer.status_code == 409 and "an imported model are not Accord's" in answer.data["message"]
    other = Project.objects.get(slug="other")
    checkpoints.import_checkpoint(other, retired.path, "copy", verdict=FAST)
    answer = api.delete(f"{URL}/checkpoints/{retired.pk}/files?confirmed=true")
    assert answer.status_code == 409 and "A checkpoint of another project uses the same" in answer.data["message"]


def test_a_checkpoint_whose_files_are_gone_cannot_be_brought_back(second, manager, tmp_path):
    with pytest.raises(Conflict, match="second is not retired"):
        checkpoints.restore(second)
    checkpoints.retire(second, manager)
    (tmp_path / "second" / "model.safetensors").unlink()
    with pytest.raises(Invalid, match=r"second cannot be brought back: .*no weights"):
        checkpoints.restore(second)


def test_the_page_retires_brings_back_and_deletes_by_buttons(client, manager, retired, settings):
    client.force_login(manager)
    page = f"/projects/support/checkpoints/{retired.pk}/"
    disk.measure(retired)
    assert_says(
        client.get(page), "It is neither served, nor tried", "Delete its files, 9.2\xa0KB. This cannot be undone."
    )
    client.post(f"{page}restore/")
    assert_says(client.get(page), "A retired checkpoint is offered nowhere", f'action="{page}retire/"')
    client.post(f"{page}retire/")
    assert client.post(f"{page}files/delete/").status_code == 409
    client.post(f"{page}files/delete/", {"confirmed": "1"})
    assert_says(client.get(page), "Files deleted on", "by mona.", "A worker is still removing them", "reward model 3.9")
    disk.settle()
    assert "still removing" not in client.get(page).content.decode()


@pytest.mark.full
def test_the_page_says_why_the_served_checkpoint_cannot_be_retired(client, manager, base):
    client.force_login(manager)
    refused = client.get(f"/projects/support/checkpoints/{base.pk}/")
    assert_says(refused, "base is served: promote another checkpoint first.", 'aria-disabled="true"')


def assert_says(response, *texts):
    page = " ".join(response.content.decode().split(" "))
    assert [text for text in texts if text not in page] == []


def test_the_list_has_parents_children_and_retirement(api, base, retired):
    by_name = {row["name"]: row for row in api.get(f"{URL}/checkpoints").data}
    assert by_name["base"]["children"] == ["round-0001", "round-0002"] and by_name["base"]["parent"] is None
    row = by_name["round-0001"]
    assert (row["parent"], row["children"], row["retired_by"], row["files_deleted_at"]) == ("base", [], "mona", None)


def test_the_database_holds_no_served_checkpoint_that_is_retired(base):
    with pytest.raises(IntegrityError), transaction.atomic():
        Checkpoint.objects.filter(pk=base.pk).update(retired_at="2026-01-01T00:00Z")
    with pytest.raises(IntegrityError), transaction.atomic():
        Checkpoint.objects.filter(pk=base.pk).update(folders_to_remove=["data:rounds"])


@pytest.mark.django_db(transaction=True)
def test_a_promotion_and_a_retirement_at_once_end_in_one_state(project, base, second, manager):
    ready, outcomes = threading.Barrier(2), {}

    def act(name, action):
        try:
            checkpoint = Checkpoint.objects.select_related("project", "source").get(pk=second.pk)
            ready.wait()
            action(checkpoint)
            outcomes[name] = ""
        except Conflict as refusal:
            outcomes[name] = refusal.message
        finally:
            connection.close()

    actions = {
        "promote": lambda checkpoint: checkpoints.promote(checkpoint, manager),
        "retire": lambda checkpoint: checkpoints.retire(checkpoint, manager),
    }
    threads = [threading.Thread(target=act, args=item) for item in actions.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    second.refresh_from_db()
    assert sorted(map(bool, outcomes.values())) == [False, True]  # one of the two was refused
    assert second.is_served == (outcomes["promote"] == "") and (second.retired_at is None) == second.is_served
    assert Source.objects.get(pk=second.source_id).is_retired != second.is_served
    assert checkpoints.served(project) == (second if second.is_served else base)
