"""Authentication by session or by API token (`Authorization: Bearer acc_…`)."""

from datetime import timedelta
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from feedback import statements
from feedback.actions import tokens
from feedback.models import ApiToken, User

USER = f"SELECT {statements.columns(User, 'feedback_user')} FROM feedback_user WHERE id = %s AND is_active"
USE_RESOLUTION = timedelta(minutes=1)  # of `last_used_at`: an exact time would cost one write per request


# Sessions store the dotted path of this class: renaming it signs everybody out.
class Sessions(ModelBackend):
    """Django's backend, with a prepared statement for the session's user, because every page needs the user."""

    def get_user(self, user_id: int) -> User | None:
        (row,) = statements.run(USER, [user_id]) or (None,)
        return None if row is None else statements.build(User, row)


class TokenAuthentication(BaseAuthentication):
    """Authentication by the digest of a token's key. The scheme `Token`, which some clients send, is accepted too."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        scheme, _, key = get_authorization_header(request).decode("latin-1").partition(" ")
        if scheme.lower() not in ("bearer", "token"):
            return None
        token = tokens.find_token(key.strip())
        if token is None:
            raise AuthenticationFailed("This token is not valid: make a new one on your account page.")
        if token.user.time_zone:
            timezone.activate(token.user.time_zone)  # PreferencesMiddleware deactivates it
        self._update_last_use(token)
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"

    def _update_last_use(self, token: ApiToken) -> None:
        now = timezone.now()
        if token.last_used_at is None or now - token.last_used_at > USE_RESOLUTION:
            ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)


class TokenScheme(OpenApiAuthenticationExtension):
    """Description of the token authentication in the OpenAPI schema."""

    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "A token from the account page: `acc_…`."}
