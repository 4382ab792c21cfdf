"""Files of exports: JSON Lines, CSV and Parquet, as streams of bytes with constant memory.

The same rows give the same bytes: no file has a time in it. Parquet's bytes depend on the version of pyarrow.
"""

import csv
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from feedback.export.ranking_record import Row
from feedback.export.schema import Schema, Type

if TYPE_CHECKING:
    import pyarrow

JSON_LINES = "application/x-ndjson"
MEDIA_TYPES = {"jsonl": JSON_LINES, "csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
GZIP = "application/gzip"
KINDS = tuple(MEDIA_TYPES)
ROWS_PER_CHUNK = 200  # of a streamed answer: a chunk per row would cost a system call per row
ROW_GROUP_BYTES = 16 * 1024 * 1024  # of a Parquet file, in memory
GZIP_WITHOUT_TIME = 16 + zlib.MAX_WBITS  # zlib writes 0 as the time
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would compute


def encoded(rows: Iterator[Row], kind: str, schema: Schema | None, *, compressed: bool = False) -> Iterator[bytes]:
    """Return the rows as a file of one of `KINDS`. schema: of the rows' columns; JSON Lines need none."""
    chunks = ENCODERS[kind](_in_chunks(rows), schema or {})
    return gzipped(chunks) if compressed else chunks


def json_lines(chunks: Iterator[list[Row]], schema: Schema) -> Iterator[bytes]:
    for chunk in chunks:
        yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chunk).encode()


def comma_separated(chunks: Iterator[list[Row]], schema: Schema) -> Iterator[bytes]:
    """Yield a header and the rows. A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(schema)
    for chunk in chunks:
        writer.writerows([_cell(row[name]) for name in schema] for row in chunk)
        yield _taken(text).encode()
    yield _taken(text).encode()  # the header of no rows


def parquet(chunks: Iterator[list[Row]], schema: Schema) -> Iterator[bytes]:
    """Yield a Parquet file, a group of rows at a time."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    columns = pyarrow.schema([(name, _arrow(kind)) for name, kind in schema.items()])
    written = _Written()
    with ParquetWriter(written, columns) as writer:
        batches: list[pyarrow.RecordBatch] = []
        for chunk in chunks:
            batches.append(pyarrow.RecordBatch.from_pylist(chunk, schema=columns))
            if sum(batch.nbytes for batch in batches) >= ROW_GROUP_BYTES:
                writer.write_table(pyarrow.Table.from_batches(batches))
                batches.clear()
                yield written.taken()
        if batches:
            writer.write_table(pyarrow.Table.from_batches(batches))
    yield written.taken()


ENCODERS: dict[str, Callable[[Iterator[list[Row]], Schema], Iterator[bytes]]] = {
    "jsonl": json_lines,
    "csv": comma_separated,
    "parquet": parquet,
}


class _Written(io.RawIOBase):
    """Write-only file that holds the bytes written since they were last taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _in_chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while chunk := list(islice(rows, ROWS_PER_CHUNK)):
        yield chunk


def gzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the content compressed, without a time."""
    compressor = zlib.compressobj(wbits=GZIP_WITHOUT_TIME)
    for chunk in chunks:
        if compressed := compressor.compress(chunk):
            yield compressed
    yield compressor.flush()


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _taken(text: io.StringIO) -> str:
    taken = text.getvalue()
    text.seek(0)
    text.truncate()
    return taken


def _arrow(kind: Type) -> "pyarrow.DataType":
    import pyarrow

    if isinstance(kind, list):
        return pyarrow.list_(_arrow(kind[0]))
    if isinstance(kind, dict):
        return pyarrow.struct([(name, _arrow(of)) for name, of in kind.items()])
    types = {"text": pyarrow.string, "integer": pyarrow.int64, "number": pyarrow.float64, "boolean": pyarrow.bool_}
    return types[kind]()
