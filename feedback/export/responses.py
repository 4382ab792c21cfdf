"""Exports as streamed HTTP answers, for the API and the page."""

from collections.abc import Iterator

from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response

from feedback.models import Project


def download(
    request: HttpRequest,
    content: Iterator[bytes],
    project: Project,
    name: str,
    media_type: str,
    etag: str,
    headers: dict[str, str] | None = None,
) -> HttpResponseBase:
    """Answer with the content as a file, or with 304 if the client has the same file already."""
    response = StreamingHttpResponse(content, content_type=media_type)
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
