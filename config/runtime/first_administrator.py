"""The first administrator, made at the first start from environment variables, for installations without a shell."""

import os
from collections.abc import Callable
from pathlib import Path

from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from config.runtime.errors import SetupError
from feedback import audit
from feedback.actions.tokens import register_token

NAME, PASSWORD_FILE, TOKEN_FILE = "ACCORD_ADMIN", "ACCORD_ADMIN_PASSWORD_FILE", "ACCORD_ADMIN_TOKEN_FILE"
MIN_KEY_LENGTH = 32  # characters of a token


def make_first_administrator(report: Callable[[str], None]) -> None:
    """Make the account that the environment names, unless the database has an account already.

    ACCORD_ADMIN is its name, the file ACCORD_ADMIN_PASSWORD_FILE holds its password, and the file
    ACCORD_ADMIN_TOKEN_FILE, if any, the key of an API token. Raises SetupError if one of them cannot be used.
    """
    users = get_user_model().objects
    name = os.environ.get(NAME, "").strip()
    if not name or users.exists():
        return
    password = _content(PASSWORD_FILE)
    if not password:
        raise SetupError(f"{NAME} needs a password: name a file that contains it in {PASSWORD_FILE}.")
    user = get_user_model()(username=name)
    try:
        user.clean_fields(exclude=["password"])
        validate_password(password, user)
    except ValidationError as error:
        raise SetupError(f"the first administrator was not made: {' '.join(error.messages)}") from error
    key = _content(TOKEN_FILE)
    if key and len(key) < MIN_KEY_LENGTH:
        raise SetupError(f"the token in {TOKEN_FILE} could be guessed: it needs {MIN_KEY_LENGTH} random characters.")
    with transaction.atomic(), audit.acting("first start", audit.Via.COMMAND):
        user = users.create_superuser(name, password=password)
        audit.record("account.create", None, user, after={"is_superuser": True})
        if key:
            register_token(user, "first start", key)
    report(f'made the first administrator "{name}"{", with an API token" if key else ""}')


def _content(variable: str) -> str:
    """Return the text of the file that a variable names, without the line's end; "" without the variable."""
    if not (path := os.environ.get(variable)):
        return ""
    try:
        return Path(path).read_text().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"the file in {variable} cannot be read: {error}") from error
