"""Decorator of the API's views."""

from collections.abc import Callable, Sequence
from typing import Any

from rest_framework import decorators
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView


def api_view(methods: Sequence[str]) -> Callable[[Callable[..., Any]], Any]:
    """Make a function a view as REST framework's decorator does; a view that answers GET also answers HEAD."""

    def decorate(function: Callable[..., Any]) -> Any:
        view = decorators.api_view(list(methods))(function)
        if "GET" in methods:
            view.cls.http_method_names.append("head")
            view.cls.head = _head
        return view

    return decorate


def _head(view: APIView, request: Request, *args: Any, **kwargs: Any) -> Response:
    """Answer as GET does; `config.responses` drops the body."""
    request.method = "GET"  # a view that branches on the method would take HEAD for a write
    return view.get(request, *args, **kwargs)
