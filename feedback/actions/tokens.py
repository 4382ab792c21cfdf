"""API tokens: issue, find, revoke."""

import hashlib
import secrets

from django.utils.translation import gettext as _

from feedback.errors import NotFound
from feedback.models import ApiToken, User


def digest_of(key: str) -> str:
    """Return the SHA-256 digest under which a key is stored."""
    # A key has at least 192 random bits. A slow password hash would not make it safer, and would cost time.
    return hashlib.sha256(key.encode()).hexdigest()


def issue_token(user: User, name: str) -> tuple[ApiToken, str]:
    """Return a new token and its key. The key is not stored and cannot be shown again."""
    key = "acc_" + secrets.token_urlsafe(32)
    return register_token(user, name, key), key


def register_token(user: User, name: str, key: str) -> ApiToken:
    """Return a new token with a key that was made elsewhere, of at least 192 random bits."""
    return ApiToken.objects.create(user=user, name=name, digest=digest_of(key))


def find_token(key: str) -> ApiToken | None:
    """Return the token with this key, its user loaded. None if there is none, or the account is deactivated."""
    token = ApiToken.objects.select_related("user").filter(digest=digest_of(key)).first()
    return token if token is not None and token.user.is_active else None


def revoke_token(user: User, token_id: int) -> None:
    deleted, _by_table = ApiToken.objects.filter(user=user, pk=token_id).delete()
    if not deleted:
        raise NotFound(_("This token does not exist any more: it was revoked."))
