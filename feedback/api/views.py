"""What every view of the API does: an address that answers GET answers HEAD too."""

from collections.abc import Callable, Sequence
from typing import Any

from rest_framework import decorators
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView


def api_view(methods: Sequence[str]) -> Callable[[Callable[..., Any]], Any]:
    """As Django REST framework's decorator, with HEAD wherever there is GET."""

    def decorate(function: Callable[..., Any]) -> Any:
        view = decorators.api_view(list(methods))(function)
        if "GET" in methods:
            view.cls.http_method_names.append("head")
            view.cls.head = _head
        return view

    return decorate


def _head(view: APIView, request: Request, *args: Any, **kwargs: Any) -> Response:
    """Answer as to GET; `config.responses` drops the body."""
    request.method = "GET"  # views ask for it, and take everything else for a write
    return view.get(request, *args, **kwargs)
