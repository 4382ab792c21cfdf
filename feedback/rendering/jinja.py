"""Jinja2 environment: the functions that templates may call beside those of Django's backend."""

from functools import lru_cache
from typing import Any

from django.templatetags.static import static
from django.urls import reverse
from django.utils.translation import get_language, gettext
from jinja2 import Environment
from markupsafe import Markup, escape

from feedback.rendering.html import attribute_value


def environment(**options: Any) -> Environment:
    """Return the environment named in the setting TEMPLATES."""
    jinja = Environment(**options, trim_blocks=True, lstrip_blocks=True)
    jinja.globals |= {"_": translate, "url": url, "icon": icon, "attribute_value": attribute_value}
    return jinja


def translate(message: str) -> Markup:
    """Return the escaped translation into the request's language.

    A comparison has some forty of them. To look each up and to escape it took a tenth of the CPU time of a submit.
    """
    return _translated(get_language(), message)


@lru_cache(maxsize=1024)  # more than the templates' messages in all languages
def _translated(_language: str | None, message: str) -> Markup:
    return escape(gettext(message))


def url(name: str, *arguments: Any) -> str:
    return reverse(name, args=arguments)


@lru_cache(maxsize=64)
def icon(name: str) -> Markup:
    """Return what the template `_icon.html` renders."""
    address = static("accord/icons.svg")
    return Markup('<svg class="icon" aria-hidden="true" focusable="false"><use href="{}#{}"/></svg>').format(
        address, name
    )
