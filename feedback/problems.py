"""Errors of the API as problem details, the media type application/problem+json.

Source: RFC 9457, "Problem Details for HTTP APIs". `code` is stable and identifies the kind of error; `type` is the
address of its description. `message` repeats `detail` for clients of version 0.1.
"""

import inspect
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpResponse, JsonResponse
from django.utils.translation import gettext as _

from feedback.errors import AccordError, Invalid, TooLarge

MEDIA_TYPE = "application/problem+json"
PAGE = "/api/problems"  # describes all codes
# Codes that are no domain errors: those of REST framework and of the server.
OTHERS = {
    "authentication_failed": "The token is wrong, expired or revoked.",
    "method_not_allowed": "The address has no such method; the header `Allow` lists its methods.",
    "not_authenticated": "The request has neither a token nor a session.",
    "parse_error": "The body is not JSON.",
    "permission_denied": "The request of a session lacks its CSRF token.",
    "server_error": "A fault of the server. Its log has the request id.",
    "unsupported_media_type": "The body has a media type that the address does not read.",
}


def problem(status: int, code: str, detail: str, **extensions: Any) -> dict[str, Any]:
    """Return the JSON of an error."""
    return {
        **extensions,
        "type": f"{PAGE}#{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "code": code,
        "detail": detail,
        "message": detail,
    }


def problem_of(refusal: AccordError) -> dict[str, Any]:
    return problem(refusal.status, refusal.code, refusal.message, **refusal.details)


def headers_of(refusal: AccordError) -> dict[str, str]:
    return {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}


def problem_response(refusal: AccordError) -> HttpResponse:
    """Return the response to a refusal outside REST framework."""
    return JsonResponse(
        problem_of(refusal), status=refusal.status, content_type=MEDIA_TYPE, headers=headers_of(refusal)
    )


def unreadable(error: Exception) -> AccordError:
    """Return the refusal of a request that Django refuses before a view reads it."""
    if isinstance(error, RequestDataTooBig):
        return TooLarge(_("The body is too large for this address: send it in several parts."))
    return Invalid(_("The request cannot be read: %(reason)s") % {"reason": error})


def server_fault(request_id: str) -> dict[str, Any]:
    """Return the problem of an unexpected error."""
    sentence = _("The server failed to answer. Its log has the reason under the request id %(id)s.")
    return problem(500, "server_error", sentence % {"id": request_id})


def descriptions() -> dict[str, str]:
    """Return a line for each code, in the order of the codes."""
    errors: list[type[AccordError]] = [AccordError, *_below(AccordError)]
    of_errors = {
        error.code: _first_line(error) for error in reversed(errors)
    }  # a code is described by its topmost class
    return dict(sorted((of_errors | OTHERS).items()))


def _below(error: type[AccordError]) -> list[type[AccordError]]:
    """Return all subclasses, each class before its own."""
    return [below for child in error.__subclasses__() for below in (child, *_below(child))]


def _first_line(error: type[AccordError]) -> str:
    return (inspect.getdoc(error) or "").split("\n")[0]
