"""A signed cookie that says who has signed in before in this browser.

Wrong passwords from other browsers cannot lock these people out: their attempts here are counted apart.
"""

from django.conf import settings
from django.core import signing
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.crypto import get_random_string, salted_hmac

COOKIE = "known-browser"
MAX_AGE = 365 * 24 * 3600  # seconds
MAX_PEOPLE = 8  # of one browser
SALT = "accord.known-browser"


def key_of(request: HttpRequest, username: str) -> str | None:
    """Return the random text of this person and browser; None if the person has not signed in here."""
    return _read(request).get(_digest(username))


def remember(request: HttpRequest, response: HttpResponseBase, username: str) -> None:
    """Add the person, who has just signed in, to the cookie. The latest MAX_PEOPLE stay in it."""
    people = _read(request)
    digest = _digest(username)
    people[digest] = people.pop(digest, "") or get_random_string(16)
    latest = dict(list(people.items())[-MAX_PEOPLE:])
    response.set_cookie(
        COOKIE,
        signing.dumps(latest, salt=SALT),
        max_age=MAX_AGE,
        path=settings.SESSION_COOKIE_PATH,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def _read(request: HttpRequest) -> dict[str, str]:
    try:
        people = signing.loads(request.COOKIES.get(COOKIE, ""), salt=SALT, max_age=MAX_AGE)
    except signing.BadSignature:
        return {}
    return dict(people)


def _digest(username: str) -> str:
    return salted_hmac(SALT, username.strip().casefold()).hexdigest()[:16]
