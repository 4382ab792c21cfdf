"""Request bodies: JSON with a limit, and JSON Lines read as they come."""

from collections.abc import Iterator, Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from feedback.errors import Invalid, TooLarge
from feedback.imports.lines import loads, read_lines

LARGEST_BODY = 1024 * 1024  # bytes of a JSON body; many rows go as JSON Lines


class JsonParser(BaseParser):
    """An ordinary JSON body. DRF's own parser reads without a limit, and fails on deep nesting."""

    media_type = "application/json"

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        body = stream.read(LARGEST_BODY + 1)
        if len(body) > LARGEST_BODY:
            raise TooLarge(f"The body has more than {LARGEST_BODY // 2**20} MiB.")
        try:
            return loads(body)
        except Invalid as error:
            raise ParseError(f"The body cannot be read: {error.message}") from None


class JsonLinesParser(BaseParser):
    """One JSON value a line, whatever content type the client names; `request.data` is an iterator of rows."""

    media_type = "*/*"

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Iterator[object]:
        return read_lines(stream, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
