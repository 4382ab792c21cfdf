"""Under which names and addresses the web service is asked for."""

import socket
from urllib.parse import urlsplit

import psutil

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # what listens there, and where it answers itself


def address_of(host: str, port: int) -> str:
    """Where a service that listens on this host answers on this machine."""
    return f"http://{bracketed(EVERYWHERE.get(host, host))}:{port}"


def bracketed(host: str) -> str:
    """As addresses and Host headers write it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def own_names(listens_on: str, public_url: str) -> list[str]:
    """What ALLOWED_HOSTS is unless it is set: the public address, and this machine as far as it can be reached.

    Nobody else can make a name or an address point here that is not the machine's own, so none of these lets a
    stranger's page speak for us, as «*» would.
    """
    names = ["localhost", "127.0.0.1", "[::1]"]
    if public := urlsplit(public_url).hostname:
        names.append(bracketed(public))
    if listens_on in EVERYWHERE:
        names += [socket.gethostname(), socket.getfqdn(), *map(bracketed, _addresses())]
    elif listens_on:
        names.append(bracketed(listens_on))
    return list(dict.fromkeys(name.lower() for name in names if name))


def _addresses() -> list[str]:
    """Of every network interface; without the zone that a link-local one may carry."""
    families = (socket.AF_INET, socket.AF_INET6)
    every = [each for interface in psutil.net_if_addrs().values() for each in interface]
    return [each.address.partition("%")[0] for each in every if each.family in families]
