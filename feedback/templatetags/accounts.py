"""Ways to sign in that this installation has."""

from django import template
from django.conf import settings
from django.urls import reverse

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


@register.simple_tag
def sign_on_providers() -> list[dict[str, str]]:
    """Return name and address of each provider of single sign-on."""
    return [
        {
            "name": one["name"],
            "address": reverse("github_login")
            if one["kind"] == "github"
            else reverse("openid_connect_login", args=[one["id"]]),
        }
        for one in settings.SINGLE_SIGN_ON
    ]
