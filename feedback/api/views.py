"""Decorator of the API's views."""

from collections.abc import Callable, Sequence
from typing import Any

from rest_framework import decorators
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from feedback.api.conditional import if_unchanged, with_etag
from feedback.api.idempotency import idempotent


def api_view(methods: Sequence[str], *, commits: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Make a function a view as REST framework's decorator does, with what all addresses of the API have.

    A view that answers GET also answers HEAD, and has an `ETag`; its changes take `If-Match`. A POST takes an
    `Idempotency-Key`. commits: what a POST calls commits by itself, so it cannot run within another transaction.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        if "POST" in methods:
            function = idempotent(function, commits=commits)
        view = decorators.api_view(list(methods))(if_unchanged(function))
        if "GET" in methods:
            view.cls.http_method_names.append("head")
            view.cls.head = _head
            view.cls.finalize_response = _finalize
        return view

    return decorate


def _head(view: APIView, request: Request, *args: Any, **kwargs: Any) -> Response:
    """Answer as GET does; `config.responses` drops the body."""
    request.method = "GET"  # a view that branches on the method would take HEAD for a write
    return view.get(request, *args, **kwargs)


def _finalize(view: APIView, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
    return with_etag(request, APIView.finalize_response(view, request, response, *args, **kwargs))
