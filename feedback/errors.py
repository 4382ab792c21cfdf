"""What can be wrong with a request, as classes with a sentence for people and an HTTP status.

Raise them anywhere below a view. Pages and the API turn them into an answer here, once.
"""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from rest_framework.response import Response
from rest_framework.views import exception_handler, set_rollback


class AccordError(Exception):
    """A refusal. `message` is a sentence that says what to do about it."""

    status = 400
    code = "invalid"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class Invalid(AccordError):
    """What was sent cannot be used."""


class Forbidden(AccordError):
    """This person's role does not allow it."""

    status = 403
    code = "forbidden"


class NotFound(AccordError):
    """It is not there, or this person may not know of it."""

    status = 404
    code = "not_found"


class Conflict(AccordError):
    """It was right once, but something else came first."""

    status = 409
    code = "conflict"


class AccordErrorMiddleware:
    """Answers a page's AccordError with an error page, or a fragment when htmx asked."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, AccordError):
            return None
        template = "_error.html" if request.headers.get("HX-Request") else "error.html"
        return render(request, template, {"error": error, "status": error.status}, status=error.status)


def api_exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """An API error is always `{"code": …, "message": sentence, …}`."""
    if isinstance(error, AccordError):
        set_rollback()  # where requests are transactions, as the handler of DRF's own errors does
        return Response({"code": error.code, "message": error.message, **error.details}, status=error.status)
    response = exception_handler(error, context)
    if response is not None and isinstance(response.data, dict) and "detail" in response.data:
        detail = response.data["detail"]
        response.data = {"code": getattr(detail, "code", "invalid"), "message": str(detail)}
    return response
