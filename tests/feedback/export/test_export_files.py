"""Files of exports: fixed types, harmless cells, the same bytes again, and their SHA-256."""

import base64
import csv
import gzip
import hashlib
import io
import json
import random
from io import StringIO
from uuid import uuid4

import pyarrow
import pytest
from django.core.management import CommandError, call_command
from pyarrow import parquet

from feedback import imports
from feedback.actions import rankings, reviews
from feedback.errors import Invalid
from feedback.export import files, ranking_record
from feedback.export.formats import FORMATS
from feedback.models import Ranking
from feedback.reports import preference_export
from tests.factories import URL, add_work, client_of, rank_next

pytestmark = pytest.mark.django_db
TYPED = sorted(name for name, chosen in FORMATS.items() if chosen.schema is not None)
DIALOGUE = [
    {"role": "assistant", "content": "Which one?"},
    {"role": "user", "content": "Any."},
    {"role": "assistant", "content": "=7"},
]


@pytest.fixture
def ranked(ann, project):
    """Rankings of 2 and 3 completions, one with ties, one of a dialogue, and one with a comment in several scripts."""
    row = {"prompt": "Prime?", "completions": [{"turns": DIALOGUE, "source": "a"}, {"text": "4", "source": "=b"}]}
    imports.add_prompts(project, [row], compare=True)
    add_work(project, 3, size=3)
    add_work(project, 1)
    made = [rank_next(ann, comment='"=1"\r\n素数', seconds=0.5)]
    while ranking := rank_next(ann):
        made.append(ranking)
    rankings.revise_ranking(ann, made[1].pk, [1, 1, 2][: made[1].size], idempotency_key=uuid4(), seconds=1.0)
    return made


def export(project, name, **options):
    return preference_export.export(project, name, **{"split": "all", **options})


def content(project, name, **options):
    return b"".join(export(project, name, **options).content())


def lines(data):
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.slow
def test_every_line_has_the_columns_of_the_schema(ranked, project):
    for name in TYPED:
        for line in lines(content(project, name)):
            assert [key for key in line if key != "retracted"] == list(FORMATS[name].schema)


@pytest.mark.slow
def test_parquet_has_the_rows_of_json_lines_in_columns_of_fixed_types(ranked, project, monkeypatch):
    for name in TYPED:
        compare_parquet(project, name, monkeypatch)


def compare_parquet(project, name, monkeypatch):
    monkeypatch.undo()
    empty = parquet.read_schema(io.BytesIO(content(project, name, until=0, file="parquet")))
    monkeypatch.setattr(files, "ROW_GROUP_BYTES", 1)
    monkeypatch.setattr(files, "ROWS_PER_CHUNK", 2)
    chunks = list(export(project, name, file="parquet").content())
    table = parquet.ParquetFile(io.BytesIO(b"".join(chunks)))
    assert table.schema_arrow == empty
    assert not any(pyarrow.types.is_null(field.type) for field in empty)
    expected = [line | {"retracted": ""} for line in lines(content(project, name))]
    assert table.read().to_pylist() == expected
    assert table.num_row_groups == len(chunks) - 1 > 1  # a group is sent when it is full, the end of the file last


@pytest.mark.slow
def test_csv_has_the_rows_of_json_lines(ranked, project):
    read = list(csv.DictReader(StringIO(content(project, "trl-standard", file="csv").decode(), newline="")))
    for cells, line in zip(read, lines(content(project, "trl-standard")), strict=True):
        expected = {key: f"'{value}" if str(value).startswith("=") else str(value) for key, value in line.items()}
        assert cells == expected | {"retracted": ""}


def test_a_cell_that_a_spreadsheet_would_compute_begins_with_an_apostrophe():
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "a=1", "'=1", ""]
    rows = iter([{"text": text, "number": -1.5, "flag": True} for text in texts])
    data = b"".join(files.encoded(rows, "csv", {"text": "text", "number": "number", "flag": "boolean"}))
    read = list(csv.reader(StringIO(data.decode(), newline="")))
    assert [row[0] for row in read[1:]] == [*(f"'{text}" for text in texts[:6]), *texts[6:]]
    assert {tuple(row[1:]) for row in read[1:]} == {("-1.5", "true")}


def test_an_empty_csv_has_a_header(project):
    assert content(project, "hh", file="csv").decode().startswith("chosen,rejected,ranking_id,")


