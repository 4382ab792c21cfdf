"""Imported people: the pseudonymous authors of imported rankings.

A person is an account without a password that cannot be active (a check constraint), so it can neither sign in nor
become a member. Its name is a keyed hash of the name in the file: the same person of two files is one account, and
nobody can read the name or address of a stranger from it.
"""

import hmac
from collections.abc import Iterable

from django.contrib.auth.hashers import make_password
from django.utils.translation import gettext as _

from feedback.errors import Conflict
from feedback.models import Project, User

DIGITS = 12  # of the hash: 48 bits


def username_of(project: Project, name: str) -> str:
    """Return the username of the person with this name in imported files."""
    message = f"imported person:{name}".encode(errors="surrogatepass")
    digest = hmac.digest(project.blinding_key.bytes, message, "sha256").hex()
    return f"imported-{project.pk}-{digest[:DIGITS]}"


def find_or_create(project: Project, names: Iterable[str]) -> dict[str, int]:
    """Return the user ids of imported people by their names in the file; unknown ones get an account."""
    usernames = {name: username_of(project, name) for name in names}
    known = _ids(usernames.values())
    new = [username for username in dict.fromkeys(usernames.values()) if username not in known]
    if new:
        people = [
            User(username=username, is_imported=True, is_active=False, password=make_password(None)) for username in new
        ]
        User.objects.bulk_create(people, ignore_conflicts=True)
        known = _ids(usernames.values())
    if missing := set(usernames.values()) - known.keys():
        raise Conflict(
            _('The user name "%(name)s" belongs to an account: rename it before this import.') % {"name": min(missing)}
        )
    return {name: known[username] for name, username in usernames.items()}


def _ids(usernames: Iterable[str]) -> dict[str, int]:
    rows = User.objects.filter(username__in=list(usernames), is_imported=True)
    return dict(rows.values_list("username", "pk"))
