"""Strangers' text on our pages: what is shown of it (`html`), and where in the text each shown character stands."""

from feedback.rendering.html import render

__all__ = ["render"]
