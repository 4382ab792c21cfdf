"""Render completions: a text, or a dialogue turn by turn.

The labels of the turns are attributes, which the style sheet shows: so they are no visible characters, which marked
spans are counted in (see `visible`). Each turn carries its source, for the view "as written" and the differences.
"""

from html import escape

from django.utils.translation import gettext as _

from feedback.dialogues import Answer
from feedback.rendering.html import MAX_MARKDOWN_LENGTH, attribute_value, render


def render_answer(answer: Answer) -> str:
    """Return the HTML of a completion; it is empty only for an empty text."""
    if answer.turns is None:
        return render(answer.text)
    as_plain = is_long(answer)
    return "".join(_turn(turn["role"], turn["content"], as_plain) for turn in answer.turns)


def is_long(answer: Answer) -> bool:
    """Return whether the turns of a dialogue are shown as plain text, so that rendering takes a bounded time."""
    return len(answer.text) > MAX_MARKDOWN_LENGTH


def _turn(role: str, text: str, as_plain: bool) -> str:
    label = escape(_("Assistant") if role == "assistant" else _("User"))
    nothing = escape(_("(an empty answer)"))
    content = render(text, as_plain=as_plain) or f'<div class="plain" data-note="{nothing}"></div>'
    attributes = f'role="group" aria-label="{label}" data-label="{label}" data-written="{attribute_value(text)}"'
    return f'<div class="turn {role}" {attributes}>{content}</div>'
