"""The mail server, named by one address."""

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from config.runtime.errors import SetupError

PORTS = {"smtp": 587, "smtps": 465, "smtp+plain": 25}


@dataclass(frozen=True)
class MailServer:
    """The server that mail is given to. `backend` is a module of django.core.mail.backends."""

    backend: str
    host: str = ""
    port: int = 0
    user: str = ""
    password: str = ""
    starts_tls: bool = False
    is_tls: bool = False


def read_mail_server(name: str, address: str) -> MailServer | None:
    """Return the server of an address such as smtp://USER:PASSWORD@HOST:587, or None without one.

    smtp encrypts by STARTTLS, smtps from the start, smtp+plain not at all; "console" prints mail to the log. Raises
    SetupError, which does not show the address, since it may contain a password.
    """
    if not address:
        return None
    if address == "console":
        return MailServer("console")
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise SetupError(f"{name} has a wrong port: {error}.") from error
    if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
        raise SetupError(f"{name} must be like smtp://USER:PASSWORD@mail.example.org:587, or smtps, or console.")
    return MailServer(
        "smtp",
        parts.hostname,
        port or PORTS[parts.scheme],
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        starts_tls=parts.scheme == "smtp",
        is_tls=parts.scheme == "smtps",
    )
