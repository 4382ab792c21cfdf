"""Content negotiation of the API: each endpoint has one media type, which its documentation names."""

from collections.abc import Sequence

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class IgnoreAcceptHeader(DefaultContentNegotiation):
    """Content negotiation that ignores `Accept` and answers in the endpoint's media type.

    REST framework's default answers 406 to a client that accepts JSON Lines only, because no renderer of the view has
    that media type: exports are streamed without a renderer.
    """

    def select_renderer(
        self, request: Request, renderers: Sequence[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type
