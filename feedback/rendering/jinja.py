"""What templates in Jinja2 have at hand, beside their context: `_`, `url`, `icon`, and what Django's backend adds."""

from functools import lru_cache
from typing import Any

from django.templatetags.static import static
from django.urls import reverse
from django.utils.translation import gettext
from jinja2 import Environment
from markupsafe import Markup

from feedback.rendering.html import written


def environment(**options: Any) -> Environment:
    """For Django's setting TEMPLATES."""
    made = Environment(**options, trim_blocks=True, lstrip_blocks=True)
    made.globals |= {"_": gettext, "url": url, "icon": icon, "written": written}
    return made


def url(name: str, *arguments: Any) -> str:
    return reverse(name, args=arguments)


@lru_cache(maxsize=64)
def icon(name: str) -> Markup:
    """As the template `_icon.html`."""
    address = static("accord/icons.svg")
    return Markup('<svg class="icon" aria-hidden="true" focusable="false"><use href="{}#{}"/></svg>').format(
        address, name
    )
