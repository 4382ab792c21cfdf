"""Second factors: who needs one, and who has one. allauth stores them (authenticator apps and passkeys)."""

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.utils.translation import gettext as _

from feedback.errors import Forbidden
from feedback.models import Membership, User

FACTORS = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)  # recovery codes alone are none


class SecondFactorNeeded(Forbidden):
    """A manager or administrator has to set up a second factor first."""

    code = "second_factor_needed"
    page = "mfa_index"


def has_one(user: User) -> bool:
    return Authenticator.objects.filter(user=user, type__in=FACTORS).exists()


def is_needed(user: User) -> bool:
    """Return whether the installation demands a second factor of this person: of managers and administrators."""
    if settings.SECOND_FACTOR != "MANAGERS":
        return False
    return user.is_staff or user.memberships.filter(role=Membership.Role.MANAGER).exists()


def check(user: User) -> None:
    """Raise SecondFactorNeeded for an administrative act of a person who needs a second factor and has none."""
    if settings.SECOND_FACTOR == "MANAGERS" and not has_one(user):
        raise SecondFactorNeeded(
            _("Managers and administrators need a second factor here: set up an authenticator app or a passkey first.")
        )
