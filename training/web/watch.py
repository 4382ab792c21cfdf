"""`/watch/<token>/`: the version of what an open page shows, answered before all other middleware.

Ten consoles that nobody touches should cost the server less than one annotator, and most of the time of a small request
is spent by sessions and templates. So a page carries a signed token, which names what to watch. It gives digests alone,
which say nothing but that something has changed; the content is fetched by the page's own address, with all checks.
"""

from collections.abc import Callable
from hashlib import blake2b

from django.core.signing import BadSignature, Signer
from django.db import models
from django.http import HttpRequest, HttpResponse, JsonResponse

from training.watch import version_of

PREFIX = "/watch/"
# Seconds between two polls of a page that nobody touches, at most. With `workers.rows.DEAD_AFTER` it is below a minute,
# within which a worker that died is shown as dead.
SLOWEST = 25

_signer = Signer(salt="training.web.watch")


def address_of(kind: str, watched: models.Model | None = None) -> str:
    """Return the address of a version: of a round, a trial, a project's loop or checks, or of the machines."""
    return f"{PREFIX}{_signer.sign(f'{kind}:{watched.pk if watched else 1}')}/"


class WatchMiddleware:
    """Answer `/watch/…/`: `{"state", "progress"}`, digests; 404 for a token that this site has not signed."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path.startswith(PREFIX):
            return self.get_response(request)
        if request.method != "GET":
            return HttpResponse(status=405, headers={"Allow": "GET"})
        try:
            kind, _, pk = _signer.unsign(request.path[len(PREFIX) :].rstrip("/")).partition(":")
        except BadSignature:
            return HttpResponse(status=404)
        version = version_of(kind, int(pk))
        body = {"state": digest(version.state), "progress": digest(version.progress)}
        return JsonResponse(body, headers={"Cache-Control": "no-store"})


def digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
