"""Template filter: a text for the attribute that the view "as written" reads."""

from django import template
from django.utils.safestring import SafeString, mark_safe

from feedback.rendering import html

register = template.Library()


@register.filter
def written(text: str) -> SafeString:
    return mark_safe(html.written(text))  # escaped there
