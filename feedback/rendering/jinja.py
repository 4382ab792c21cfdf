"""Jinja2 environment: the functions that templates may call beside those of Django's backend."""

from collections.abc import Callable
from datetime import datetime
from functools import cache, lru_cache
from typing import Any

from django.contrib.humanize.templatetags.humanize import intcomma, naturaltime
from django.template.defaultfilters import floatformat
from django.templatetags.static import static
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.text import Truncator
from django.utils.translation import get_language, gettext
from jinja2 import Environment
from markupsafe import Markup, escape

from feedback.rendering.html import attribute_value


def environment(**options: Any) -> Environment:
    """Return the environment named in the setting TEMPLATES. Templates also need `_`, the active `translator`."""
    jinja = Environment(**options, trim_blocks=True, lstrip_blocks=True)
    jinja.globals |= {
        "url": url,
        "url_if_any": url_if_any,
        "icon": icon,
        "attribute_value": attribute_value,
        "when": when,
    }
    jinja.filters |= {"intcomma": intcomma, "floatformat": floatformat, "truncatechars": truncatechars}
    return jinja


def translator() -> Callable[[str], Markup]:
    """Return the function `_` of a template: the escaped translation into the language that is active now.

    A comparison has some forty messages. To look each up and to escape it took a tenth of the CPU time of a submit.
    """
    return _translator(get_language())


@cache
def _translator(_language: str | None) -> Callable[[str], Markup]:
    # One cache for each language: asking for the language at each message took as long as the rest of its look-up.
    return cache(lambda message: escape(gettext(message)))


def url(name: str, *arguments: Any) -> str:
    return reverse(name, args=arguments)


def url_if_any(name: str, *arguments: Any) -> str:
    """Return the address, or "" where no part of the product has a page of this name."""
    try:
        return url(name, *arguments)
    except NoReverseMatch:
        return ""


def when(moment: datetime) -> Markup:
    """Return a moment as people say it, such as "3 hours ago"."""
    written = timezone.localtime(moment).isoformat()
    return Markup('<time datetime="{}">{}</time>').format(written, naturaltime(moment))


def truncatechars(text: str, length: int) -> str:
    return Truncator(text).chars(length)


@lru_cache(maxsize=64)
def icon(name: str) -> Markup:
    """Return what the template `_icon.html` renders."""
    address = static("accord/icons.svg")
    return Markup('<svg class="icon" aria-hidden="true" focusable="false"><use href="{}#{}"/></svg>').format(
        address, name
    )