def test_a_format_with_lists_is_no_csv_and_one_of_free_form_no_parquet(project):
    for name, kind in (("trl", "csv"), ("rankings", "parquet"), ("label-studio", "parquet"), ("argilla", "csv")):
        with pytest.raises(Invalid, match=f'"{name}" cannot be written as {kind}; these can: .*trl-standard'):
            export(project, name, file=kind)
    with pytest.raises(Invalid, match="compressed already"):
        export(project, "trl", file="parquet", gzip=True)


@pytest.mark.slow
def test_a_compressed_export_has_the_same_content_and_no_time(ranked, project):
    compressed = content(project, "trl", gzip=True)
    assert gzip.decompress(compressed) == content(project, "trl")
    assert compressed[4:8] == bytes(4)  # RFC 1952: MTIME


@pytest.mark.slow
@pytest.mark.parametrize("revisions", [11, pytest.param(1000, marks=pytest.mark.full)])
def test_a_range_of_cursors_gives_the_same_bytes_after_later_revisions(ranked, ann, mona, project, revisions):
    until = ranking_record.sequence_cutoff(project)
    options = [
        *({"name": name} for name in sorted(FORMATS)),
        *({"name": name, "after": 2} for name in TYPED if FORMATS[name].has_cursor),
        {"name": "hh", "file": "csv", "gzip": True},
        {"name": "table", "file": "parquet"},
        {"name": "rankings", "aggregated": True, "weights": "resample"},
    ]
    options = options if revisions > 100 else options[::4]
    before = [content(project, until=until, **choice) for choice in options]
    tags = [export(project, until=until, **choice).etag for choice in options]
    generator = random.Random(3)
    for number in range(revisions):
        live = list(Ranking.objects.filter(is_live=True, project=project))
        changed = generator.choice(live)
        if number % 11 == 10 and len(live) > 2:
            reviews.discard(mona, changed.pk, reason="no")
        else:
            ranks = generator.choice([[1, 2, 3], [2, 1, 3], [1, 1, 2], [1, 1, 1]])[: changed.size]
            rankings.revise_ranking(ann, changed.pk, ranks, idempotency_key=uuid4(), seconds=1.0)
    assert ranking_record.sequence_cutoff(project) == until + revisions
    assert [content(project, until=until, **choice) for choice in options] == before
    assert [export(project, until=until, **choice).etag for choice in options] == tags


@pytest.mark.slow
def test_lines_after_a_cursor_have_one_set_of_columns_also_where_they_retract(ranked, ann, mona, project):
    cursor = ranking_record.sequence_cutoff(project)
    reviews.discard(mona, ranked[2].pk, reason="no")
    ranks = list(range(ranked[0].size, 0, -1))
    rankings.revise_ranking(ann, ranked[0].pk, ranks, idempotency_key=uuid4(), seconds=1.0)
    for name in (name for name in TYPED if FORMATS[name].has_cursor):
        taken, kept = lines(content(project, name, after=cursor))[:2]
        assert (taken["retracted"], kept["retracted"]) == ("discarded", "")
        assert taken["comparison_id"] == ranked[2].comparison_id
        assert [(key, type(value)) for key, value in taken.items()] == [(key, type(kept[key])) for key in kept]


@pytest.mark.slow
def test_head_gives_the_sha_256_of_the_file_if_it_is_asked_for(ranked, manager):
    files_by_query = {
        "format=trl": "support-trl.jsonl",
        "format=hh&file=csv&gzip=true": "support-hh.csv.gz",
        "format=table&file=parquet": "support-table.parquet",
    }
    for query, name in files_by_query.items():
        client, address = client_of(manager), f"{URL}/preferences?{query}"
        asked = client.head(address, headers={"want-repr-digest": "sha-256=1"})
        answer = client.get(address)
        digest = hashlib.sha256(b"".join(answer)).digest()
        assert asked["Repr-Digest"] == f"sha-256=:{base64.b64encode(digest).decode()}:"
        assert "Repr-Digest" not in client.head(address).headers
        assert answer["Content-Disposition"] == f'attachment; filename="{name}"'


@pytest.mark.slow
def test_the_command_writes_a_file_and_its_sha_256(ranked, project, tmp_path):
    path, err = tmp_path / "pairs.parquet", StringIO()
    call_command("export", "support", "--format=trl", "--split=all", "--file=parquet", f"--output={path}", stderr=err)
    assert path.read_bytes() == content(project, "trl", file="parquet")
    assert f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}" in err.getvalue()
    with pytest.raises(CommandError, match="cannot be written: Is a directory"):
        call_command("export", "support", f"--output={tmp_path}", stderr=StringIO())
