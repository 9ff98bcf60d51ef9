"""Where a download may go: which scheme and addresses, after which redirect. Pure: no DNS, no sockets.

A video's URL comes from the vendor's answer, and a redirect from whoever serves it: neither is trusted.
The rule: https anywhere public; plain http only to this machine; a redirect may
never lead from a public place to a private one, nor from this machine to the private network.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from yarl import URL

from pipeline.net.address_guard import Zone, zone_of

MAX_REDIRECTS: Final = 5
_LABEL: Final = re.compile(r"[A-Za-z0-9_-]{1,63}")


class ForbiddenUrl(Exception):
    """The URL leads where a download must not go; the message says why, without the URL's secrets."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One URL of a chain, and the zones in which its host may turn out to be."""

    url: URL
    zones: frozenset[Zone]
    is_plain_http: bool


def first_hop(text: str) -> Hop:
    """Check the vendor's URL. Raises `ForbiddenUrl` for anything but https, or http to this machine."""
    try:
        url = _parse_verbatim(text.strip())
        return _checked_hop(url, frozenset({Zone.PUBLIC, Zone.PRIVATE, Zone.LOOPBACK}))
    except ValueError as error:
        raise ForbiddenUrl(f"the video's address is not a valid URL ({_reason(error)})") from None


def next_hop(base: URL, source_zone: Zone, location: str) -> Hop:
    """Follow a redirect from `base`, whose server was found in `source_zone`.

    Raises `ForbiddenUrl` when the target is no URL, or its scheme or literal address is not allowed. User
    names in the target are dropped: they would become an Authorization header.
    """
    try:
        url = base.join(_parse_verbatim(location.strip()))
        return _checked_hop(url, frozenset({Zone.PUBLIC, source_zone}))
    except ValueError as error:
        raise ForbiddenUrl(f"the redirect leads to an invalid URL ({_reason(error)})") from None


def literal_zone(url: URL) -> Zone | None:
    """The zone of a host that needs no DNS: an address, or a name of this machine; else None."""
    host = url.host or ""
    literal = _ip_literal(host)
    if literal is not None:
        return zone_of(literal)
    return Zone.LOOPBACK if _is_loopback_host(host) else None


def allowed_addresses(hop: Hop, addresses: list[str]) -> list[str]:
    """Those of a host's addresses that the hop may use. Raises `ForbiddenUrl` when there are none."""
    allowed = [address for address in addresses if zone_of(address) in hop.zones]
    if addresses and not allowed:
        raise ForbiddenUrl(_forbidden_message(hop, zone_of(addresses[0])))
    return allowed


def redacted(url: URL) -> str:
    """The URL as it may be printed: no user, no query (signatures live there), no fragment."""
    return str(url.with_user(None).with_query(None).with_fragment(None)) if url.host else "(no host)"


def _parse_verbatim(text: str) -> URL:
    """Keep a URL byte for byte where it is encoded already: a signature may cover its spelling."""
    try:
        return URL(text, encoded=text.isascii() and text.isprintable() and " " not in text)
    except IndexError as error:  # yarl 1.24 on an empty host behind brackets: `https://[]@/`
        raise ValueError("its host is empty") from error


def _reason(error: ValueError) -> str:
    """Why a parser refused a URL, without quoting the URL, which may be signed."""
    return "its port is not a number from 1 to 65535" if "ort" in str(error) else "its host is malformed"


def _checked_hop(url: URL, zones: frozenset[Zone]) -> Hop:
    """Check what a URL says by itself. Raises `ForbiddenUrl`, or ValueError for what is no URL."""
    if url.scheme not in ("http", "https") or not url.host:
        raise ForbiddenUrl(f"the video's address is not an http(s) URL (scheme {url.scheme or 'missing'!r})")
    _check_authority(url)
    is_plain_http = url.scheme == "http"
    if is_plain_http:
        zones &= {Zone.LOOPBACK}
    hop = Hop(url.with_user(None).with_fragment(None), zones, is_plain_http)
    if is_plain_http and not _is_loopback_host(url.host):
        raise ForbiddenUrl(_forbidden_message(hop, Zone.PUBLIC))
    literal = _ip_literal(url.host)
    if literal is not None:
        allowed_addresses(hop, [literal])
    return hop


def _check_authority(url: URL) -> None:
    """Raise ValueError for a port or a host that no connection can be made to.

    yarl takes a URL that is already encoded as it is, so labels are checked here: 1 to 63 bytes each, 253
    in all (RFC 1035, 2.3.4). The IDNA codec raises `UnicodeError`, a ValueError, for them further down.
    """
    if not url.port:
        raise ValueError("port")
    host = url.raw_host or ""
    if _ip_literal(host) is not None:
        return
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("host")


def _forbidden_message(hop: Hop, zone: Zone) -> str:
    if hop.is_plain_http:
        return f"{hop.url.host} is asked for over plain http; only https is safe beyond this machine"
    network = "a private network" if zone is Zone.PRIVATE else "this machine" if zone is Zone.LOOPBACK else ""
    return f"{hop.url.host} leads to {network or 'an address that serves no videos'}; refused"


def _ip_literal(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return None


def _is_loopback_host(host: str) -> bool:
    literal = _ip_literal(host)
    if literal is not None:
        return zone_of(literal) is Zone.LOOPBACK
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost")
