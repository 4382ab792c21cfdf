"""Template tag for the parts that the lists of data, in Jinja2, share with the pages of single rows."""

from typing import Any

from django import template
from django.template import engines
from django.utils.safestring import SafeString, mark_safe

from feedback.rendering.jinja import translator

register = template.Library()


@register.simple_tag
def data_part(name: str, *arguments: Any) -> SafeString:
    """Return what the macro `name` of `data/_parts.jinja.html` renders."""
    parts = engines["jinja2"].get_template("data/_parts.jinja.html").template
    return mark_safe(getattr(parts.make_module({"_": translator()}), name)(*arguments))  # escaped there
