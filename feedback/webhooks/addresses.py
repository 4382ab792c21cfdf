"""Addresses that a webhook may have: public ones, and those of the networks that the settings allow.

A name is resolved once for each attempt, and the connection goes to the very address that was checked. Otherwise a
name whose address changes between check and connection (DNS rebinding) would reach services inside the network.
"""

import ipaddress
import socket
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.translation import gettext as _

from feedback.errors import Invalid

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# IPv6 networks whose addresses contain an IPv4 address, which a gateway would connect to.
TRANSLATED = [ipaddress.ip_network(network) for network in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")]


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
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a name with an empty or overlong label
        raise Invalid(_('"%(host)s" is no name of a host.') % {"host": host}) from error
    addresses = [ipaddress.ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers]
    for address in addresses:
        if not _is_allowed(address, is_tls):
            raise Invalid(_refusal(address))
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(is_tls, host, port, path, str(addresses[0]))


def _is_allowed(address: Address, is_tls: bool) -> bool:
    if any(address in network for network in settings.WEBHOOK_NETWORKS):
        return True
    return is_tls and _is_public(address)


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return _is_public(address.ipv4_mapped)
        if any(address in network for network in TRANSLATED) or address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _refusal(address: Address) -> str:
    if _is_public(address):
        return _("The address must begin with https://, because the events would be sent unencrypted.")
    return _(
        "%(address)s is not a public address. An administrator can allow its network with ACCORD_WEBHOOK_NETWORKS."
    ) % {"address": address}


def _has_controls(url: str) -> bool:
    return not url.isascii() or any(ord(character) <= 32 or ord(character) == 127 for character in url)
