"""Addresses that requests to endpoints may go to.

A manager of a project names the address, and the server sends the request: to the public internet, and the networks of
ACCORD_ENDPOINT_NETWORKS (`feedback.network`). Where the environment names a proxy, the proxy resolves names, and its
own rules hold.
"""

import ipaddress
import urllib.request
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from django.conf import settings
from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.network import Address, addresses_of, is_in, is_public, plain

MAX_LENGTH = 500


class Target(NamedTuple):
    """Destination of a request: the base URL with a checked address in place of its host, and the host's name."""

    base_url: str
    host_header: str  # "" where a proxy resolves the name
    server_name: str  # of the TLS certificate; "" where a proxy resolves the name, or there is no TLS


def checked_url(url: str) -> str:
    """Return the base URL of an endpoint as it is stored. Raise Invalid; the message shows no user name or password."""
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or brackets around no address
        is_usable = False
    if not is_usable or "@" in parts.netloc or parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise Invalid(
            _(
                "The address must be like https://api.example.org/v1, without user name, password, query and white "
                "space."
            )
        )
    if len(url) > MAX_LENGTH:
        raise Invalid(_("The address has more than %(most)s characters.") % {"most": MAX_LENGTH})
    return url.removesuffix("/chat/completions")


def target_of(url: str, *, has_key: bool) -> Target:
    """Return where requests to this base URL go. Raise Invalid if they may not go there, OSError for an unknown name.

    has_key: a key is sent, which may go to public addresses over TLS only.
    """
    parts = urlsplit(url)
    host = str(parts.hostname)
    proxy = _proxy_of(parts)
    addresses = _literal(host) or ([] if proxy else addresses_of(host, parts.port or _default_port(parts)))
    for address in addresses:
        check_address(address, host)
    if has_key and parts.scheme == "http" and (proxy or any(map(is_public, addresses))):
        raise Invalid(_("The key would be sent without encryption: use an address with https://."))
    if proxy:
        return Target(url, "", "")
    address = addresses[0]
    literal = f"[{address}]" if address.version == 6 else str(address)
    netloc = literal if parts.port is None else f"{literal}:{parts.port}"
    server_name = host if parts.scheme == "https" else ""
    return Target(parts._replace(netloc=netloc).geturl(), parts.netloc, server_name)


def check_address(address: Address, host: str) -> None:
    """Raise Invalid unless requests may go to the address. `host` is its name, for the message."""
    if is_public(address) or is_in(address, settings.ENDPOINT_NETWORKS):
        return
    raise Invalid(
        _(
            "%(host)s is at %(address)s, which is no public address. An administrator of this installation can allow "
            "its network with ACCORD_ENDPOINT_NETWORKS."
        )
        % {"host": host, "address": address}
    )


def _proxy_of(parts: SplitResult) -> str:
    if urllib.request.proxy_bypass(str(parts.hostname)):
        return ""
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all") or ""


def _default_port(parts: SplitResult) -> int:
    return 443 if parts.scheme == "https" else 80


def _literal(host: str) -> list[Address]:
    """Return the address that the host is, if it is one."""
    try:
        return [plain(ipaddress.ip_address(host))]
    except ValueError:
        return []
