"""Forms of the account pages. Those of allauth get our labels and no placeholders."""

from functools import cache
from typing import Any
from zoneinfo import available_timezones

from allauth.account import forms as account
from allauth.mfa.base import forms as mfa
from allauth.mfa.totp import forms as totp
from allauth.mfa.webauthn import forms as webauthn
from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from feedback.models import User

LABELS = {
    "email": _("Mail address"),
    "password": _("Password"),
    "password1": _("New password"),
    "password2": _("New password, once more"),
    "code": _("Verification code"),
    "name": _("Name"),
    "passwordless": _("Sign in with this key alone"),
}
HELP = {
    "password1": _("At least 8 characters, not only digits, and no common password."),
    "passwordless": _("No password is asked then. The device must check your finger, face or PIN."),
}


class OurWords:
    """Replace labels and help, and remove placeholders."""

    fields: dict[str, forms.Field]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        for name, field in self.fields.items():
            field.label = LABELS.get(name, field.label)
            field.help_text = HELP.get(name, "")
            field.widget.attrs.pop("placeholder", None)


class ResetPasswordForm(OurWords, account.ResetPasswordForm):
    """Mails no password to people who sign in with another provider alone: it would go around that provider."""

    users: list[User]

    def clean_email(self) -> str:
        email = super().clean_email()
        self.users = [user for user in self.users if user.has_usable_password()]
        return email


class ResetPasswordKeyForm(OurWords, account.ResetPasswordKeyForm):
    pass


class ReauthenticateForm(OurWords, account.ReauthenticateForm):
    pass


class AuthenticateForm(OurWords, mfa.AuthenticateForm):
    pass


class ReauthenticateByCodeForm(OurWords, mfa.ReauthenticateForm):
    pass


class ActivateTOTPForm(OurWords, totp.ActivateTOTPForm):
    pass


class AddWebAuthnForm(OurWords, webauthn.AddWebAuthnForm):
    pass


@cache
def time_zones() -> list[tuple[str, str]]:
    """Return the zones with a place in their name, such as Europe/Berlin."""
    names = sorted(
        zone
        for zone in available_timezones()
        if "/" in zone and not zone.startswith(("Etc/", "posix/", "right/", "SystemV/", "US/"))
    )
    return [(name, name.replace("_", " ")) for name in names]


class ProfileForm(forms.ModelForm):
    """The part of an account that its person may change."""

    email = forms.EmailField(
        label=_("Mail address"), required=False, help_text=_("Optional. Links for a new password go there.")
    )
    language = forms.ChoiceField(label=_("Language"), required=False)
    time_zone = forms.ChoiceField(
        label=_("Time zone"), required=False, help_text=_('"Today" begins at midnight of this zone.')
    )

    class Meta:
        model = User
        fields = ("email", "language", "time_zone")

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.fields["language"].choices = [("", _("As the browser")), *settings.LANGUAGES]
        self.fields["time_zone"].choices = [("", settings.TIME_ZONE), *time_zones()]
