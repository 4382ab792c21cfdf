"""Reasoning that a model writes before its answer, `<think>…</think>`: a part of the text that is shown folded.

Its label is an attribute, which the style sheet shows: it is no visible character, and marks are counted in these.
"""

import re
from html import escape

from django.utils.translation import gettext as _

from feedback.rendering.blocks import parse_blocks
from feedback.rendering.pieces import Document, Marker

BLOCK = re.compile(
    r"\s*(?P<open><(?P<name>think|thinking|reasoning)>)(?P<inside>.*?)(?P<close></(?P=name)>)", re.DOTALL
)
# Some chat templates begin the answer with the opening tag, so the completion has the closing one alone, on its line.
REST = re.compile(r"(?P<inside>.*?\n)(?P<close></think>)(?=[ \t]*(\n|\Z))", re.DOTALL)


def parse_parts(document: Document) -> None:
    """Append the pieces of a text; reasoning at its beginning is a folded part. Raises TooComplex."""
    source = document.source
    block = BLOCK.match(source) or REST.match(source)
    if block is None or not block["inside"].strip():
        parse_blocks(document)
        return
    if "open" in block.groupdict():
        document.pieces.append(Marker(*block.span("open"), "reasoning"))
    label = escape(_("Reasoning"))
    is_all = "" if source[block.end() :].strip() else " open"
    document.pieces.append(
        f'<details class="reasoning"{is_all}><summary aria-label="{label}" data-label="{label}"></summary>'
    )
    parse_blocks(document, *block.span("inside"))
    document.pieces += ["</details>", Marker(*block.span("close"), "reasoning")]
    parse_blocks(document, block.end())
