"""Import and export of files by management commands."""

import hashlib
import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from feedback.models import Comparison, Import, Prompt
from tests.factories import rank_next

pytestmark = pytest.mark.django_db


@pytest.fixture
def file(tmp_path):
    return tmp_path / "prompts.jsonl"


def run(*arguments):
    out, err = StringIO(), StringIO()
    call_command(*arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_a_file_of_prompts_is_imported(project, file):
    file.write_text('{"prompt": "a", "completions": ["x", "y"]}\n{"prompt": "b"}\n')
    assert run("load", "support", file, "--compare")[0] == (
        "Accord: prompts with completions: 2 rows, 2 imported, 0 unchanged, 0 with errors "
        "(2 prompts, 2 completions, 1 comparisons).\n"
        f"Undo it with: manage.py undo_import support {Import.objects.get().pk}\n"
    )
    assert Comparison.objects.count() == 1


def test_every_bad_line_is_printed_and_the_others_are_stored(project, file):
    file.write_text('{"prompt": "a"}\n{"prompt": ""}\nnothing\n')
    out, err = run("load", "support", file)
    assert "1 imported, 0 unchanged, 2 with errors" in out
    assert "line 2: prompt is empty" in err
    assert "line 3: The text is not JSON" in err
    assert Prompt.objects.count() == 1


def test_a_missing_file_is_reported(project, file):
    with pytest.raises(CommandError, match="cannot be read: No such file"):
        run("load", "support", file)


@pytest.mark.parametrize("command", [["load", "nowhere", "x"], ["export", "nowhere"]])
def test_a_missing_project_is_reported(db, command):
    with pytest.raises(CommandError, match='no project "nowhere"'):
        run(*command)


def test_preferences_are_exported_with_a_cursor(project, ann, work):
    work(2)
    rank_next(ann)
    out, err = run("export", "support", "--split", "all")
    assert set(json.loads(out)) >= {"prompt", "chosen", "rejected"}
    assert err == f"cursor 1\nsha256 {hashlib.sha256(out.encode()).hexdigest()}\n"
    rank_next(ann)
    out, _ = run("export", "support", "--format", "rankings", "--after", "1")
    assert json.loads(out)["sequence"] == 2
