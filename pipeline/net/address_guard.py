"""Whose network an address belongs to: one rule for downloads, images and manifests. Pure.

An IPv6 address may stand for an IPv4 one, in which case the IPv4 one decides. Sources: RFC 4291 2.5.5.2
(mapped), RFC 3056 (6to4), RFC 4380 (Teredo), RFC 6052 and RFC 8215 (NAT64).
"""

from __future__ import annotations

import ipaddress
from enum import Enum, auto
from typing import Final

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")


class Zone(Enum):
    """Whose network an address belongs to."""

    PUBLIC = auto()
    PRIVATE = auto()
    LOOPBACK = auto()
    FORBIDDEN = auto()


def zone_of(address: str) -> Zone:
    """Return the zone of a numeric address; raises ValueError for what is none.

    Link-local (cloud metadata lives there), multicast, unspecified and reserved addresses are `FORBIDDEN`:
    nothing of use is ever served from them.
    """
    ip = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return _zone(ip)
    embedded = _embedded_ipv4(ip)
    if embedded is not None:
        return _zone(embedded)
    # Which bits of a local NAT64 prefix hold the IPv4 address is its network's choice (RFC 8215).
    if ip in _LOCAL_NAT64 or ip.is_site_local:
        return Zone.PRIVATE
    return _zone(ip)


def is_public(address: str) -> bool:
    """Whether the numeric `address` is one of the public internet; raises ValueError for what is none."""
    return zone_of(address) is Zone.PUBLIC


def _zone(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Zone:
    if ip.is_loopback:
        return Zone.LOOPBACK
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_reserved:
        return Zone.FORBIDDEN
    return Zone.PUBLIC if ip.is_global else Zone.PRIVATE


def _embedded_ipv4(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
