"""Refusals as the API answers them."""

from typing import Any

from rest_framework.exceptions import APIException, ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler, set_rollback

from feedback.errors import refusal_of


def api_exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """An API error is always `{"code": …, "message": sentence, …}`."""
    if (refusal := refusal_of(error)) is not None:
        set_rollback()  # where requests are transactions, as the handler of DRF's own errors does
        return Response({"code": refusal.code, "message": refusal.message, **refusal.details}, status=refusal.status)
    response = exception_handler(error, context)
    if response is None or not isinstance(error, APIException):
        return response
    if isinstance(error, ValidationError):
        response.data = {"code": "invalid", "message": _sentence_of(error.detail), "fields": error.detail}
    else:
        response.data = {"code": getattr(error.detail, "code", "invalid"), "message": str(error.detail)}
    return response


def _sentence_of(detail: Any, field: str = "") -> str:
    """The first complaint about a body, with the name of what it is about."""
    if isinstance(detail, dict):
        name, inner = next(iter(detail.items()))
        # An item of a list is named by its place, which says less than the list's own name.
        return _sentence_of(inner, field if name == "non_field_errors" or isinstance(name, int) else str(name))
    if isinstance(detail, list):
        return _sentence_of(detail[0], field)
    return f"{field}: {detail}" if field else str(detail)
