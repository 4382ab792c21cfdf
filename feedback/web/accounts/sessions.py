"""The sessions of a person: listed and ended, by allauth's records of them."""

from dataclasses import dataclass
from datetime import datetime

from allauth.usersessions.models import UserSession
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.models import Session
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback.errors import NotFound
from feedback.models import User
from feedback.web.sessions import SessionStore

BROWSERS = [("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari")]
SYSTEMS = [
    *(("iPhone", "iPhone"), ("iPad", "iPad"), ("Android", "Android"), ("Windows", "Windows")),
    *(("Mac OS X", "macOS"), ("CrOS", "ChromeOS"), ("Linux", "Linux")),
]


@dataclass(frozen=True)
class ListedSession:
    """A session as the account page shows it."""

    pk: int
    browser: str
    address: str
    started_at: datetime
    is_current: bool


def sessions_of(request: HttpRequest) -> list[ListedSession]:
    """Return the person's sessions, this one first, then the newest.

    Sessions that were started before allauth was installed have no record; this one gets it here.
    """
    key = request.session.session_key
    if not UserSession.objects.filter(session_key=key).exists():
        UserSession.objects.create_from_request(request)
    sessions = [
        ListedSession(one.pk, browser_of(one.user_agent), one.ip, one.created_at, one.session_key == key)
        for one in UserSession.objects.purge_and_list(request.user)
    ]
    return sorted(sessions, key=lambda one: (not one.is_current, -one.started_at.timestamp()))


def browser_of(agent: str) -> str:
    """Return the browser and system of a User-Agent header, such as "Firefox, Linux"."""
    names = [next((name for part, name in kinds if part in agent), None) for kinds in (BROWSERS, SYSTEMS)]
    return ", ".join(name for name in names if name) or _("Unknown browser")


def end_session(user: User, session_id: int) -> None:
    """Sign a person out of one browser. Raises NotFound for a session of somebody else."""
    session = UserSession.objects.filter(user=user, pk=session_id).first()
    if session is None:
        raise NotFound(_("This session has ended already."))
    session.end()


def end_all_sessions(user: User) -> None:
    """Sign a person out everywhere, also of sessions without a record."""
    for session in UserSession.objects.filter(user=user):
        session.end()
    recorded = UserSession.objects.values("session_key")
    others = Session.objects.filter(expire_date__gt=timezone.now()).exclude(session_key__in=recorded)
    for session in others.iterator():
        if str(session.get_decoded().get(SESSION_KEY)) == str(user.pk):
            SessionStore().delete(session.session_key)
