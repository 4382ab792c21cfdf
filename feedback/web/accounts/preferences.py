"""A person's own language and time zone: "today", "since" and all times on pages follow them."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone, translation
from django.views import i18n
from django.views.decorators.http import require_POST


class PreferencesMiddleware:
    """Activate the language and time zone of who is signed in, and the installation's time zone afterwards."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        try:
            if settings.SESSION_COOKIE_NAME in request.COOKIES and request.user.is_authenticated:
                if request.user.language:
                    translation.activate(request.user.language)
                    request.LANGUAGE_CODE = request.user.language
                if request.user.time_zone:
                    timezone.activate(request.user.time_zone)
            return self.get_response(request)
        finally:
            timezone.deactivate()  # the API's authentication by token may also have set it


@require_POST
def set_language(request: HttpRequest) -> HttpResponse:
    """Choose the language of the pages: in this browser, and of the account if somebody is signed in."""
    language = request.POST.get("language", "")
    if request.user.is_authenticated and language in dict(settings.LANGUAGES):
        request.user.language = language
        request.user.save(update_fields=["language"])
    response: HttpResponse = i18n.set_language(request)
    return response
