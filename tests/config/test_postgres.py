"""The embedded PostgreSQL: its owner, its folder, and who can connect."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from config.runtime import postgres
from config.runtime.errors import SetupError
from config.runtime.postgres_server import cluster_of, is_running, postmaster
from tests.config.test_setup import manage, refused

ROOT = Path(__file__).resolve().parents[2]
# Starts or joins the server as a command does, prints the address, and leaves when its input ends.
USER = "import sys; from pathlib import Path; from config.runtime import postgres; "
USER += "print(postgres.start(Path(sys.argv[1])), flush=True); sys.stdin.read()"

pytestmark = pytest.mark.process
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to somebody else")


@contextmanager
def using(folder: Path):
    """Yield the address of the folder's database while a process uses it."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        address = process.stdout.readline().strip()
        assert address, postgres.log(folder).read_text()
        yield address
    finally:
        process.communicate()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a data folder whose database was made and stopped."""
    folder = tmp_path_factory.mktemp("made")
    with using(folder):
        assert is_running(folder)
    assert not is_running(folder)
    return folder


def copied(source: Path, target: Path, how: str = "-a") -> Path:
    subprocess.run(["cp", how, source, target], check=True)
    return target


@pytest.fixture
def folder(made, tmp_path):
    return copied(made, tmp_path / "data")


def run(address: str, query: str):
    with psycopg.connect(address, autocommit=True) as connection:
        done = connection.execute(query)
        return done.fetchall() if done.description else None


@pytest.mark.full
def test_a_copy_of_a_running_data_folder_starts_its_own_server(folder, tmp_path):
    with using(folder) as original:
        run(original, "CREATE TABLE mine (n int)")
        with using(copied(folder, tmp_path / "copy")) as copy:
            run(copy, "DROP TABLE mine")
        assert run(original, "SELECT count(*) FROM mine") == [(0,)]


@pytest.mark.full
def test_a_stale_pid_that_now_belongs_to_another_process_is_ignored(folder):
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            lines = [bystander.pid, folder / "postgres", 1700000000, 5432, folder / "postgres", "", "  1  1", "ready"]
            (cluster_of(folder) / name).write_text("\n".join(map(str, lines)) + "\n")
        assert not is_running(folder)
        with using(folder) as address:
            assert run(address, "SELECT 1") == [(1,)]
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize(
    "left", [pytest.param("", marks=pytest.mark.full), "12", pytest.param("no number\n", marks=pytest.mark.full)]
)
def test_a_truncated_postmaster_pid_does_not_stop_the_start(folder, left):
    (cluster_of(folder) / "postmaster.pid").write_text(left)
    with using(folder) as address:
        assert run(address, "SELECT 1") == [(1,)]


def test_the_server_stops_with_its_last_user(folder):
    with using(folder):
        first = postmaster(cluster_of(folder))
        with using(folder) as address:
            assert run(address, "SELECT 1") == [(1,)]
        assert postmaster(cluster_of(folder)) == first
    assert not first.is_running()


def test_a_killed_server_is_started_again_by_the_next_user(folder):
    with using(folder):
        server = postmaster(cluster_of(folder))
        server.kill()
        while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:  # its parent does not wait for it
            time.sleep(0.02)
        with using(folder) as address:
            assert run(address, "SELECT 1") == [(1,)]


@pytest.mark.full
def test_other_users_cannot_read_the_data_and_folders_above_are_unchanged(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    before = [(path, path.stat().st_mode) for path in closed.parents]
    data = closed / "data"
    status, output = manage("check", "--data", str(data))
    assert status == 0, output
    assert [(path, path.stat().st_mode) for path in closed.parents] == before
    assert closed.stat().st_mode == 0o040700
    open_to_others = [p for p in [data, *data.rglob("*")] if p.stat().st_mode & 0o077 and not p.is_socket()]
    assert open_to_others == []


@pytest.mark.full
def test_a_data_folder_that_an_earlier_version_left_readable_is_made_private(folder):
    folder.chmod(0o755)
    assert manage("check", "--data", str(folder))[0] == 0
    assert folder.stat().st_mode == 0o040700


def test_a_folder_that_anybody_can_write_to_is_refused(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    refused(manage("check", "--data", str(shared)), "anybody can write to", str(shared))
    assert shared.stat().st_mode == 0o041777


@needs_root
def test_another_user_of_the_machine_cannot_connect_even_if_the_folder_is_open(folder):
    stranger = pwd.getpwnam("nobody")
    with using(folder):
        cluster_of(folder).chmod(0o755)
        program = (
            f"import os, psycopg; os.chdir({str(cluster_of(folder))!r}); os.setuid({stranger.pw_uid}); "
            "psycopg.connect('postgresql://postgres@/accord?host=/proc/self/cwd')"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert "Peer authentication failed" in done.stderr


@pytest.mark.full
def test_a_path_too_long_for_a_socket_is_reached_through_a_private_link(made, tmp_path):
    deep = tmp_path / ("d" * 100)
    deep.mkdir(mode=0o700)
    with using(copied(made, deep / "data")) as address:
        assert run(address, "SELECT 1") == [(1,)]
    private = postgres.socket_folder(cluster_of(deep / "data")).parent
    assert private.stat().st_mode == 0o040700
    private.chmod(0o755)
    with pytest.raises(SetupError, match="is not a private folder of this user"):
        postgres.socket_folder(cluster_of(deep / "data"))
    shutil.rmtree(private)


@pytest.mark.full
@needs_root
def test_a_folder_copied_without_its_owner_is_refused_with_the_remedy(folder, tmp_path):
    copy = copied(folder, tmp_path / "copy", "-r")
    refused(manage("check", "--data", str(copy)), 'belongs to the user "root"', "chown -R", "cp -a")


def test_a_database_of_another_version_is_refused_with_both_versions(folder):
    (cluster_of(folder) / "PG_VERSION").write_text("15\n")
    refused(manage("check", "--data", str(folder)), 'PostgreSQL "15"', "PostgreSQL 18", "pg_dump")


def test_an_empty_secret_key_is_refused(folder):
    (folder / "secret_key").write_text("")
    refused(manage("check", "--data", str(folder), SECRET_KEY=""), str(folder / "secret_key"), "empty")


def test_a_data_folder_without_a_name_is_refused():
    refused(manage("check", "--data"), "--data DIR")


def test_a_copied_socket_file_is_not_taken_for_a_server(folder):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(cluster_of(folder) / ".s.PGSQL.5432"))
    assert not is_running(folder)
    with using(folder) as address:
        assert run(address, "SELECT 1") == [(1,)]
