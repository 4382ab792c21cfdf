"""Errors as the API answers them: `{"code": ..., "message": ...}` and details."""

from typing import Any

from rest_framework.exceptions import APIException, ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler, set_rollback

from feedback.errors import refusal_of


def api_exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Turn an exception into `{"code": ..., "message": sentence, ...}`; None for an unexpected one."""
    if (refusal := refusal_of(error)) is not None:
        set_rollback()  # with ATOMIC_REQUESTS, as REST framework's handler does for its own exceptions
        return Response({"code": refusal.code, "message": refusal.message, **refusal.details}, status=refusal.status)
    response = exception_handler(error, context)
    if response is None or not isinstance(error, APIException):
        return response
    if isinstance(error, ValidationError):
        response.data = {"code": "invalid", "message": _first_message(error.detail), "fields": error.detail}
    else:
        response.data = {"code": getattr(error.detail, "code", "invalid"), "message": str(error.detail)}
    return response


def _first_message(detail: Any, field: str = "") -> str:
    """Return the first validation message, after the name of its field."""
    if isinstance(detail, dict):
        name, inner = next(iter(detail.items()))
        # An index of a list is less useful in a message than the name of the list.
        return _first_message(inner, field if name == "non_field_errors" or isinstance(name, int) else str(name))
    if isinstance(detail, list):
        return _first_message(detail[0], field)
    return f"{field}: {detail}" if field else str(detail)
