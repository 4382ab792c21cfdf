"""API tokens: issue, find, rotate, revoke."""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback import audit
from feedback.errors import Conflict, Invalid, NotFound
from feedback.models import ApiToken, User

MAX_DAYS = 3650
AUDITED = ("user", "name", "scopes", "project_ids", "expires_at")


def digest_of(key: str) -> str:
    """Return the SHA-256 digest under which a key is stored."""
    # A key has at least 192 random bits. A slow password hash would not make it safer, and would cost time.
    return hashlib.sha256(key.encode()).hexdigest()


def issue_token(
    user: User,
    name: str,
    scopes: Sequence[str] | None = None,
    projects: Sequence[str] | None = None,
    days: int | None = None,
) -> tuple[ApiToken, str]:
    """Return a new token and its key. The key is not stored and cannot be shown again.

    scopes: what it may do (None: all that the user may do). projects: slugs of the user's projects that it is limited
    to (None: not limited). days: until it expires (None: never). Raises Invalid for an unknown project.
    """
    key = _new_key()
    return register_token(user, name, key, scopes, _ids_of(user, projects), days), key


@transaction.atomic
def register_token(
    user: User,
    name: str,
    key: str,
    scopes: Sequence[str] | None = None,
    project_ids: Sequence[int] | None = None,
    days: int | None = None,
) -> ApiToken:
    """Return a new token with a key that was made elsewhere, of at least 192 random bits."""
    token = ApiToken.objects.create(
        user=user,
        name=name,
        digest=digest_of(key),
        scopes=None if scopes is None else list(scopes),
        project_ids=None if project_ids is None else list(project_ids),
        expires_at=None if days is None else timezone.now() + timedelta(days=days),
    )
    audit.record("token.create", None, token, after=audit.values_of(token, AUDITED), actor=user)
    return token


def find_token(key: str) -> ApiToken | None:
    """Return the token with this key, its user loaded. None if there is none, it expired, or the account is inactive.

    It is read from the database for each request: a revoked token is refused at once, by all processes.
    """
    token = ApiToken.objects.select_related("user").filter(digest=digest_of(key)).first()
    return token if token is not None and token.user.is_active and not is_expired(token) else None


def is_expired(token: ApiToken) -> bool:
    return token.expires_at is not None and token.expires_at <= timezone.now()


@transaction.atomic
def rotate_token(user: User, token_id: int, overlap: timedelta) -> tuple[ApiToken, str]:
    """Return a token like this one and its key. The old one is refused after the overlap, so that programs can change.

    The new one lasts as long as the old one lasted from its creation. Raises NotFound, or Conflict for an expired one.
    """
    token = ApiToken.objects.select_for_update().filter(user=user, pk=token_id).first()
    if token is None:
        raise _no_token()
    if is_expired(token):
        raise Conflict(_("This token has expired: make a new one."))
    key, now = _new_key(), timezone.now()
    lasts = None if token.expires_at is None else token.expires_at - token.created_at
    new = ApiToken.objects.create(
        user=user,
        name=token.name,
        digest=digest_of(key),
        scopes=token.scopes,
        project_ids=token.project_ids,
        expires_at=None if lasts is None else now + lasts,
    )
    before, token.expires_at = token.expires_at, min(token.expires_at or now + overlap, now + overlap)
    token.save(update_fields=["expires_at"])
    values = {"expires_at": token.expires_at, "new_token": new.pk}
    audit.record("token.rotate", None, token, before={"expires_at": before}, after=values)
    return new, key


def find_own_token(user: User, token_id: int) -> ApiToken:
    """Return a token of the user, also an expired one. Raises NotFound."""
    token = ApiToken.objects.filter(user=user, pk=token_id).first()
    if token is None:
        raise _no_token()
    return token


@transaction.atomic
def revoke_token(user: User, token_id: int) -> None:
    token = ApiToken.objects.select_for_update().filter(user=user, pk=token_id).first()
    if token is None:
        raise _no_token()
    audit.record("token.revoke", None, token, before=audit.values_of(token, AUDITED))
    token.delete()


def _new_key() -> str:
    return "acc_" + secrets.token_urlsafe(32)


def _no_token() -> NotFound:
    return NotFound(_("This token does not exist any more: it was revoked."))


def _ids_of(user: User, slugs: Sequence[str] | None) -> list[int] | None:
    if slugs is None:
        return None
    ids = dict(user.projects.filter(slug__in=slugs).values_list("slug", "pk"))
    if unknown := next((slug for slug in slugs if slug not in ids), None):
        raise Invalid(_('You have no project "%(slug)s".') % {"slug": unknown})
    return list(ids.values())
