"""Every sentence for people goes through gettext, and the Chinese catalogue has it."""

import ast
import dataclasses
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from config.settings import BASE_DIR

CATALOGUE = BASE_DIR / "config" / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po"
REFUSALS = {"Invalid", "Conflict", "NotFound", "Forbidden"}
needs_xgettext = pytest.mark.skipif(
    shutil.which("xgettext") is None, reason="xgettext (of GNU gettext) is not on this machine"
)


def code() -> list[Path]:
    """Return the files whose texts are translated: all but `training/learner`, whose programs run in a terminal.

    Its settings are shown in a form, too: see `of_settings`.
    """
    found = [*(BASE_DIR / "feedback").rglob("*.py"), *(BASE_DIR / "training").rglob("*.py")]
    return [path for path in found if not {"learner", "migrations"} & set(path.relative_to(BASE_DIR).parts)]


def sentences(catalogue: str) -> set[str]:
    found = re.findall(r'^msgid(?:_plural)? ((?:".*"\n?)+)', catalogue, re.MULTILINE)
    return {"".join(map(ast.literal_eval, each.splitlines())) for each in found}


def untranslatable(path: Path) -> Iterator[str]:
    """Yield the places where an error is raised with an untranslated text."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and node.args]
    for call in calls:
        is_refusal = isinstance(call.func, ast.Name) and call.func.id in REFUSALS
        if is_refusal and isinstance(call.args[0], ast.JoinedStr | ast.Constant):
            yield f"{path.relative_to(BASE_DIR)}:{call.lineno}"


def test_no_refusal_is_in_english_alone():
    assert not [each for path in code() for each in untranslatable(path)]


def of_settings() -> set[str]:
    """Return the labels and sentences of the settings of rounds, which are declared where no gettext is."""
    from training.learner.runtime.config import CONFIGS
    from training.rounds.settings import RoundSettings

    fields = [field for kind in (RoundSettings, *CONFIGS.values()) for field in dataclasses.fields(kind)]
    shown = [field.metadata for field in fields if field.metadata["label"]]
    return {text for one in shown for text in (one["label"], one["help"], *one["meanings"].values())}


def extracted(paths: Sequence[Path], folder: Path) -> set[str]:
    """Return the sentences that xgettext finds in these files of Python code."""
    found = folder / "found.po"
    keywords = ["_", "gettext", "gettext_lazy", "gettext_noop", "in_english", "ngettext:1,2"]
    command = ["xgettext", "-LPython", "--from-code=UTF-8", *(f"-k{keyword}" for keyword in keywords), "-o", found]
    subprocess.run(list(map(str, [*command, *paths])), check=True, capture_output=True)
    return sentences(found.read_text())


def templates_as_code(folder: Path) -> list[Path]:
    """Write each template as Python code with its texts in calls of gettext, and return the files."""
    from django.utils.translation.template import templatize  # what makemessages does

    as_code = []
    for number, path in enumerate(sorted((BASE_DIR / "templates").rglob("*.[ht]*"))):
        as_code.append(folder / f"{number}.py")
        jinja = path.name.endswith(".jinja.html")
        # Only what is in the tags: a quotation mark of the HTML between them would begin a string.
        text = ";\n".join(re.findall(r"{[{%]-?(.*?)-?[%}]}", path.read_text(), re.DOTALL)) if jinja else ""
        as_code[-1].write_text(text or templatize(path.read_text()))
    return as_code


@needs_xgettext
def test_the_catalogue_has_every_sentence_of_the_code(tmp_path):
    asked = extracted(code(), tmp_path) | of_settings()
    assert len(asked) > 200
    assert sorted(asked - sentences(CATALOGUE.read_text())) == []


@needs_xgettext
def test_the_catalogue_has_every_sentence_of_the_templates(tmp_path):
    asked = extracted(templates_as_code(tmp_path), tmp_path)
    assert len(asked) > 200
    assert sorted(asked - sentences(CATALOGUE.read_text())) == []


@needs_xgettext
def test_the_catalogue_has_no_sentence_that_nothing_uses(tmp_path):
    asked = extracted([*code(), *templates_as_code(tmp_path)], tmp_path) | of_settings()
    assert sorted(sentences(CATALOGUE.read_text()) - asked - {""}) == []
