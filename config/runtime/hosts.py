"""Host names and addresses of the web service."""

import socket
from urllib.parse import urlsplit

import psutil

LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # for an address that means all interfaces

# Networks that no one reaches from the internet: this machine, a local network, a shared or overlay network.
PRIVATE_NETWORKS = [
    *("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"),
]


def default_endpoint_networks(is_single_machine: bool, listens_on: str, public_url: str) -> list[str]:
    """Return the default of ACCORD_ENDPOINT_NETWORKS.

    A manager of a project names the addresses of endpoints, and the server sends requests there. Where only the people
    of this machine reach Accord, they reach private addresses anyway. Elsewhere a manager must not look around in the
    network of the server, so an administrator names the networks.
    """
    is_local = listens_on in ("", "localhost", *LOOPBACK.values())
    return ["private"] if is_single_machine and is_local and not public_url else ["none"]


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
