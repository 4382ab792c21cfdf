"""Files of rows as streams: JSON Lines, a JSON array, CSV, TSV and Parquet, plain or compressed with gzip or zstd.

The content decides, and the name only between lines and an array. One row at a time is in memory, of Parquet one group
of rows.
"""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.imports.lines import MAX_LINE_BYTES, UnreadableLine, read_lines

CHUNK = 1024 * 1024  # bytes
PARQUET_BATCH = 1000  # rows
GZIP, ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
CONSTANT = "accord-not-json"  # marks an element with NaN or Infinity
SLACK = 16  # characters before the end of what was read at which JSON may just be cut off

NumberedRow = tuple[int, object]  # the line, element or row, counted from 1; the row, or an UnreadableLine


class RowFile:
    """A file of rows. `kind` is jsonl, json, csv, tsv or parquet."""

    def __init__(self, path: Path, name: str = "") -> None:
        self.path, self.name = path, name or path.name
        self.size = path.stat().st_size
        self._read: IO[bytes] | None = None
        with ExitStack() as stack, _damage_is_invalid():
            self.kind = self._kind(self._open(stack))

    def rows(self, skip: int = 0) -> Iterator[NumberedRow]:
        """Yield the rows after the first `skip`, with their numbers: lines of JSON Lines and CSV, else elements.

        Raises Invalid.
        """
        with ExitStack() as stack:
            stack.enter_context(_damage_is_invalid())
            stream = self._open(stack)
            if self.kind == "jsonl":
                for _line in islice(stream, skip):  # a row is a line, so nothing has to be parsed
                    pass
                yield from enumerate(read_lines(stream, max_bytes=2**62), start=skip + 1)
            else:
                yield from islice(self._rows(stream), skip, None)

    def done(self) -> float:
        """Return the share of the file's bytes that was read."""
        if self._read is None or self._read.closed or not self.size:
            return 0.0
        return min(1.0, self._read.tell() / self.size)

    def _open(self, stack: ExitStack) -> IO[bytes]:
        plain = stack.enter_context(self.path.open("rb"))
        self._read = plain
        magic = plain.read(4)
        plain.seek(0)
        if magic[:2] == GZIP:
            return cast(IO[bytes], stack.enter_context(gzip.open(plain, "rb")))
        if magic == ZSTD:
            from pyarrow import CompressedInputStream, PythonFile  # 50 MB that few processes need

            unpacked = stack.enter_context(CompressedInputStream(PythonFile(plain, "r"), "zstd"))
            return cast(IO[bytes], io.BufferedReader(_Raw(unpacked), CHUNK))
        return plain

    def _kind(self, stream: IO[bytes]) -> str:
        start = stream.read(CHUNK)
        if start[:4] == PARQUET:
            return "parquet"
        if start[:2] in UTF16:
            raise Invalid(_("The file is in UTF-16: save it in UTF-8."))
        if b"\x00" in start:
            raise Invalid(_("The file is neither text nor Parquet."))
        text = start.removeprefix(codecs.BOM_UTF8).lstrip()
        suffixes = [suffix.casefold() for suffix in Path(self.name).suffixes]
        if text[:1] == b"{":
            return "jsonl"
        if text[:1] == b"[":
            return "jsonl" if {".jsonl", ".ndjson"} & set(suffixes) or _is_line_of_rows(text) else "json"
        if not text:
            raise Invalid(_("The file is empty."))
        if ".tsv" in suffixes:
            return "tsv"
        header = text.splitlines()[0]
        if ".csv" not in suffixes and header.count(b"\t") > header.count(b","):
            return "tsv"
        if b"," not in header and b"\t" not in header and ".csv" not in suffixes:
            raise Invalid(_("The file is neither JSON nor CSV, TSV or Parquet."))
        return "csv"

    def _rows(self, stream: IO[bytes]) -> Iterator[NumberedRow]:
        if self.kind == "parquet":
            return _parquet_rows(stream)
        if self.kind == "json":
            return enumerate(_array_rows(stream), start=1)
        return _csv_rows(stream, "\t" if self.kind == "tsv" else ",")


@contextmanager
def _damage_is_invalid() -> Iterator[None]:
    """Raise Invalid for what gzip, zlib and Arrow raise at damaged data."""
    try:
        yield
    except (EOFError, OSError, zlib.error) as error:
        raise Invalid(_("The compressed file is damaged or cut off: %(error)s.") % {"error": error}) from None


