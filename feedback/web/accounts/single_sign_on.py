"""allauth's adapter for accounts of other providers: who gets an account, and with which roles."""

from typing import Any

from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialLogin
from django.conf import settings
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from feedback import audit
from feedback.actions import claimed_roles


class SingleSignOnAdapter(DefaultSocialAccountAdapter):
    """Accounts are found by the provider's identifier of the person alone, never by a mail address."""

    error_messages = {
        **DefaultSocialAccountAdapter.error_messages,
        "no_password": gettext_lazy("Your account has no password: you could not sign in any more."),
        "disconnect_last": gettext_lazy("This is the only way in which you can sign in."),
    }

    def is_open_for_signup(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        return bool(provider_of(sociallogin)["create_accounts"])

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        sociallogin.email_addresses = []  # they would be compared with those of other accounts
        if sociallogin.is_existing:
            apply_roles(sociallogin)

    def save_user(self, request: HttpRequest, sociallogin: SocialLogin, form: Any = None) -> Any:
        user = super().save_user(request, sociallogin, form)
        account = sociallogin.account
        audit.record("account.create", None, user, after={"provider": account.provider, "uid": account.uid}, actor=user)
        apply_roles(sociallogin)
        return user

    def populate_user(self, request: HttpRequest, sociallogin: SocialLogin, data: dict[str, Any]) -> Any:
        user = super().populate_user(request, sociallogin, data)
        user.email = ""  # nobody has checked it here; the person may enter it
        return user


def provider_of(sociallogin: SocialLogin) -> dict[str, Any]:
    """Return the provider's settings."""
    name = sociallogin.account.provider
    return next(one for one in settings.SINGLE_SIGN_ON if name == one["id"] or name == one["kind"] == "github")


def apply_roles(sociallogin: SocialLogin) -> None:
    claimed_roles.apply(sociallogin.user, provider_of(sociallogin), sociallogin.account.extra_data)
