"""The end of every way to sign in: allauth asks for a second factor if the person has one, then starts the session."""

from typing import Any, cast

from allauth.account.adapter import get_adapter
from allauth.account.internal.flows.login import perform_login, record_authentication
from allauth.account.models import Login
from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import INTERNAL_RESET_SESSION_TOKEN, PasswordResetConfirmView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from feedback.models import User
from feedback.web.accounts.adapter import TooManyAttempts


class SignInForm(AuthenticationForm):
    """Django's form, whose passwords are checked by allauth's adapter, which counts wrong ones."""

    def clean(self) -> dict[str, Any]:
        username, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if username is not None and password:
            user = get_adapter(self.request).authenticate(self.request, username=username, password=password)
            if user is None:
                raise self.get_invalid_login_error()
            self.user_cache = cast(User, user)
        return self.cleaned_data


def sign_in(request: HttpRequest, user: User, method: str, redirect_url: str | None = None) -> HttpResponse:
    """Sign a person in who has just proved who they are by `method`, and return the next page."""
    record_authentication(request, user, method=method)
    return perform_login(request, Login(user=user, redirect_url=redirect_url))


class NewPassword(PasswordResetConfirmView):
    """The page of a manager's link for a new password. A second factor is still asked for."""

    template_name = "account/new_password.html"

    def form_valid(self, form: forms.Form) -> HttpResponse:
        user = form.save()
        del self.request.session[INTERNAL_RESET_SESSION_TOKEN]
        return sign_in(self.request, user, "password_reset", "/")


def too_many_requests(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Answer with 429 where allauth's own limits are reached."""
    error = TooManyAttempts(_("Too many attempts: wait a minute, then try again."))
    response = render(request, "error.html", {"error": error, "status": error.status}, status=error.status)
    response["Retry-After"] = str(error.retry_after)
    return response
