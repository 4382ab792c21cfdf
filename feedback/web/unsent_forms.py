"""Keep the fields of a form that was sent after the session ended, or with an outdated CSRF token.

The response to such a POST carries the form's fields: first a sign-in form if needed, then a page that shows the text
and sends it again to the same URL. Nothing is stored on the server, except in the session of a person who has yet to
enter a second factor.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Self, cast
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.csrf import csrf_failure as plain_csrf_failure
from django.views.decorators.http import require_safe

from feedback.models import User
from feedback.web.accounts.sign_in import SignInForm, sign_in

PREFIX = "unsent."  # of the unsent form's fields within the sign-in form
ACTION, PAGE = "unsent-action", "unsent-page"
IN_SESSION = "unsent"
MIN_TEXT_LENGTH = 60  # characters; longer values are shown in a text box


@dataclass(frozen=True)
class UnsentForm:
    """A refused POST: its URL, the page of its form, and its fields."""

    action: str
    page: str
    fields: list[tuple[str, str]]

    @classmethod
    def from_request(cls, request: HttpRequest) -> Self:
        fields = [
            (name, str(value))
            for name, values in request.POST.lists()
            for value in values
            if name != "csrfmiddlewaretoken"
        ]
        return cls(request.get_full_path(), page_of(request), fields)

    @classmethod
    def from_sign_in(cls, request: HttpRequest, data: QueryDict) -> Self | None:
        """Return the unsent form among a sign-in form's fields, or None."""
        action, page = data.get(ACTION, ""), data.get(PAGE, "/")
        if not (is_local(request, action) and is_local(request, page)):
            return None
        names = [name for name in data if name.startswith(PREFIX)]
        fields = [(name.removeprefix(PREFIX), value) for name in names for value in data.getlist(name)]
        return cls(action, page, fields)

    @property
    def texts(self) -> list[str]:
        """The long values among the fields."""
        return [value for _name, value in self.fields if len(value) > MIN_TEXT_LENGTH or "\n" in value]

    @property
    def hidden_fields(self) -> list[tuple[str, str]]:
        """Hidden fields that carry this form through the sign-in form."""
        return [(ACTION, self.action), (PAGE, self.page), *((PREFIX + name, value) for name, value in self.fields)]


def is_local(request: HttpRequest, address: str) -> bool:
    return address.startswith("/") and url_has_allowed_host_and_scheme(address, {request.get_host()})


def page_of(request: HttpRequest) -> str:
    """Return the path of the form's page: the Referer if it is of this site, otherwise the list of projects."""
    referer = request.headers.get("Referer", "")
    if not url_has_allowed_host_and_scheme(referer, {request.get_host()}):
        return reverse("home")
    parts = urlsplit(referer)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def is_submitted_by_browser(request: HttpRequest) -> bool:
    """Return whether a person submitted a form; our scripts handle lost sessions themselves."""
    mode = request.headers.get("Sec-Fetch-Mode", "navigate")
    return request.method == "POST" and mode == "navigate" and "HX-Request" not in request.headers


def can_be_kept(request: HttpRequest) -> bool:
    """Return whether the form can be sent again: files cannot, and passwords must not be written into a page."""
    return not request.FILES and not any("password" in name for name in request.POST)


class UnsentFormsMiddleware:
    """Keep a browser's POST that would be redirected to the sign-in page; give 405 responses a page."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if is_submitted_by_browser(request) and _asks_to_sign_in(response):
            return ask_to_sign_in(request)
        if response.status_code == 405 and not request.path.startswith("/api/"):
            page = render(request, "405.html", status=405)
            page.headers["Allow"] = response.headers["Allow"]
            return page
        return response


def _asks_to_sign_in(response: HttpResponse) -> bool:
    return response.status_code == 302 and response.headers["Location"].startswith(f"{reverse('sign-in')}?next=")


def ask_to_sign_in(request: HttpRequest) -> HttpResponse:
    """Show the sign-in form, with the unsent form in it if that can be kept."""
    unsent = UnsentForm.from_request(request) if can_be_kept(request) else None
    context = {"form": AuthenticationForm(request), "unsent": unsent, "next": page_of(request)}
    return render(request, "sign_in.html", {**context, "is_file_lost": bool(request.FILES)}, status=401)


def offer_to_send(request: HttpRequest, unsent: UnsentForm) -> HttpResponse:
    """Show an unsent form with the button that sends it; the user is signed in."""
    return render(request, "unsent.html", {"unsent": unsent})


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Keep a form of this site whose CSRF token is outdated because the user has signed in again.

    A form of another site (by its Origin header) gets Django's refusal.
    """
    if not (is_submitted_by_browser(request) and _is_from_this_site(request)):
        return plain_csrf_failure(request, reason)
    is_sign_in = request.path == reverse(settings.LOGIN_URL)
    unsent = UnsentForm.from_sign_in(request, request.POST) if is_sign_in else UnsentForm.from_request(request)
    if request.user.is_authenticated:
        if unsent is None or not (is_sign_in or can_be_kept(request)):
            return redirect(page_of(request))
        return offer_to_send(request, unsent)
    if not is_sign_in:
        return ask_to_sign_in(request)
    form = AuthenticationForm(request)
    context = {"form": form, "unsent": unsent, "next": request.POST.get("next", ""), "is_outdated": True}
    return render(request, "sign_in.html", context, status=403)


def _is_from_this_site(request: HttpRequest) -> bool:
    origin = request.headers.get("Origin", "")
    return origin == f"{request.scheme}://{request.get_host()}" or origin in settings.CSRF_TRUSTED_ORIGINS


class SignIn(LoginView):
    """Django's sign-in view with allauth's sign-in, which then offers an unsent form again."""

    form_class = SignInForm
    template_name = "sign_in.html"
    redirect_authenticated_user = True

    @property
    def unsent(self) -> UnsentForm | None:
        return UnsentForm.from_sign_in(self.request, self.request.POST)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(unsent=self.unsent, **kwargs)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.user.is_authenticated and (unsent := self.unsent) is not None:
            return offer_to_send(request, unsent)
        return super().dispatch(request, *args, **kwargs)

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        unsent, user = self.unsent, cast(User, form.get_user())
        if unsent is None:
            return sign_in(self.request, user, "password", self.get_success_url())
        response = sign_in(self.request, user, "password", reverse("send-unsent"))
        if not self.request.user.is_authenticated:  # a second factor comes first
            self.request.session[IN_SESSION] = asdict(unsent)
            return response
        page = offer_to_send(self.request, unsent)
        page.cookies.update(response.cookies)
        return page


@login_required
@require_safe
def send_unsent(request: HttpRequest) -> HttpResponse:
    """Offer the form that was kept while the second factor was asked for."""
    kept = request.session.pop(IN_SESSION, None)
    if kept is None:
        return redirect("home")
    return offer_to_send(request, UnsentForm(kept["action"], kept["page"], [tuple(field) for field in kept["fields"]]))
