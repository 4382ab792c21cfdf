"""Files of rows: every container and compression gives the same rows, and damage is told by line."""

import gzip
import json

import pyarrow
import pytest
from pyarrow import parquet

from feedback.errors import Invalid
from feedback.imports.files import RowFile
from feedback.imports.lines import UnreadableLine

ROWS = [{"prompt": f"Größe {number}?", "chosen": "a\nb", "rejected": "c, d"} for number in range(3)]


def lines(rows=ROWS):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def separated(separator):
    quoted = separator.join('"{}"'.format("{" + name + "}") for name in ROWS[0])
    return (separator.join(ROWS[0]) + "\n" + "".join(quoted.format(**row) + "\n" for row in ROWS)).encode()


CONTENTS = {
    "rows.jsonl": lines(),
    "rows.json": json.dumps(ROWS, indent=1).encode(),
    "rows": json.dumps(ROWS).encode(),
    "bom.json": b"\xef\xbb\xbf" + json.dumps(ROWS).encode(),
    "rows.csv": separated(","),
    "rows.tsv": separated("\t"),
    "rows.jsonl.gz": gzip.compress(lines()),
    "rows.csv.gz": gzip.compress(separated(",")),
}


@pytest.fixture
def file(tmp_path):
    def write(content, name="rows.jsonl"):
        path = tmp_path / name
        path.write_bytes(content)
        return RowFile(path)

    return write


def readable(rows):
    return [row for _line, row in rows if not isinstance(row, UnreadableLine)]


@pytest.mark.parametrize("name", CONTENTS)
def test_every_container_gives_the_same_rows(file, name):
    assert readable(file(CONTENTS[name], name).rows()) == ROWS


def test_an_array_is_read_in_pieces(file):
    rows = [{"text": "x" * 700_000, "number": number} for number in range(5)]
    assert readable(file(json.dumps(rows).encode(), "rows.json").rows()) == rows


@pytest.mark.parametrize(
    ("content", "name", "count", "reason"),
    [
        (b'{"a": 1}\nno\n{"a": 2}\n', "rows.jsonl", 2, "not JSON"),
        (b'[{"a": 1}, {"a": no}, {"a": 2}]', "rows.json", 1, "rows that follow cannot be read"),
        (b'[{"a": 1}, {"a": 2}', "rows.json", 2, "not JSON|damaged"),
        (b'[{"a": 1} {"a": 2}]', "rows.json", 1, "damaged here"),
        (b'[{"a": 1}, {"a": NaN}, {"a": 2}]', "rows.json", 2, "contains NaN"),
        (b"a,b\n1,2\n1,2,3\n4,5\n", "rows.csv", 2, "another number of columns"),
        (b'a,b\n1,2\n"1,2\n', "rows.csv", 1, "damaged here"),
    ],
)
def test_a_damaged_row_is_reported_and_the_readable_rows_are_read(file, content, name, count, reason):
    rows = list(file(content, name).rows())
    assert len(readable(rows)) == count
    (bad,) = [row for _line, row in rows if isinstance(row, UnreadableLine)]
    assert any(word in bad.message for word in reason.split("|"))


def test_a_row_of_csv_has_the_number_of_its_first_line(file):
    rows = list(file(b'a,b\n"1\n1",2\n3,4\n', "rows.csv").rows())
    assert [line for line, _row in rows] == [2, 4]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        ("[]".encode("utf-16"), "UTF-16"),
        (b"\x89PNG\r\n\x00\x00", "neither text nor Parquet"),
        (b"just words", "neither JSON nor CSV"),
        (b"a,a\n1,2\n", "the same name"),
        (gzip.compress(lines())[:-9], "damaged or cut off"),
    ],
    ids=["empty", "UTF-16", "picture", "words", "column twice", "cut off"],  # gzip's bytes differ by the second
)
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(file, content, reason):
    with pytest.raises(Invalid, match=reason):
        list(file(content, "rows").rows())


def test_parquet_and_zstd_are_read(file, tmp_path):
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    assert readable(RowFile(tmp_path / "rows.parquet").rows()) == ROWS
    (tmp_path / "rows.zst").write_bytes(pyarrow.compress(lines(), codec="zstd", asbytes=True))
    assert readable(RowFile(tmp_path / "rows.zst").rows()) == ROWS


def test_a_file_of_many_frames_of_zstd_is_read(file, tmp_path):
    packed = pyarrow.compress(lines(), codec="zstd", asbytes=True)
    assert readable(file(packed + packed, "rows.jsonl.zst").rows()) == ROWS * 2
