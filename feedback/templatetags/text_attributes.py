"""Template filter for texts in HTML attributes."""

from django import template
from django.utils.safestring import SafeString, mark_safe

from feedback.rendering import html

register = template.Library()


@register.filter
def attribute_value(text: str) -> SafeString:
    return mark_safe(html.attribute_value(text))  # escaped there
