"""Encryption of secrets that the server must be able to read again, such as the key of an endpoint.

Fernet (AES-128-CBC with HMAC-SHA256) under keys that HKDF derives from SECRET_KEY, one for each purpose. Who has the
database, a backup or an export, but not SECRET_KEY, cannot read them. After SECRET_KEY was changed they are lost, and
people enter them again.
"""

import base64

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


def encrypt(secret: str, purpose: str) -> str:
    """Return the secret as text that only `decrypt` with the same purpose can read. Equal secrets give other texts."""
    return _fernet(purpose).encrypt(secret.encode()).decode()


def decrypt(text: str, purpose: str) -> str | None:
    """Return the secret; None if it was encrypted with another SECRET_KEY or purpose, or the text was changed."""
    try:
        return _fernet(purpose).decrypt(text.encode()).decode()
    except InvalidToken:
        return None


def _fernet(purpose: str) -> Fernet:
    derived = HKDF(SHA256(), length=32, salt=None, info=f"accord {purpose}".encode())
    return Fernet(base64.urlsafe_b64encode(derived.derive(settings.SECRET_KEY.encode())))
