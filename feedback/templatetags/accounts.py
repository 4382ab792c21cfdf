"""Ways to sign in that this installation has."""

from django import template
from django.conf import settings

register = template.Library()


@register.simple_tag
def has_mail() -> bool:
    """Return whether links for a new password can be mailed."""
    return settings.HAS_MAIL
