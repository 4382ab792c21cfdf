"""In which form the API answers: in its own, which each address documents."""

from collections.abc import Sequence

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class OneForm(DefaultContentNegotiation):
    """There is one form of each answer, so whoever asks for another one gets that too, not a 406.

    (DRF compares `Accept` with its renderers alone: a client that accepts JSON Lines was refused the export.)
    """

    def select_renderer(
        self, request: Request, renderers: Sequence[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type
