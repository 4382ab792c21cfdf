"""Host names and addresses of the web service."""

import socket
from urllib.parse import urlsplit

import psutil

LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # for an address that means all interfaces


def address_of(host: str, port: int) -> str:
    """Return the URL at which this machine reaches its own service that listens on the host."""
    return f"http://{bracketed(LOOPBACK.get(host, host))}:{port}"


def bracketed(host: str) -> str:
    """Put an IPv6 address in brackets, as URLs and Host headers have it."""
    return f"[{host}]" if ":" in host else host


def default_allowed_hosts(listens_on: str, public_url: str) -> list[str]:
    """Return the default of ALLOWED_HOSTS: the public host name, and the names and addresses of this machine.

    Only names that belong to the machine are listed, so another site's page cannot use one; "*" would permit that.
    """
    names = ["localhost", "127.0.0.1", "[::1]"]
    if public := urlsplit(public_url).hostname:
        names.append(bracketed(public))
    if listens_on in LOOPBACK:
        names += [socket.gethostname(), socket.getfqdn(), *map(bracketed, _interface_addresses())]
    elif listens_on:
        names.append(bracketed(listens_on))
    return list(dict.fromkeys(name.lower() for name in names if name))


def _interface_addresses() -> list[str]:
    """Return the IP addresses of all network interfaces, without the zone of link-local ones."""
    return [
        entry.address.partition("%")[0]
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
    ]
