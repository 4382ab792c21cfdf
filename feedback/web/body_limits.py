"""Limits on the size of a request's body by sender, checked before the body is read."""

from collections.abc import Callable

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from feedback.actions import tokens
from feedback.errors import TooLarge
from feedback.models import Membership, User
from feedback.problems import problem_response
from feedback.web.sessions import SessionStore

MAX_MEMBER_BODY_SIZE = 2 * 1024 * 1024  # bytes
# URL names of the pages where managers upload files; API views read their own bodies
UPLOAD_VIEWS = {"prompts", "guards", "imports"}
FILE_VIEWS = {"imports", "api-imports"}  # their files go to the disk piece by piece


class BodyLimitMiddleware:
    """Refuse a body that is too large, before the CSRF check reads the form.

    A request with an unknown API token passes: the API refuses it without reading the body.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *_view: object) -> HttpResponse | None:
        length = int(request.META.get("CONTENT_LENGTH") or 0)
        if length <= settings.MAX_ANONYMOUS_BODY_SIZE:
            return None
        match = request.resolver_match
        name = (match and match.url_name) or ""
        is_api = name.startswith("api-")
        sender = find_sender(request)
        if sender is None and is_api and _token_of(request):
            return None
        if sender is not None:
            request.META["accord.known"] = True  # see config.runtime.unread
        most = settings.MAX_ANONYMOUS_BODY_SIZE if sender is None else MAX_MEMBER_BODY_SIZE
        may_upload = (
            sender and (is_api or name in UPLOAD_VIEWS) and _manages(sender, match and match.kwargs.get("slug"))
        )
        if may_upload:
            most = settings.MAX_IMPORT_FILE_SIZE if name in FILE_VIEWS else settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if length <= most:
            return None
        message = _("The request has %(length)s bytes, and at most %(most)s are accepted here: send less.")
        if may_upload:
            message = _("The upload has more than %(most)s MiB: send the rows in several parts.")
            most //= 2**20
        error = TooLarge(message % {"length": length, "most": most})
        if is_api:
            return problem_response(error)
        return HttpResponse(error.message, content_type="text/plain; charset=utf-8", status=error.status)


def find_sender(request: HttpRequest) -> User | None:
    """Return the user of the API token or session, or None. Works before any other middleware has run."""
    if key := _token_of(request):
        token = tokens.find_token(key)
        return None if token is None else token.user
    if not hasattr(request, "session"):
        request.session = SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    user = get_user(request)
    return None if isinstance(user, AnonymousUser) else user


def _token_of(request: HttpRequest) -> str:
    scheme, _, key = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    return key.strip() if scheme.lower() in ("bearer", "token") else ""


def _manages(user: User, slug: str | None) -> bool:
    return Membership.objects.filter(user=user, project__slug=slug, role=Membership.Role.MANAGER).exists()
