"""API tokens: issue, find, revoke."""

import secrets

from django.utils.translation import gettext as _

from feedback.errors import NotFound
from feedback.models import ApiToken, User


def issue_token(user: User, name: str) -> tuple[ApiToken, str]:
    """Return a new token and its key. The key is not stored and cannot be shown again."""
    key = "acc_" + secrets.token_urlsafe(32)
    return ApiToken.objects.create(user=user, name=name, digest=ApiToken.digest_of(key)), key


def find_token(key: str) -> ApiToken | None:
    """Return the token with this key, its user loaded. None if there is none, or the account is deactivated."""
    token = ApiToken.objects.select_related("user").filter(digest=ApiToken.digest_of(key)).first()
    return token if token is not None and token.user.is_active else None


def revoke_token(user: User, token_id: int) -> None:
    deleted, _by_table = ApiToken.objects.filter(user=user, pk=token_id).delete()
    if not deleted:
        raise NotFound(_("This token does not exist any more: it was revoked."))
