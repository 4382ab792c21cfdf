"""What can be wrong with a request, as classes with a sentence for people and an HTTP status.

Raise them anywhere below a view. Pages turn them into an answer here, the API in `feedback.api.errors`: once each.
"""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.shortcuts import render
from django.utils.translation import gettext as _


class AccordError(Exception):
    """A refusal. `message` is a sentence that says what to do about it."""

    status = 400
    code = "invalid"
    retry_after: int | None = None  # seconds

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class Invalid(AccordError):
    """What was sent cannot be used."""


class TooLarge(Invalid):
    """There is more of it than one request may bring."""

    status = 413
    code = "too_large"


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


class TooMuch(AccordError):
    """More than one person may do in so short a time."""

    status = 429
    code = "too_much"
    retry_after = 600


class Unreadable(AccordError):
    """The body did not arrive: the client stopped sending, or was too slow."""

    status = 408
    code = "timeout"


def refusal_of(error: Exception) -> AccordError | None:
    """The refusal that this exception is, if it is one."""
    if isinstance(error, UnreadablePostError):
        return Unreadable(_("The request's body did not arrive in time: send it again."))
    return error if isinstance(error, AccordError) else None


class AccordErrorMiddleware:
    """Answers a page's AccordError with an error page, or a fragment when htmx asked."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if (refusal := refusal_of(error)) is None:
            return None
        template = "_error.html" if request.headers.get("HX-Request") else "error.html"
        response = render(request, template, {"error": refusal, "status": refusal.status}, status=refusal.status)
        if refusal.retry_after is not None:
            response["Retry-After"] = str(refusal.retry_after)
        return response
