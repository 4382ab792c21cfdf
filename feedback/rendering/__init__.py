"""Render untrusted text as safe HTML (`html`), and map visible characters back to the source (`visible`)."""

from feedback.rendering.answers import render_answer
from feedback.rendering.html import render

__all__ = ["render", "render_answer"]
