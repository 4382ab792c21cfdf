"""allauth's adapter for second factors, and the check of the admin site."""

from collections.abc import Callable

from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feedback import encryption
from feedback.actions import second_factor

PURPOSE = "second factors"


class SecondFactorAdapter(DefaultMFAAdapter):
    """Our sentences and names; a factor that somebody needs cannot be removed."""

    error_messages = {
        **DefaultMFAAdapter.error_messages,
        "incorrect_code": gettext_lazy("This code is not right, or it is too old: enter the one that is shown now."),
        "cannot_delete_authenticator": gettext_lazy(
            "Managers and administrators need a second factor here: add a passkey before you remove this one."
        ),
        "cannot_generate_recovery_codes": gettext_lazy("Set up an authenticator app or a passkey first."),
    }

    def encrypt(self, text: str) -> str:
        return encryption.encrypt(text, PURPOSE)

    def decrypt(self, encrypted_text: str) -> str:
        secret = encryption.decrypt(encrypted_text, PURPOSE)
        if secret is None:  # an empty one would have codes that anybody can compute
            sentence = _("This server's SECRET_KEY has changed since you set up this factor. Ask an administrator.")
            raise PermissionDenied(sentence)
        return secret

    def can_delete_authenticator(self, authenticator: Authenticator) -> bool:
        user = authenticator.user
        others = Authenticator.objects.filter(user=user, type__in=second_factor.FACTORS).exclude(pk=authenticator.pk)
        return others.exists() or not second_factor.is_needed(user)

    def generate_authenticator_name(self, user: AbstractBaseUser, type: Authenticator.Type) -> str:
        number = Authenticator.objects.filter(user_id=user.pk, type=type).count() + 1
        return _("Passkey %(number)s") % {"number": number}


def checked(has_permission: Callable[[HttpRequest], bool]) -> Callable[[HttpRequest], bool]:
    """Return the admin site's `has_permission` with the check of the second factor."""

    def has_permission_and_factor(request: HttpRequest) -> bool:
        if not has_permission(request):
            return False
        second_factor.check(request.user)
        return True

    return has_permission_and_factor
