"""Every sentence for people goes through gettext, and the Chinese catalogue has it."""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import BASE_DIR

CATALOGUE = BASE_DIR / "config" / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po"
REFUSALS = {"Invalid", "Conflict", "NotFound", "Forbidden"}


def code() -> list[Path]:
    """Return the files whose texts are translated: all but `training/learner`, whose programs run in a terminal."""
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


@pytest.mark.skipif(shutil.which("xgettext") is None, reason="xgettext (of GNU gettext) is not on this machine")
def test_the_catalogue_has_every_sentence_of_the_code(tmp_path):
    found = tmp_path / "found.po"
    keywords = ["-k_", "-kgettext_lazy", "-kin_english", "-kngettext:1,2"]
    command = ["xgettext", "-LPython", "--from-code=UTF-8", *keywords, "-o", found, *code()]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    asked = sentences(found.read_text())
    assert len(asked) > 200
    missing = sorted(asked - sentences(CATALOGUE.read_text()))
    assert missing == []


@pytest.mark.skipif(shutil.which("xgettext") is None, reason="xgettext (of GNU gettext) is not on this machine")
def test_the_catalogue_has_every_sentence_of_the_templates(tmp_path):
    from django.utils.translation.template import templatize  # what makemessages does

    as_code = []
    for number, path in enumerate((BASE_DIR / "templates").rglob("*.html")):
        as_code.append(tmp_path / f"{number}.py")
        jinja = path.name.endswith(".jinja.html")
        # Only what is in the tags: a quotation mark of the HTML between them would begin a string.
        text = ";\n".join(re.findall(r"{[{%]-?(.*?)-?[%}]}", path.read_text(), re.DOTALL)) if jinja else ""
        as_code[-1].write_text(text or templatize(path.read_text()))
    found = tmp_path / "found.po"
    keywords = ["-k_", "-kgettext", "-kgettext_noop", "-kngettext:1,2"]
    command = ["xgettext", "-LPython", "--from-code=UTF-8", *keywords, "-o", found, *as_code]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    asked = sentences(found.read_text())
    assert len(asked) > 200
    missing = sorted(asked - sentences(CATALOGUE.read_text()))
    assert missing == []
