"""Archived projects can be read, and written to by nobody.

One place holds for pages and API: `people.membership_of`, through which every view of a project goes, refuses what
would write. A label in progress is kept: who holds a comparison may still hand in what they say of it.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from feedback.errors import Conflict
from feedback.models import Project

READING = ("GET", "HEAD", "OPTIONS")
# Names of addresses that work on: to hand in or give back what one holds, and to cancel a round.
WORKING_ON = {
    *("rank-submit", "rank-skip", "rank-renew", "api-lease", "api-lease-renew", "api-lease-rank", "api-lease-skip"),
    *("round-cancel", "api-round-cancel"),
}
_is_writing: ContextVar[bool] = ContextVar("is_writing", default=False)


class Archived(Conflict):
    """The project is archived. Of its own status, so that pages keep what was typed."""

    status = 423
    code = "archived"


def refuse_writing(project: Project) -> None:
    """Raise Archived where the request in progress would write to an archived project."""
    if project.archived_at is not None and _is_writing.get():
        raise Archived(_("This project is archived: it can be read, and nothing in it can be changed any more."))


class ArchiveMiddleware:
    """Notes whether a request would write."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        token = _is_writing.set(False)
        try:
            return self.get_response(request)
        finally:
            _is_writing.reset(token)

    def process_view(self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any) -> None:
        match = request.resolver_match
        _is_writing.set(request.method not in READING and (match is None or match.url_name not in WORKING_ON))
