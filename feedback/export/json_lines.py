"""Exports as streamed HTTP answers, for the API and the page."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response

from feedback.models import Project

JSON_LINES = "application/x-ndjson"
ROWS_PER_CHUNK = 200  # of a streamed answer: a chunk per row would cost a system call per row


def json_lines(
    request: HttpRequest,
    rows: Iterator[dict[str, Any]],
    project: Project,
    name: str,
    etag: str,
    headers: dict[str, str] | None = None,
) -> HttpResponseBase:
    """Answer with the rows as JSON Lines, or with 304 if the client has the same lines already."""
    response = StreamingHttpResponse(_encoded(rows), content_type=JSON_LINES)
    response["Content-Disposition"] = f'attachment; filename="{project.slug}-{name}"'
    response["X-Accel-Buffering"] = "no"
    response["ETag"] = etag
    response["Cache-Control"] = "private, no-cache"  # the client may store it, and must revalidate it each time
    for header, value in (headers or {}).items():
        response[header] = value
    answer = get_conditional_response(request, etag=etag, response=response)
    assert answer is not None
    for header, value in (headers or {}).items():
        answer[header] = value  # Django copies the headers of the HTTP standard only to a 304
    return answer


def _encoded(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    while chunk := list(islice(rows, ROWS_PER_CHUNK)):
        yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chunk).encode()
