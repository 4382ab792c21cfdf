"""The registry of export formats: one decorated function is a format everywhere."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from feedback.export import ranking_record
from feedback.export.formats import registry
from feedback.reports import preference_export
from tests.factories import URL, client_of, rank_next, rows_of

DOCS = Path(__file__).resolve().parents[3] / "docs" / "data-and-api.md"


@pytest.fixture
def winners():
    """A format that names the best completion of each ranking."""
    before = dict(registry.FORMATS)

    @registry.export_format("winners", line="the best completion of a ranking", default_split="held_out")
    def convert(rows, reader):
        for row in rows:
            yield {"best": row["completions"][row["ranks"].index(1)], "split": row["split"]}

    yield "winners"
    registry.FORMATS.clear()
    registry.FORMATS.update(before)


@pytest.mark.slow
@pytest.mark.django_db
def test_a_registered_format_is_served_by_the_api_and_the_command(winners, ann, manager, project, work):
    work(30)
    while rank_next(ann):
        pass
    rows = list(ranking_record.rankings(project, split="held_out"))
    expected = [{"best": row["completions"][row["ranks"].index(1)], "split": "held_out"} for row in rows]
    answer = client_of(manager).get(f"{URL}/preferences?format=winners")
    assert answer["Content-Disposition"] == 'attachment; filename="support-winners.jsonl"'
    out = StringIO()
    call_command("export", "support", "--format", "winners", stdout=out, stderr=StringIO())
    assert rows_of(answer) == [json.loads(line) for line in out.getvalue().splitlines()] == expected
    assert expected


@pytest.mark.django_db
def test_an_unknown_format_is_refused(manager, project):
    answer = client_of(manager).get(f"{URL}/preferences?format=winners")
    assert (answer.status_code, answer.json()["message"]) == (400, 'format: "winners" is not a valid choice.')


def test_the_default_format_is_registered():
    assert preference_export.DEFAULT_FORMAT in registry.names()


def test_help_texts_name_every_format_and_its_default_split():
    assert set(registry.names()) >= {"rankings", "table", "trl"}
    assert registry.descriptions().count(";") >= 2
    assert registry.split_default() == (
        "Default: train for hh, kto, openai-dpo, trl, trl-implicit, trl-standard; all for the other formats."
    )


def test_the_documentation_has_the_table_of_the_registry():
    table = registry.markdown_table()
    assert table in DOCS.read_text("utf-8"), f"put this table into {DOCS.name}:\n\n{table}"
