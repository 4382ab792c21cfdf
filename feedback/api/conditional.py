"""Conditional requests: `ETag` with 304 on GET, and `If-Match` with 412 on PUT, PATCH and DELETE.

Source: RFC 9110, section 13. An ETag is the digest of the JSON that GET answers.
"""

import hashlib
from collections.abc import Callable
from copy import copy
from functools import wraps
from typing import Any

from django.db import transaction
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from django.utils.http import parse_etags
from django.utils.translation import gettext as _
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.errors import AccordError
from feedback.models import Project

View = Callable[..., Any]


class PreconditionFailed(AccordError):
    """A change of something that has changed since the client read it."""

    status = 412
    code = "precondition_failed"


def with_etag(request: Request, response: Any) -> Any:
    """Give the JSON of a GET its ETag; the response becomes 304 where the client has the same one."""
    if request._request.method in ("GET", "HEAD") and isinstance(response, Response) and response.status_code == 200:
        response.add_post_render_callback(lambda rendered: _conditional(request, rendered))
    return response


def if_unchanged(view: View) -> View:
    """Make a view refuse a PUT, PATCH or DELETE whose `If-Match` names another ETag than GET would answer now.

    The project stays locked from the comparison to the end of the change, which takes the same lock.
    """

    @wraps(view)
    def compare_and_execute(request: Request, *args: Any, **kwargs: Any) -> Any:
        if request.method not in ("PUT", "PATCH", "DELETE") or "If-Match" not in request.headers:
            return view(request, *args, **kwargs)
        with transaction.atomic():
            if "slug" in kwargs:
                Project.objects.select_for_update().filter(slug=kwargs["slug"]).first()
            if not _matches(request.headers["If-Match"], _current_etag(view, request, args, kwargs)):
                raise PreconditionFailed(
                    _("This has changed since you read it: read it again, and send your change with its new ETag.")
                )
            return view(request, *args, **kwargs)

    return compare_and_execute


def _conditional(request: Request, response: HttpResponseBase) -> HttpResponseBase | None:
    response["ETag"] = etag = _etag_of(response.content)
    return get_conditional_response(request._request, etag=etag, response=response)


def _current_etag(view: View, request: Request, args: Any, kwargs: Any) -> str:
    """Return the ETag that GET of this address answers."""
    reading = copy(request)
    reading.method = "GET"
    return _etag_of(JSONRenderer().render(view(reading, *args, **kwargs).data))


def _etag_of(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def _matches(header: str, etag: str) -> bool:
    """Return whether the header has the ETag, or "*". Proxies that compress make it a weak one."""
    return any(tag in ("*", etag) for tag in (tag.removeprefix("W/") for tag in parse_etags(header)))
