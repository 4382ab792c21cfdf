"""allauth's adapter for this site: throttled sign-in, no open registration, our sentences."""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core import context
from allauth.core.internal import ratelimit
from allauth.core.internal.httpkit import clean_client_ip
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.base_user import AbstractBaseUser
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feedback.errors import TooManyRequests
from feedback.web.accounts import known_browsers
from feedback.web.passwords import Busy

LOOPBACK = ("127.0.0.1", "::1", "")  # "": a Unix socket
SENTENCES = {
    "account/messages/password_changed.txt": gettext_lazy("The new password is set."),
    "mfa/messages/totp_activated.txt": gettext_lazy("The authenticator app is set up."),
    "mfa/messages/totp_deactivated.txt": gettext_lazy("The authenticator app is removed."),
    "mfa/messages/webauthn_added.txt": gettext_lazy("The passkey is added."),
    "mfa/messages/webauthn_removed.txt": gettext_lazy("The passkey is removed."),
    "mfa/messages/recovery_codes_generated.txt": gettext_lazy("There are new recovery codes: the old ones are void."),
    "socialaccount/messages/account_connected.txt": gettext_lazy("The account is connected: sign in with it."),
    "socialaccount/messages/account_disconnected.txt": gettext_lazy("The account is disconnected."),
}


class TooManyAttempts(TooManyRequests):
    """Too many wrong passwords for one account, or from one address."""

    code = "too_many_attempts"
    retry_after = 60


class AccountAdapter(DefaultAccountAdapter):
    """Sign-in by username and password; accounts come from invitations, administrators and single sign-on."""

    error_messages = {
        **DefaultAccountAdapter.error_messages,
        "incorrect_password": gettext_lazy("This password is not right."),
        "incorrect_code": gettext_lazy("This code is not right, or it is too old: enter the one that is shown now."),
        "rate_limited": gettext_lazy("Too many wrong codes: wait a minute."),
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        """Count the attempt; `authenticate` takes it back if the password was right. Raises TooManyAttempts.

        The sentence, and the number of attempts, are the same for names that nobody has.
        """
        name = str(credentials.get("username", "")).strip().casefold()
        known = known_browsers.key_of(request, name)
        action = "login_failed_in_known_browser" if known else "login_failed"
        self._login_failed_rl_usage = ratelimit.consume(
            request, app="allauth.account", action=action, key=f"{name}:{known}" if known else name
        )
        if not self._login_failed_rl_usage:
            raise TooManyAttempts(_("Too many wrong passwords: wait a minute, then try again."))

    def authenticate(self, request: HttpRequest, **credentials: Any) -> AbstractBaseUser | None:
        try:
            return super().authenticate(request, **credentials)
        except Busy:  # nothing was checked
            self._rollback_login_failed_rl_usage()
            raise

    def post_login(self, request: HttpRequest, user: Any, **details: Any) -> HttpResponseBase:
        response = super().post_login(request, user, **details)
        known_browsers.remember(request, response, user.get_username())
        return response

    def add_message(
        self,
        request: HttpRequest,
        level: int,
        message_template: str | None = None,
        message_context: dict[str, Any] | None = None,
        extra_tags: str = "",
        message: str | None = None,
    ) -> None:
        """Show our sentence for allauth's template, if there is one."""
        sentence = message or SENTENCES.get(message_template or "")
        if sentence:
            messages.add_message(request, level, str(sentence), extra_tags=extra_tags)

    def is_reauthentication_required(self, *, app: str, **details: Any) -> bool:
        """Return whether to ask who it is once more; not if there is nothing to ask, with single sign-on alone."""
        return bool(self.get_reauthentication_methods(context.request.user)) and super().is_reauthentication_required(
            app=app, **details
        )

    def get_password_change_redirect_url(self, request: HttpRequest) -> str:
        return reverse("account")

    def get_client_ip(self, request: HttpRequest) -> str:
        return client_address(request)


def client_address(request: HttpRequest) -> str:
    """Return the address of the browser: of the peer, or what the trusted proxies say of it.

    A proxy on this machine is trusted; ACCORD_PROXIES is their number if they are elsewhere, or several.
    """
    peer = request.META.get("REMOTE_ADDR", "")
    proxies = settings.TRUSTED_PROXIES or (1 if peer in LOOPBACK else 0)
    forwarded = [address.strip() for address in request.headers.get("X-Forwarded-For", "").split(",")]
    if proxies and forwarded[-proxies:][0]:
        return clean_client_ip(forwarded[-proxies:][0]) or peer or LOOPBACK[0]
    return peer or LOOPBACK[0]