class _Raw(io.RawIOBase):
    """A stream of Arrow's as a raw stream of Python's."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _is_line_of_rows(text: bytes) -> bool:
    """Return whether the first line is a whole list, and a second line begins another one."""
    first, _newline, rest = text.partition(b"\n")
    return first.rstrip().endswith(b"]") and rest.lstrip()[:1] == b"["


def _array_rows(stream: IO[bytes]) -> Iterator[object]:
    """Yield the elements of a JSON array. What follows an element that is no JSON cannot be read."""
    characters = _Characters(stream)
    characters.skip("[")
    constants: list[str] = []
    decoder = json.JSONDecoder(parse_constant=constants.append)
    is_first = True
    while True:
        following = characters.peek()
        if following == "]":
            return
        if following == "," and not is_first:
            characters.skip(",")
        elif not is_first:
            yield UnreadableLine(_("The JSON array is damaged here, and the rows that follow cannot be read."))
            return
        is_first = False
        element = characters.decode(decoder)
        if constants and not isinstance(element, UnreadableLine):
            element = UnreadableLine(
                _("The text contains %(name)s, which JSON does not allow.") % {"name": constants[0]}
            )
            constants.clear()
            yield element
            continue
        yield element
        if isinstance(element, UnreadableLine):
            return


class _Characters:
    """The characters of a stream, as many as the next element needs."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._ended = "", 0, False

    def peek(self) -> str:
        """Return the next character that is no white space; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at].isspace():
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def skip(self, expected: str) -> None:
        if self.peek() == expected:
            self._at += 1

    def decode(self, decoder: json.JSONDecoder) -> object:
        """Return the next JSON value, or an UnreadableLine."""
        self.peek()
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self._at)
                self._at = end
                return value
            except RecursionError:
                return UnreadableLine(_("The JSON is nested too deeply."))
            except json.JSONDecodeError as error:
                is_cut_off = error.msg.startswith("Unterminated string") or error.pos > len(self._text) - SLACK
                if len(self._text) - self._at > MAX_LINE_BYTES:
                    return UnreadableLine(_("The line has more than %(most)s MiB.") % {"most": MAX_LINE_BYTES // 2**20})
                if not (is_cut_off and self._more()):
                    return UnreadableLine(
                        _("The text is not JSON: %(msg)s. The rows that follow cannot be read.") % {"msg": error.msg}
                    )
            except ValueError:
                return UnreadableLine(_("The JSON has a number with too many digits."))

    def _more(self) -> bool:
        """Read on; return whether there was more. What was decoded is dropped."""
        if self._ended:
            return False
        self._text, self._at = self._text[self._at :], 0
        # As much again as is there, so that a long element is not parsed over and over.
        data = self._stream.read(max(CHUNK, len(self._text)))
        try:
            self._text += self._decoder.decode(data, final=not data)
        except UnicodeDecodeError:
            raise Invalid(_("The text is not UTF-8.")) from None
        self._ended = not data
        return bool(data)


def _csv_rows(stream: IO[bytes], delimiter: str) -> Iterator[NumberedRow]:
    csv.field_size_limit(MAX_LINE_BYTES)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    reader = csv.DictReader(text, delimiter=delimiter, strict=True)
    line = 1
    try:
        names = reader.fieldnames or []
        if len(set(names)) < len(names):
            raise Invalid(_("Two columns have the same name."))
        while True:
            line = reader.line_num + 1
            row = next(reader, None)
            if row is None:
                return
            if None in row or None in row.values():
                message = _("The row has another number of columns than the first line.")
                yield line, UnreadableLine(message)
            else:
                yield line, row
    except UnicodeDecodeError:
        raise Invalid(_("The text is not UTF-8.")) from None
    except csv.Error as error:
        message = _("The CSV is damaged here (%(error)s), and the rows that follow cannot be read.")
        yield line, UnreadableLine(message % {"error": error})
    finally:
        text.detach()


def _parquet_rows(stream: IO[bytes]) -> Iterator[NumberedRow]:
    from pyarrow import ArrowException, parquet

    number = 0
    try:
        file = parquet.ParquetFile(stream)
        for batch in file.iter_batches(batch_size=PARQUET_BATCH, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield number, _without_nulls(row)
    except ArrowException as error:
        raise Invalid(_("The Parquet file cannot be read: %(error)s.") % {"error": error}) from None


def _without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row without columns that are null: Parquet has every column in every row."""
    return {name: value for name, value in row.items() if value is not None}
