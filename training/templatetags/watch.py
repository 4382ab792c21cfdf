"""Template tag of pages that change (static/accord/live.js)."""

from django import template
from django.db import models

from training.web.watch import address_of

register = template.Library()


@register.simple_tag
def watch(kind: str, watched: models.Model | None = None) -> str:
    """Return the address of the version that the page polls."""
    return address_of(kind, watched)
