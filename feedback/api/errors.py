"""Errors as the API answers them: problem details with a stable `code`, see `feedback.problems`."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler, set_rollback

from feedback.api.throttles import Throttled, count_refused
from feedback.errors import refusal_of
from feedback.problems import MEDIA_TYPE, headers_of, problem, problem_of


def api_exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Turn an exception into a problem; None for an unexpected one, which `config.responses` answers."""
    if (refusal := refusal_of(error)) is not None:
        set_rollback()  # with ATOMIC_REQUESTS, as REST framework's handler does for its own exceptions
        return Response(problem_of(refusal), refusal.status, headers=headers_of(refusal), content_type=MEDIA_TYPE)
    if isinstance(error, exceptions.AuthenticationFailed | exceptions.NotAuthenticated):
        try:
            count_refused(context["request"])
        except Throttled as throttled:
            return api_exception_handler(throttled, context)
    error = _of_rest_framework(error)
    response = exception_handler(error, context)
    if response is None or not isinstance(error, exceptions.APIException):
        return response
    response.content_type = MEDIA_TYPE
    if isinstance(error, exceptions.ValidationError):
        message = _first_message(error.detail)
        response.data = problem(response.status_code, "invalid", message, fields=error.detail)
    else:
        code = getattr(error.detail, "code", "invalid")
        response.data = problem(response.status_code, code, str(error.detail))
    return response


def _of_rest_framework(error: Exception) -> Exception:
    """Return REST framework's exception for one of Django, as its handler does."""
    if isinstance(error, Http404):
        return exceptions.NotFound()
    return exceptions.PermissionDenied() if isinstance(error, PermissionDenied) else error


def _first_message(detail: Any, field: str = "") -> str:
    """Return the first validation message, after the name of its field."""
    if isinstance(detail, dict):
        name, inner = next(iter(detail.items()))
        # An index of a list is less useful in a message than the name of the list.
        return _first_message(inner, field if name == "non_field_errors" or isinstance(name, int) else str(name))
    if isinstance(detail, list):
        return _first_message(detail[0], field)
    return f"{field}: {detail}" if field else str(detail)
