"""Paths of checkpoints in a data folder that may be moved."""

import importlib
import shutil

import pytest
from django.apps import apps
from django.db import connection

from tests.factories import FAST, fake_model
from training import checkpoints
from training.models import Checkpoint

migration = importlib.import_module("training.migrations.0004_paths_in_data_folder")


def stored() -> list[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT path, reward_model_path FROM training_checkpoint ORDER BY id")
        return cursor.fetchall()


@pytest.fixture
def data(settings, tmp_path):
    settings.DATA_DIR = tmp_path / "data"
    (settings.DATA_DIR / "rounds" / "1").mkdir(parents=True)
    return settings.DATA_DIR


@pytest.fixture
def inside(project, data):
    made = checkpoints.import_checkpoint(
        project, str(fake_model(data / "rounds" / "1" / "model")), "mine", serve=True, verdict=FAST
    )
    made.reward_model_path = str(data / "rounds" / "1" / "reward")
    made.save()
    return made


def test_a_data_folder_that_is_moved_takes_its_checkpoints_along(inside, project, data, settings, tmp_path):
    assert stored() == [("data:rounds/1/model", "data:rounds/1/reward")]
    assert checkpoints.served(project).path == str(data / "rounds" / "1" / "model")
    settings.DATA_DIR = tmp_path / "elsewhere"
    shutil.move(data, settings.DATA_DIR)
    served = checkpoints.served(project)
    assert (settings.DATA_DIR / "rounds" / "1" / "model").samefile(served.path)
    assert Checkpoint.objects.filter(path=served.path).exists()


def test_a_model_outside_the_data_folder_and_a_hub_id_stay_as_they_are(project, data, tmp_path):
    outside = checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "outside")), "outside")
    Checkpoint.objects.filter(pk=outside.pk).update(reward_model_path="organisation/name")
    outside.refresh_from_db()
    assert (outside.path, outside.reward_model_path) == (str(tmp_path / "outside"), "organisation/name")
    assert stored() == [(str(tmp_path / "outside"), "organisation/name")]


def write(path: str, reward_model_path: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE training_checkpoint SET path = %s, reward_model_path = %s", [path, reward_model_path])


def test_the_migration_makes_old_paths_relative_and_back(inside, data):
    absolute = (str(data / "rounds" / "1" / "model"), str(data / "rounds" / "1" / "reward"))
    write(*absolute)
    assert Checkpoint.objects.get().path == absolute[0], "an old path works before it is rewritten"
    migration.make_relative(apps, None)
    assert stored() == [("data:rounds/1/model", "data:rounds/1/reward")]
    migration.make_absolute(apps, None)
    assert stored() == [absolute]


def test_the_migration_finds_folders_that_were_moved_before_it_ran(inside):
    write("/gone/var/rounds/1/model", "/gone/var/rounds/1/reward")
    migration.make_relative(apps, None)
    assert stored() == [("data:rounds/1/model", "/gone/var/rounds/1/reward")]
