"""Middleware for all responses, of pages and API alike, and the response to an unexpected error."""

import sys
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.views import defaults

from config.request_ids import request_id_of
from feedback.errors import lost_database
from feedback.problems import MEDIA_TYPE, problem_response, server_fault, unreadable

GetResponse = Callable[[HttpRequest], HttpResponseBase]


class ResponseMiddleware:
    """Set `Cache-Control: no-store` by default, and remove the body of responses to HEAD.

    Without this an export would be read from the database for HEAD, and the server would throw it away.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if not response.has_header("Cache-Control"):
            response["Cache-Control"] = "no-store"
        return without_body(response) if request.method == "HEAD" else response


def without_body(response: HttpResponseBase) -> HttpResponseBase:
    """Remove the body; the headers stay those of GET."""
    if isinstance(response, StreamingHttpResponse):
        response.streaming_content = ()
    elif isinstance(response, HttpResponse):
        response["Content-Length"] = str(len(response.content))
        response.content = b""
    return response


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return 400 for a request that Django refuses before a view reads it, or 413 for its too large body."""
    if not request.path.startswith("/api/"):
        return defaults.bad_request(request, exception)
    return problem_response(unreadable(exception))


def server_error(request: HttpRequest) -> HttpResponse:
    """Return 503 with a sentence if the database does not answer, for pages, htmx and API; 500 for other errors.

    Django calls it in the handler of the exception, whatever layer raised it: the session is read by middleware.
    """
    is_api = request.path.startswith("/api/")
    if (refusal := lost_database(sys.exc_info()[1])) is None:
        if not is_api:
            return defaults.server_error(request)
        return JsonResponse(server_fault(request_id_of(request)), status=500, content_type=MEDIA_TYPE)
    if is_api:
        return problem_response(refusal)
    # No context of the request: the user would be read from the database.
    template = "_error.html" if request.headers.get("HX-Request") else "503.html"
    context = {"error": refusal, "status": refusal.status}
    response = HttpResponse(render_to_string(template, context), status=refusal.status)
    response["Retry-After"] = str(refusal.retry_after)
    return response
