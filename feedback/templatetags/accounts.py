"""Ways to sign in that this installation has."""

from django import template
from django.conf import settings

from feedback.actions import second_factor
from feedback.models import User

register = template.Library()


@register.simple_tag
def has_mail() -> bool:
    """Return whether links for a new password can be mailed."""
    return settings.HAS_MAIL


@register.simple_tag
def lacks_second_factor(user: User) -> bool:
    """Return whether the installation demands a second factor of this person, who has none."""
    return second_factor.is_needed(user) and not second_factor.has_one(user)
