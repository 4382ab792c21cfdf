"""Addresses that the server may connect to for people: public ones, or those of networks that a setting allows.

Whoever names an address could reach what only the server can reach. A name is resolved once for each request, and the
connection goes to the very address that was checked: a name whose address changes in between (DNS rebinding) would
reach services inside the network.
"""

import ipaddress
import socket
from collections.abc import Iterable

from django.utils.translation import gettext as _

from feedback.errors import Invalid

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# IPv6 networks whose addresses contain an IPv4 address, which a gateway would connect to.
TRANSLATED = [ipaddress.ip_network(network) for network in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")]


def addresses_of(host: str, port: int) -> list[Address]:
    """Return the addresses of a name, or the one that it is. Raises OSError if it has none, Invalid for no name."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a name with an empty or overlong label
        raise Invalid(_('"%(host)s" cannot be the name of a host.') % {"host": host}) from error
    return [plain(ipaddress.ip_address(str(answer[4][0]).partition("%")[0])) for answer in answers]


def plain(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, or the address itself."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def is_public(address: Address) -> bool:
    """Return whether the address is of the public internet, and stands for none that is not."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in TRANSLATED) or address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
