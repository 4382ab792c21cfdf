"""Installation by uv: pip's settings are passed on, and pip is used where uv cannot be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.runtime import packages, uv
from config.runtime.errors import SetupError

LOCK = ["-r", "requirements/lock/web.txt"]


def test_pips_settings_are_translated():
    config = """global.cert='/etc/ca.pem'
global.index-url='https://user:secret@pypi.example.org/simple'
global.extra-index-url='https://one.example.org/simple\\nhttps://two.example.org/simple'
global.trusted-host='one.example.org two.example.org:8080'
install.find-links='/srv/wheels https://wheels.example.org'
:env:.default-timeout='180'
:env:.disable-pip-version-check='1'
"""
    settings = uv.environment(config)
    assert settings.pop("UV_NO_CONFIG") == settings.pop("UV_NO_PROGRESS") == "1"
    assert settings.pop("UV_INDEX_STRATEGY") == "unsafe-best-match"
    assert settings == {
        "UV_INDEX_URL": "https://user:secret@pypi.example.org/simple",
        "UV_EXTRA_INDEX_URL": "https://one.example.org/simple https://two.example.org/simple",
        "UV_INSECURE_HOST": "one.example.org two.example.org:8080",
        "UV_FIND_LINKS": "/srv/wheels,https://wheels.example.org",
        "UV_HTTP_TIMEOUT": "180",
        "SSL_CERT_FILE": "/etc/ca.pem",
    }


def test_a_variable_overrides_a_file_and_an_empty_one_does_not():
    config = ":env:.index-url='https://b.org'\nglobal.index-url='https://a.org'\n:env:.find-links=''\n"
    config += "global.find-links='/srv'\ninstall.index-url='https://c.org'\ndownload.no-index='1'\n"
    settings = uv.environment(config)
    assert (settings["UV_INDEX_URL"], settings["UV_FIND_LINKS"]) == ("https://b.org", "/srv")


@pytest.mark.parametrize(("value", "is_off"), [("1", True), ("true", True), ("0", False), ("False", False)])
def test_pips_cache_setting_is_translated(value, is_off):
    assert ("UV_NO_CACHE" in uv.environment(f":env:.no-cache-dir='{value}'\n")) == is_off


@pytest.mark.parametrize(
    "line", ["global.no-index='1'", "install.target='/srv'", "global.index-url='https://a https://b'"]
)
def test_a_setting_without_a_counterpart_leaves_the_installation_to_pip(line):
    assert uv.environment(f"{line}\n") is None


@pytest.mark.process
def test_the_settings_of_this_pip_can_be_read(monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "/srv/a /srv/b")
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    assert uv.effective_settings(listing.stdout)["find-links"] == "/srv/a /srv/b"


def test_the_lock_of_uv_has_its_version_and_hashes():
    lines = uv.locked_requirement(packages.REQUIREMENTS / "lock" / "dev.txt").splitlines()
    assert lines[0].startswith("uv==")
    assert all(line.strip().startswith("--hash=sha256:") for line in lines[1:])
    assert len(lines) > 5


@pytest.fixture
def installers(monkeypatch):
    """Replace the installers by ones that record their commands; uv itself is a script that fails."""
    commands: list[list[str]] = []
    monkeypatch.setattr(packages, "PYTHON", Path(sys.executable))

    def record(command, name, notable, environment=None):
        commands.append(command)
        if name == "uv":
            assert environment["UV_NO_CONFIG"] == "1"
            raise SetupError("uv failed")

    monkeypatch.setattr(packages, "run_installer", record)
    return commands


@pytest.mark.process
def test_pip_installs_the_same_if_uv_fails(installers, tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "VENV", tmp_path)
    packages.install_python_packages(["web"])
    uv_itself, by_uv, by_pip = installers
    assert "--target" in uv_itself and "--require-hashes" in uv_itself
    assert by_uv[1:] == ["pip", "install", "--python", sys.executable, "--verify-hashes", "--no-deps", *LOCK]
    assert by_pip[1:4] == ["-m", "pip", "install"] and by_pip[-4:] == ["--require-hashes", "--no-deps", *LOCK]
    assert not Path(by_uv[0]).exists(), "uv does not stay"


@pytest.mark.process
def test_with_an_unknown_setting_uv_is_not_even_downloaded(installers, tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "VENV", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    packages.install_python_packages(["web"])
    (by_pip,) = installers
    assert by_pip[0] == sys.executable and os.path.basename(by_pip[2]) == "pip"
