"""How large a request's body may be, by who sends it: decided before anything of it is read."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from feedback.models import Membership

OF_NOBODY = 1024 * 1024  # bytes: a form that arrives after its session ended is kept, and a guideline is long
OF_A_MEMBER = 2 * 1024 * 1024
UPLOADS = {"prompts"}  # names of addresses where managers upload lines; those of the API read their own bodies


class BodyLimitMiddleware:
    """Refuses what is too large. Comes after the authentication, and before the form is read for its CSRF token.

    A request with a token is left to the API, which checks the token first and reads with a limit of its own.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *_view: object) -> HttpResponse | None:
        length = int(request.META.get("CONTENT_LENGTH") or 0)
        if length <= OF_NOBODY or "HTTP_AUTHORIZATION" in request.META or length <= (most := _most(request)):
            return None
        message = _("The request has %(length)s bytes, and at most %(most)s are accepted here: send less.") % {
            "length": length,
            "most": most,
        }
        return HttpResponse(message, content_type="text/plain; charset=utf-8", status=413)


def _most(request: HttpRequest) -> int:
    """In bytes, of what this person may send to this address."""
    if not request.user.is_authenticated:
        return OF_NOBODY
    match = request.resolver_match
    if match is None or not (match.url_name in UPLOADS or str(match.url_name).startswith("api-")):
        return OF_A_MEMBER
    manages = Membership.objects.filter(
        user=request.user, project__slug=match.kwargs.get("slug"), role=Membership.Role.MANAGER
    )
    return settings.DATA_UPLOAD_MAX_MEMORY_SIZE if manages.exists() else OF_A_MEMBER
