"""Sessions in the database (so that signing out ends them), read by a prepared statement."""

from typing import Any

from django.contrib.sessions.backends.db import SessionStore as DatabaseSessions
from django.contrib.sessions.models import Session
from django.db import connection
from django.utils import timezone

from feedback import statements

CLEAR_COUNTS = "DELETE FROM accord_cache WHERE expires < now()"
READ = f"""
    SELECT {statements.columns(Session, "django_session")} FROM django_session
    WHERE session_key = %s AND expire_date > %s"""


class SessionStore(DatabaseSessions):
    """Session store like Django's, which would build the same query again for every request."""

    def _get_session_from_db(self) -> Any:
        (row,) = statements.run(READ, [self.session_key, timezone.now()]) or (None,)
        if row is None:
            self._session_key = None
            return None
        return statements.build(Session, row)


def clear_expired_counts() -> None:
    """Delete expired rows of the cache, which holds counts of wrong passwords."""
    with connection.cursor() as cursor:
        cursor.execute(CLEAR_COUNTS)
