"""Domain errors with a message for people and an HTTP status.

Any code below a view may raise them. The middleware here turns them into pages, `feedback.api.errors` into JSON.
"""

from collections.abc import Callable
from typing import Any

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

# Errors of PostgreSQL: shutdown, crash, start-up, dropped database, idle session ended; too many connections.
UNAVAILABLE = ("57P01", "57P02", "57P03", "57P04", "57P05", "53300")


class AccordError(Exception):
    """A refusal. `message` says what is wrong and what to do."""

    status = 400
    code = "invalid"
    retry_after: int | None = None  # seconds
    page: str | None = None  # name of the URL that says it and lets the person do something about it

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class Invalid(AccordError):
    """A request whose content cannot be used."""


class TooLarge(Invalid):
    """More data than one request may have."""

    status = 413
    code = "too_large"


class Forbidden(AccordError):
    """The user's role does not allow it."""

    status = 403
    code = "forbidden"


class NotFound(AccordError):
    """Something that does not exist, or whose existence is hidden from the user."""

    status = 404
    code = "not_found"


class Conflict(AccordError):
    """A request that the current state does not allow any more."""

    status = 409
    code = "conflict"


class TooManyRequests(AccordError):
    """Too many requests of one user in a short time."""

    status = 429
    code = "too_much"
    retry_after = 600


class NotComputedYet(Conflict):
    """Figures that a worker computes and has not computed yet."""

    code = "not_computed_yet"


class Unavailable(AccordError):
    """The database does not answer: it restarts, or the network to it is down."""

    status = 503
    code = "unavailable"
    retry_after = 5


class BodyTimeout(AccordError):
    """A body that did not arrive: the client stopped sending, or was too slow."""

    status = 408
    code = "timeout"


def refusal_of(error: Exception) -> AccordError | None:
    """Return the refusal for an exception; None if it is not one."""
    if isinstance(error, UnreadablePostError):
        return BodyTimeout(_("The request's body did not arrive in time: send it again."))
    return error if isinstance(error, AccordError) else None


def lost_database(error: BaseException | None) -> Unavailable | None:
    """Return the refusal if the connection to the database was lost or refused; None for errors of statements."""
    if not isinstance(error, OperationalError | InterfaceError):
        return None
    state = getattr(error.__cause__, "sqlstate", None)  # None: the client noticed it, without an answer
    if state is None or state.startswith("08") or state in UNAVAILABLE:
        return Unavailable(_("The database does not answer at the moment: try again in a few seconds."))
    return None


class AccordErrorMiddleware:
    """Answer an AccordError of a page with an error page, or with a fragment if htmx asked."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if (refusal := refusal_of(error)) is None:
            return None
        if refusal.page is not None and not request.headers.get("HX-Request"):
            return redirect(refusal.page)
        template = "_error.html" if request.headers.get("HX-Request") else "error.html"
        response = render(request, template, {"error": refusal, "status": refusal.status}, status=refusal.status)
        if refusal.retry_after is not None:
            response["Retry-After"] = str(refusal.retry_after)
        return response
