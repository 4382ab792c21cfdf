"""Limits of requests per minute: per token (or account) and per address, counted for all processes together.

Requests with a wrong token are counted apart, so that they cannot use up the limit of others at the same address.
"""

import time
from typing import TYPE_CHECKING

from django.conf import settings
from django.utils.translation import gettext as _
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from feedback import statements
from feedback.errors import TooManyRequests
from feedback.web.accounts.adapter import client_address

if TYPE_CHECKING:  # at run time a cycle, as in strict.py
    from rest_framework.views import APIView

WINDOW = 60  # seconds
MAX_REFUSED = 120  # requests per minute and address with a wrong token, or with none
COUNT = """
    INSERT INTO accord_request_counts AS kept (key, minute, count) VALUES (%s, %s, 1)
    ON CONFLICT (key) DO UPDATE SET
        count = CASE WHEN kept.minute = EXCLUDED.minute THEN kept.count + 1 ELSE 1 END, minute = EXCLUDED.minute
    RETURNING count"""


class Throttled(TooManyRequests):
    """More requests than allowed in a minute, of one token or from one address."""

    code = "throttled"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestThrottle(BaseThrottle):
    """Throttle of all authenticated requests of the API."""

    def allow_request(self, request: Request, view: "APIView") -> bool:
        token = getattr(request.auth, "pk", None)
        sender = f"user {request.user.pk}" if token is None else f"token {token}"
        _count(sender, settings.API_REQUESTS_PER_MINUTE, _("This token has sent more than %(most)s requests a minute."))
        _count(
            f"address {client_address(request._request)}",
            settings.API_REQUESTS_PER_MINUTE_AND_ADDRESS,
            _("Your address has sent more than %(most)s requests a minute."),
        )
        return True


def count_refused(request: Request) -> None:
    """Count a request that nobody is signed in for. Raises Throttled if its address has sent too many of them."""
    sentence = _("Your address has sent more than %(most)s requests a minute without a valid token.")
    _count(f"refused {client_address(request._request)}", MAX_REFUSED, sentence)


def delete_old_counts() -> None:
    """Delete the counts of earlier minutes."""
    statements.run("DELETE FROM accord_request_counts WHERE minute < %s RETURNING 1", [_now()[0] - 1])


def _count(key: str, most: int, sentence: str) -> None:
    """Count a request of a key in the current minute. Raises Throttled beyond `most`; 0: no limit, nothing is counted.

    The statement is a transaction of its own, so that no request waits for another one's.
    """
    if not most:
        return
    minute, seconds_left = _now()
    ((count,),) = statements.run(COUNT, [key, minute])
    if count > most:
        wait = _("Wait for the time in Retry-After.")
        raise Throttled(f"{sentence % {'most': most}} {wait}", seconds_left)


def _now() -> tuple[int, int]:
    """Return the number of the current minute, and the seconds until the next one."""
    minute, second = divmod(int(time.time()), WINDOW)
    return minute, WINDOW - second
