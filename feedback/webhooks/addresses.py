"""Addresses that a webhook may have: public ones over TLS, and those of ACCORD_WEBHOOK_NETWORKS (`network`)."""

from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.network import Address, addresses_of, is_in, is_public


@dataclass(frozen=True)
class Target:
    """The checked address of an attempt, and the path of its request."""

    is_tls: bool
    host: str
    port: int
    path: str  # with the query
    address: str  # checked; the connection goes here


def check_url(url: str) -> None:
    """Raise Invalid unless the URL could be posted to. A name that cannot be resolved now is accepted."""
    with suppress(OSError):
        resolve(url)


def resolve(url: str) -> Target:
    """Return the target of a URL. Raises Invalid for one that is not allowed, OSError if its name has no address."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in ("http", "https") or not host or parts.username is not None or _has_controls(url):
        raise Invalid(_("The address must be like https://example.org/hook, without user name and password."))
    is_tls = parts.scheme == "https"
    port = port or (443 if is_tls else 80)
    addresses = addresses_of(host, port)
    for address in addresses:
        if not _is_allowed(address, is_tls):
            raise Invalid(_refusal(address))
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(is_tls, host, port, path, str(addresses[0]))


def _is_allowed(address: Address, is_tls: bool) -> bool:
    return is_in(address, settings.WEBHOOK_NETWORKS) or (is_tls and is_public(address))


def _refusal(address: Address) -> str:
    if is_public(address):
        return _("The address must begin with https://, because the events would be sent unencrypted.")
    return _(
        "%(address)s is not a public address. An administrator can allow its network with ACCORD_WEBHOOK_NETWORKS."
    ) % {"address": address}


def _has_controls(url: str) -> bool:
    return not url.isascii() or any(ord(character) <= 32 or ord(character) == 127 for character in url)
