"""Request parsers: JSON with a size limit, and JSON Lines that are read as a stream."""

import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from feedback.errors import Invalid, TooLarge
from feedback.imports.lines import loads, read_lines

FILE = "application/octet-stream"
CHUNK = 1024 * 1024  # bytes
MAX_JSON_BYTES = 1024 * 1024  # many rows are sent as JSON Lines instead


class JsonParser(BaseParser):
    """JSON body with a size limit. REST framework's parser has none, and fails on deep nesting."""

    media_type = "application/json"

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        body = stream.read(MAX_JSON_BYTES + 1)
        if len(body) > MAX_JSON_BYTES:
            raise TooLarge(f"The body has more than {MAX_JSON_BYTES // 2**20} MiB.")
        try:
            data = loads(body)
            if b"\\ud" in body.lower():
                json.dumps(data, ensure_ascii=False).encode()  # no database and no answer can hold half a pair
        except Invalid as error:
            raise ParseError(f"The body cannot be read: {error.message}") from None
        except UnicodeEncodeError:
            raise ParseError('The body has one half of a surrogate pair, such as "\\ud800": send both.') from None
        return data


class JsonLinesParser(BaseParser):
    """JSON Lines, for every content type. `request.data` is an iterator of rows."""

    media_type = "*/*"

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Iterator[object]:
        return read_lines(stream, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)


class FileParser(BaseParser):
    """A file as it is, for every content type. `request.data` is an iterator of chunks of bytes."""

    media_type = "*/*"

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Iterator[bytes]:
        return iter(lambda: stream.read(CHUNK), b"")
