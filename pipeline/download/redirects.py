"""Where a download may go: which scheme, which addresses, after which hop. Pure: no DNS, no sockets.

A video's URL comes from the vendor's answer, and a redirect from whoever serves it, so both are a
stranger's word. The rule: https anywhere public; plain http only to this machine; a redirect may
never lead from a public place to a private one, nor from this machine to the private network.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from yarl import URL

MAX_REDIRECTS: Final = 5


class Zone(Enum):
    """Whose network an address belongs to."""

    PUBLIC = auto()
    PRIVATE = auto()
    LOOPBACK = auto()
    FORBIDDEN = auto()


class Refused(Exception):
    """The URL leads where a download must not go; the message says why, without the URL's secrets."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One URL of a chain, and the zones in which its host may turn out to be."""

    url: URL
    zones: frozenset[Zone]
    plain: bool


def zone_of(address: str) -> Zone:
    """Say whose an IP address is; IPv4 wrapped in IPv6 counts as the IPv4 it stands for.

    Link-local (cloud metadata lives there), multicast, unspecified and reserved addresses are
    `FORBIDDEN`: no video is ever served from them.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or _nat64(ip)
        if inner is not None:
            return zone_of(str(inner))
    if ip.is_loopback:
        return Zone.LOOPBACK
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return Zone.FORBIDDEN
    if ip.is_global:
        return Zone.PUBLIC
    return Zone.FORBIDDEN if ip.is_reserved else Zone.PRIVATE


def first_hop(text: str) -> Hop:
    """Take the vendor's URL. Raises `Refused` for what is no http(s) URL or plain http elsewhere."""
    try:
        url = _as_written(text.strip())
    except ValueError:
        raise Refused("the video's address is not a URL") from None
    return _hop(url, frozenset({Zone.PUBLIC, Zone.PRIVATE, Zone.LOOPBACK}))


def next_hop(origin: URL, came_from: Zone, location: str) -> Hop:
    """Follow a redirect from `origin`, whose server was found in zone `came_from`.

    Raises `Refused` when the target's scheme or literal address is out of bounds. User names in the
    target are dropped: they would become an Authorization header.
    """
    try:
        url = origin.join(_as_written(location.strip()))
    except ValueError:
        raise Refused("the redirect leads to something that is not a URL") from None
    return _hop(url, frozenset({Zone.PUBLIC, came_from}))


def literal_zone(url: URL) -> Zone | None:
    """The zone of a host that needs no DNS: an address, or a name of this machine; else None."""
    host = url.host or ""
    literal = _literal(host)
    if literal is not None:
        return zone_of(literal)
    return Zone.LOOPBACK if _may_be_loopback(host) else None


def allow(hop: Hop, addresses: list[str]) -> list[str]:
    """Those of a host's addresses that the hop may use. Raises `Refused` when there are none."""
    fitting = [address for address in addresses if zone_of(address) in hop.zones]
    if addresses and not fitting:
        raise Refused(_where(hop, zone_of(addresses[0])))
    return fitting


def shown(url: URL) -> str:
    """The URL as it may be printed: no user, no query (signatures live there), no fragment."""
    return str(url.with_user(None).with_query(None).with_fragment(None)) if url.host else "(no host)"


def _as_written(text: str) -> URL:
    """Take a URL letter by letter where it is one already: a signature may cover how it is spelled."""
    return URL(text, encoded=text.isascii() and text.isprintable() and " " not in text)


def _hop(url: URL, zones: frozenset[Zone]) -> Hop:
    if url.scheme not in ("http", "https") or not url.host:
        raise Refused(f"the video's address is not an http(s) URL (scheme {url.scheme or 'missing'!r})")
    plain = url.scheme == "http"
    if plain:
        zones &= {Zone.LOOPBACK}
    hop = Hop(url.with_user(None).with_fragment(None), zones, plain)
    if plain and not _may_be_loopback(url.host):
        raise Refused(_where(hop, Zone.PUBLIC))
    literal = _literal(url.host)
    if literal is not None:
        allow(hop, [literal])
    return hop


def _where(hop: Hop, zone: Zone) -> str:
    if hop.plain:
        return f"{hop.url.host} is asked for over plain http; only https is safe beyond this machine"
    what = "a private network" if zone is Zone.PRIVATE else "this machine" if zone is Zone.LOOPBACK else ""
    return f"{hop.url.host} leads to {what or 'an address that serves no videos'}; refused"


def _literal(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return None


def _may_be_loopback(host: str) -> bool:
    literal = _literal(host)
    if literal is not None:
        return zone_of(literal) is Zone.LOOPBACK
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost")


def _nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """RFC 6052: 64:ff9b::/96 carries an IPv4 address in its last 32 bits."""
    if ip in ipaddress.IPv6Network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return None
