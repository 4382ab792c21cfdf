"""Request ids: the header `X-Request-Id` of each response, and the same id in the log's lines about the request."""

import logging
import re
import uuid
from collections.abc import Callable
from contextvars import ContextVar

from django.http import HttpRequest
from django.http.response import HttpResponseBase

HEADER = "X-Request-Id"
WELL_FORMED = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")  # one of a client; no character can forge a line of the log

_current: ContextVar[str] = ContextVar("request_id", default="")


class RequestIdMiddleware:
    """Take the id of a request from its client or its proxy if it is well-formed, otherwise make one."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        sent = request.headers.get(HEADER, "")
        request_id = sent if WELL_FORMED.fullmatch(sent) else str(uuid.uuid4())
        request.META["accord.request_id"] = request_id
        token = _current.set(request_id)
        try:
            response = self.get_response(request)
        finally:
            _current.reset(token)
        response[HEADER] = request_id
        return response


def request_id_of(request: HttpRequest) -> str:
    """Return the id of a request; "" for one that no middleware has seen."""
    return str(request.META.get("accord.request_id", ""))


class AddRequestId(logging.Filter):
    """Filter that adds `request_id`, in brackets, to a line about a request; "" for other lines."""

    def filter(self, record: logging.LogRecord) -> bool:
        # Django logs an error response after the middleware, with the request in the record.
        request = getattr(record, "request", None)
        request_id = request_id_of(request) if isinstance(request, HttpRequest) else _current.get()
        record.request_id = f" [{request_id}]" if request_id else ""
        return True
