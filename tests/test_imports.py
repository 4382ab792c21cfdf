"""Imports point one way, and no web process loads torch."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.source import statements
from training.learner.runtime.config import CONFIGS

ROOT = Path(__file__).resolve().parents[1]
OURS = ("config", "training", "feedback")
HEAVY = ("torch", "transformers", "accelerate")
# Modules of the learner that fill and check a job directory. They load with the standard library only.
LIGHT = (
    "training.learner.runtime.jobdir",
    "training.learner.runtime.config",
    "training.learner.runtime.fields",
    "training.learner.estimators",
    "training.learner.reward_terms",
    "training.learner.environments",
)


@cache
def modules_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def name_of(file: Path) -> str:
    """The dotted name; a package's is that of its folder."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def import_statements(file: Path) -> list[tuple[str, list[str]]]:
    """Return every import in the file, also within functions: the module, and the imported names."""
    package = file.relative_to(ROOT).parent.parts
    imports: list[tuple[str, list[str]]] = []
    for node in statements(file):
        if isinstance(node, ast.Import):
            imports += ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (above, node.module or "") if part)
            imports.append((module, [alias.name for alias in node.names]))
    return imports


def imports_of(file: Path) -> Iterator[str]:
    """Yield every module that the file imports, and every name imported from a package."""
    for module, names in import_statements(file):
        yield module
        yield from (f"{module}.{name}" for name in names)


# Layers, top to bottom. A module imports from its own layer or from a lower one.
LAYERS = {
    "config.runtime": [
        ["bootstrap"],
        ["testing", "supervisor"],
        ["services", "site", "first_administrator"],
        ["postgres", "health", "web_worker", "chunked", "unread"],
        ["broker", "command_line", "environment", "hosts", "mail", "packages", "postgres_server", "uv"],
        ["single_sign_on"],
        ["errors"],
    ],
    "feedback": [
        ["web", "api", "admin", "admin_site", "apps", "management", "templatetags", "migrations"],
        ["reports"],
        ["actions"],
        ["imports"],
        ["queue"],
        ["quality"],
        ["export"],
        ["rendering"],
        ["webhooks"],
        ["audit"],
        [
            "models",
            "sql",
            "archive",
            "dialogues",
            "validation",
            "statements",
            "encryption",
            "network",
            "errors",
            "problems",
        ],
    ],
    "training.learner": [
        [*CONFIGS, "check"],
        ["policy"],
        ["preferences", "sampling", "rewards", "values"],
        ["models"],
        ["text"],
        ["runtime", "estimators", "reward_terms", "environments"],
    ],
}


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def forbidden_imports(files: list[Path], *forbidden: str) -> list[str]:
    return sorted(
        {
            f"{name_of(file)} imports {name}"
            for file in files
            for name in imports_of(file)
            if any(is_in(name, package) for package in forbidden)
        }
    )


def learner_modules() -> list[Path]:
    return modules_of("training/learner")


def training_without_learner() -> list[Path]:
    return sorted(set(modules_of("training")) - set(learner_modules()))


def test_the_import_rule_checks_existing_files():
    assert {name_of(file) for file in modules_of("feedback")} >= {"feedback.actions.rankings", "feedback.queue.leases"}
    assert "feedback.errors" in set(imports_of(ROOT / "training" / "rounds" / "lifecycle.py"))
    assert any(is_in(name, "torch") for file in learner_modules() for name in imports_of(file))


def test_feedback_imports_neither_training_nor_config():
    assert forbidden_imports(modules_of("feedback"), "training", "config") == []


def test_training_does_not_import_config():
    assert forbidden_imports(modules_of("training"), "config") == []


def test_the_learner_imports_nothing_of_ours_outside_itself():
    outside = [
        breach
        for breach in forbidden_imports(learner_modules(), *OURS, "django", "celery")
        if not is_in(breach.split(" imports ")[1], "training.learner")
    ]
    assert outside == []


def test_only_the_learner_imports_torch_or_transformers():
    assert forbidden_imports(modules_of("feedback") + modules_of("config") + training_without_learner(), *HEAVY) == []


def test_outside_the_learner_only_its_light_modules_are_used():
    """Programs (the demo's, and the learner's own) are run as processes, never imported."""
    used = {
        name
        for file in modules_of("feedback") + modules_of("config") + training_without_learner()
        for name in imports_of(file)
        if is_in(name, "training.learner") and name != "training.learner"
    }
    assert used
    assert [name for name in sorted(used) if not any(is_in(name, light) for light in LIGHT)] == []


def layer_of(name: str, package: str) -> int:
    """Return the index of the layer of a module or of a name in it; raise if its part has no layer."""
    part = name.removeprefix(f"{package}.").split(".")[0]
    for index, parts in enumerate(LAYERS[package]):
        if part in parts:
            return index
    raise AssertionError(f"{name} is in no layer of {package}: add {part!r} to LAYERS")


@pytest.mark.parametrize("package", LAYERS)
def test_no_import_runs_up_a_layer(package):
    upwards = [
        f"{name_of(file)} imports {name}"
        for file in modules_of(package.replace(".", "/"))
        for name in set(imports_of(file))
        if name_of(file) != package and is_in(name, package) and name != package
        if layer_of(name, package) < layer_of(name_of(file), package)
    ]
    assert sorted(upwards) == []


def import_cycles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Return each group of modules that import one another in a circle (Tarjan's strongly connected components)."""
    circles, stack, index, low = [], [], {}, {}

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for imported in sorted(imports[module]):
            if imported not in index:
                visit(imported)
                low[module] = min(low[module], low[imported])
            elif imported in stack:
                low[module] = min(low[module], index[imported])
        if low[module] == index[module]:
            place = stack.index(module)
            component = stack[place:]
            del stack[place:]
            if len(component) > 1:
                circles.append(sorted(component))

    for module in sorted(imports):
        if module not in index:
            visit(module)
    return circles


def imports_between(files: list[Path]) -> dict[str, set[str]]:
    """Return which of the files' modules each of them imports. `from package import module` needs the module only."""
    modules = {name_of(file) for file in files}
    imports: dict[str, set[str]] = {}
    for file in files:
        used = set()
        for module, names in import_statements(file):
            parts = {f"{module}.{name}" for name in names} & modules
            used |= parts if names and len(parts) == len(names) else parts | {module}
        imports[name_of(file)] = (used & modules) - {name_of(file)}
    return imports


def test_no_modules_import_one_another_in_a_circle():
    """Imports within functions count, too: they hide a circle, and do not break it."""
    files = [file for package in OURS for file in modules_of(package)]
    assert import_cycles(imports_between(files)) == []


def test_a_circle_of_imports_is_detected_in_any_order_of_visits():
    imports = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a", "f"}, "f": {"g"}, "g": {"e"}}
    assert import_cycles(imports) == [["b", "c"], ["e", "f", "g"]]
    assert import_cycles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.process
def test_the_light_modules_load_with_the_standard_library_only():
    code = f"import {', '.join(LIGHT)}"
    subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, check=True, env={"PYTHONPATH": str(ROOT)})


@pytest.mark.process
def test_a_web_process_holds_no_torch():
    """It imports the application as gunicorn does, resolves every address, and lists what it has loaded."""
    look = (
        "import sys, config.wsgi; from django.urls import get_resolver; "
        "len(get_resolver().reverse_dict); print('\\n'.join(sys.modules))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", look], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True
    )
    loaded = shown.stdout.splitlines()
    assert "training.web.views.console" in loaded
    assert [name for name in loaded if name.split(".")[0] in (*HEAVY, "safetensors", "tokenizers", "numpy")] == []
