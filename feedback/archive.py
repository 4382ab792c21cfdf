"""Archived projects are read-only, on pages and in the API.

Every view of a project calls `members.membership_of`, which raises Archived for a request that would write. A ranking
in progress is not lost: an annotator who holds a comparison may still submit it.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from feedback.errors import Conflict
from feedback.models import Project

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# URL names that still write: submit or release a lease, and cancel a round.
WRITABLE_URLS = {
    *("rank-submit", "rank-skip", "rank-renew", "api-lease", "api-lease-renew", "api-lease-rank", "api-lease-skip"),
    *("round-cancel", "api-round-cancel"),
}
_is_writing: ContextVar[bool] = ContextVar("is_writing", default=False)


class Archived(Conflict):
    """A write to an archived project. Because of its own status the page keeps the text that was typed."""

    status = 423
    code = "archived"


def refuse_writing(project: Project) -> None:
    """Raise Archived if the project is archived and the current request would write."""
    if project.archived_at is not None and _is_writing.get():
        raise Archived(_("This project is archived: it can be read, and nothing in it can be changed any more."))


class ArchiveMiddleware:
    """Record whether the current request would write."""

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
        _is_writing.set(request.method not in SAFE_METHODS and (match is None or match.url_name not in WRITABLE_URLS))
