"""Failures of a start: one sentence for the operator, and a status other than 0."""

import os
import shutil
import socket
import subprocess
import sys
import venv
from contextlib import contextmanager
from pathlib import Path

import pytest

from config.runtime import bootstrap, packages, postgres, services
from config.runtime.errors import SetupError

ROOT = Path(__file__).resolve().parents[2]


def manage(*arguments: str, cwd: Path = ROOT, python: str = sys.executable, **environment: str):
    """Run manage.py in a process; return its status and stderr."""
    clean = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "ACCORD_DATA")}
    done = subprocess.run(
        [python, "manage.py", *arguments], cwd=cwd, env={**clean, **environment}, capture_output=True, text=True
    )
    return done.returncode, done.stderr


def valid_settings() -> dict[str, str]:
    """Return an environment with the database of the tests' cluster. With DATABASE_URL no secret key is generated."""
    address = os.environ["DATABASE_URL"]
    return {"DATABASE_URL": address, "ACCORD_EMBEDDED_DATABASE": "", "SECRET_KEY": "x" * 40, "DEBUG": ""}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def refused(outcome: tuple[int, str], *words: str) -> None:
    status, output = outcome
    assert status != 0
    assert "Traceback" not in output
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: ")
    for word in words:
        assert word in last


@pytest.fixture
def bare_clone(tmp_path: Path) -> Path:
    """Copy the files that a first start needs, without .venv."""
    for name in ("manage.py", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for folder in ("config", "requirements"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


@pytest.mark.process
def test_an_old_python_is_refused_before_anything_is_imported():
    program = "import sys; sys.version_info = (3, 10, 4); exec(open('manage.py').read())"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs Python 3.11" in done.stderr


@pytest.mark.process
def test_a_python_without_venv_is_refused_with_the_package_to_install(bare_clone):
    program = (
        "import sys; sys.modules['ensurepip'] = None; sys.argv = ['manage.py', 'up'];"
        "import config.runtime.bootstrap as b; sys.exit(b.main(sys.argv))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=bare_clone, capture_output=True, text=True)
    refused((done.returncode, done.stderr), "venv module", "apt install python3")


@pytest.mark.full
@pytest.mark.process
def test_a_missing_network_is_reported_as_such(bare_clone):
    outcome = manage(
        "up",
        cwd=bare_clone,
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_EXTRA_INDEX_URL="",
        PIP_FIND_LINKS="",
        PIP_RETRIES="0",
    )
    refused(outcome, "package index cannot be reached")
    assert not (bare_clone / ".venv" / "groups").exists(), "the next start must try again"


def test_an_index_that_cannot_be_reached_is_reported_as_such():
    output = "ERROR: Could not find a version that satisfies the requirement uvloop (from versions: none)"
    assert "package index cannot be reached" in packages.reason_of(output, "pip failed")


def test_a_full_disk_is_reported_as_such():
    output = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    assert "disk" in packages.reason_of(output, "pip failed")
    assert packages.reason_of("ERROR: something else", "pip failed: something else") == "pip failed: something else"


def test_a_wrong_hash_is_reported_as_such():
    output = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."
    assert "requirements/lock" in packages.reason_of(output, "pip failed")


@pytest.mark.process
@pytest.mark.parametrize("is_forbidden", [False, True])
def test_packages_are_compiled_where_python_may_not_write_bytecode(monkeypatch, tmp_path, is_forbidden):
    venv.create(tmp_path, symlinks=True)
    (folder,) = tmp_path.glob("lib/python*/site-packages")
    (folder / "good.py").write_text("value = 1\n")
    (folder / "for_another_version.py").write_text("print 1\n")
    monkeypatch.setattr(packages, "VENV", tmp_path)
    monkeypatch.setattr(packages, "PYTHON", tmp_path / "bin" / "python")
    monkeypatch.setattr(packages, "uv_install", lambda *what: True)
    monkeypatch.setattr(sys, "dont_write_bytecode", is_forbidden)
    packages.install_python_packages(["web"])
    assert [file.name.split(".")[0] for file in folder.rglob("*.pyc")] == ["good"] * is_forbidden


def test_installed_groups_are_not_installed_again(monkeypatch, tmp_path):
    installed: list[tuple[str, ...]] = []
    monkeypatch.setattr(packages, "VENV", tmp_path)
    monkeypatch.setattr(packages, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(packages, "pip_install", lambda *what: installed.append(what))
    monkeypatch.setattr(packages, "uv_install", lambda *what: False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://db")
    bootstrap.prepare("createsuperuser", [])
    assert installed == [("--require-hashes", "--no-deps", "-r", "requirements/lock/web.txt")]
    bootstrap.prepare("createsuperuser", [])
    assert len(installed) == 1
    bootstrap.prepare("check_model", ["folder"])  # the environment grows, and torch comes without a hash
    assert installed[1] == ("--require-hashes", "--no-deps", "-r", "requirements/lock/learner.txt")
    assert installed[2][0].startswith("torch==")
    (tmp_path / "groups" / "web").write_text("of an older requirements/web.txt")
    bootstrap.prepare("createsuperuser", [])
    assert installed[3] == installed[0]


def test_a_disk_with_too_little_room_refuses_to_start(monkeypatch, tmp_path):
    monkeypatch.setattr(services, "MIN_FREE_BYTES", shutil.disk_usage(tmp_path).total + 1)
    monkeypatch.setenv("ACCORD_DATA", str(tmp_path))
    with pytest.raises(SetupError, match="disk that holds"):
        services.prepare("up", [])


@pytest.mark.process
def test_a_port_in_use_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused(manage("up", "--port", port, ACCORD_DATA=str(tmp_path)), f"port {port}", "--port")


@pytest.mark.parametrize(
    ("command", "arguments", "serves"),
    [
        ("up", [], True),
        ("demo", [], True),
        ("up", ["--only", "web, beat"], True),
        ("up", ["--only=gpu"], False),
        ("up", ["--only", "default,beat"], False),
        ("migrate", [], False),
    ],
)
def test_only_a_host_with_the_web_service_needs_a_free_port(command, arguments, serves, monkeypatch, tmp_path):
    checked: list[str] = []
    monkeypatch.setenv("ACCORD_DATA", str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", "postgresql://db")
    monkeypatch.setattr(postgres, "check", lambda address: None)
    monkeypatch.setattr(services, "lock_folder", lambda folder: None)
    monkeypatch.setattr(services, "check_port", lambda host, port: checked.append(port))
    services.prepare(command, arguments)
    assert checked == ["8000"] * serves


@pytest.mark.process
def test_a_port_that_is_no_number_is_refused(tmp_path):
    refused(manage("up", "--port", "eighty", ACCORD_DATA=str(tmp_path)), '"eighty"')


@pytest.mark.process
def test_an_abbreviated_option_is_refused(tmp_path):
    status, output = manage("up", "--dat", str(tmp_path / "elsewhere"), ACCORD_DATA=str(tmp_path), **valid_settings())
    assert status != 0
    assert "unrecognized arguments: --dat" in output


@pytest.mark.process
def test_an_unreachable_database_is_named_without_its_password(tmp_path):
    outcome = manage(
        "up",
        "--port",
        str(free_port()),
        ACCORD_DATA=str(tmp_path),
        DATABASE_URL="postgresql://me:secret@127.0.0.1:9/accord",
    )
    refused(outcome, "accord on 127.0.0.1:9", "cannot be reached")
    assert "secret" not in outcome[1]


@pytest.mark.process
def test_an_address_that_is_not_postgresql_is_refused(tmp_path):
    outcome = manage("up", "--port", str(free_port()), ACCORD_DATA=str(tmp_path), DATABASE_URL="mysql://somewhere")
    refused(outcome, "DATABASE_URL", "not a PostgreSQL address")


@pytest.mark.process
def test_a_second_instance_on_the_same_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("DATABASE_URL")
    with locked(tmp_path):
        refused(
            manage("up", "--port", str(free_port()), ACCORD_DATA=str(tmp_path)), "another Accord already runs", "--data"
        )


@contextmanager
def locked(folder: Path):
    """Hold the locks that `up` would take. flock works between open files, so one process can play two hosts."""
    files = services.lock_folder(folder)
    try:
        yield
    finally:
        for file in files:
            file.close()


def refuses_second_supervisor(folder: Path) -> bool:
    try:
        with locked(folder):
            return False
    except SetupError:
        return True


def test_hosts_with_a_database_server_share_a_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://db.example.org/accord")
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-1")
    with locked(tmp_path):
        assert refuses_second_supervisor(tmp_path), "the same host"
        monkeypatch.setattr(socket, "gethostname", lambda: "gpu-2")
        assert not refuses_second_supervisor(tmp_path)
        monkeypatch.delenv("DATABASE_URL")
        assert refuses_second_supervisor(tmp_path), "an embedded database"
    assert not refuses_second_supervisor(tmp_path)


def test_a_folder_with_an_embedded_database_admits_one_supervisor_of_all_hosts(tmp_path, monkeypatch):
    monkeypatch.delenv("DATABASE_URL")
    with locked(tmp_path):
        monkeypatch.setattr(socket, "gethostname", lambda: "another-host")
        assert refuses_second_supervisor(tmp_path)
        monkeypatch.setenv("DATABASE_URL", "postgresql://db.example.org/accord")
        assert refuses_second_supervisor(tmp_path)


@pytest.mark.process
@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY is not set"),
        ({"SECRET_KEY": "short"}, "fewer than 32 characters"),
        ({"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS"),
        ({"LOG_LEVEL": "chatty"}, 'LOG_LEVEL is "CHATTY"'),
        ({"DEBUG": "maybe"}, 'DEBUG is "maybe"'),
        ({"WEB_WORKERS": "0"}, 'WEB_WORKERS is "0"'),
        ({"ACCORD_URL": "accord.example.org"}, "ACCORD_URL"),
        ({"ACCORD_SIMULATED_USER_URL": "http://ann:pass@host/v1"}, "without user name, password and query"),
        ({"ACCORD_SIMULATED_USER_URL": "http://127.0.0.1:8001/v1"}, "set ACCORD_SIMULATED_USER_MODEL"),
        ({"ACCORD_SIMULATED_USER_KEY": "sk-\u201chidden"}, "ACCORD_SIMULATED_USER_KEY has characters"),
    ],
)
def test_an_insecure_or_invalid_setting_stops_the_start(environment, words, tmp_path):
    refused(manage("check", ACCORD_DATA=str(tmp_path), **valid_settings() | environment), words)
