"""Import and export of files by management commands."""

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
    assert run("import_prompts", "support", file, "--compare")[0] == (
        "2 new prompts, 0 known already (0 completed); 1 comparisons, 0 there already.\n"
        f"Undo it with: manage.py undo_import support {Import.objects.get().pk}\n"
    )
    assert Comparison.objects.count() == 1


def test_every_bad_line_is_printed_and_nothing_stored(project, file):
    file.write_text('{"prompt": "a"}\n{"prompt": ""}\nnothing\n')
    err = StringIO()
    with pytest.raises(CommandError, match="Line 2: prompt is empty"):
        call_command("import_prompts", "support", file, stderr=err)
    assert "line 3: The text is not JSON" in err.getvalue()
    assert not Prompt.objects.exists()


def test_a_missing_file_is_reported(project, file):
    with pytest.raises(CommandError, match="cannot be read: No such file"):
        run("import_prompts", "support", file)


@pytest.mark.parametrize("command", [["import_prompts", "nowhere", "x"], ["export_preferences", "nowhere"]])
def test_a_missing_project_is_reported(db, command):
    with pytest.raises(CommandError, match='no project "nowhere"'):
        run(*command)


def test_preferences_are_exported_with_a_cursor(project, ann, work):
    work(2)
    rank_next(ann)
    out, err = run("export_preferences", "support", "--split", "all")
    assert set(json.loads(out)) >= {"prompt", "chosen", "rejected"}
    assert err == "cursor 1\n"
    rank_next(ann)
    out, _ = run("export_preferences", "support", "--format", "rankings", "--after", "1")
    assert json.loads(out)["sequence"] == 2
