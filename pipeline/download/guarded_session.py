"""The sockets of downloads.

The connector resolves names itself, so that the address that was checked is the address that is connected to,
whatever a second DNS answer says. Where a proxy resolves the name, only the URL itself can be checked: its
scheme, and a literal address in it.
"""

from __future__ import annotations

import socket
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from pipeline.download.redirects import Hop, allowed_addresses
from pipeline.net.address_guard import Zone, zone_of
from pipeline.net.http_session import make_session

if TYPE_CHECKING:
    from pipeline.net.proxy import Proxy

READ_BUFFER_BYTES: Final = 256 * 1024
"""Half of what a connection may hold unread. aiohttp's 64 KiB stops and starts the socket all the time;
1 MiB is no faster and costs eight downloads 40 MB more."""

CURRENT_HOP: Final[ContextVar[HopState | None]] = ContextVar("hop", default=None)


@dataclass(slots=True)
class HopState:
    """One request of a chain: its hop, and the zones its connection may have been made to.

    Behind a `proxy` the address is not visible from here: it counts as public, so that a redirect from
    there may lead nowhere that a public server could not point to.
    """

    hop: Hop
    zones: set[Zone]
    proxy: Proxy | None = None

    @property
    def zone(self) -> Zone:
        """The zone that a redirect from here counts as coming from: the most public one of several."""
        return next(
            (zone for zone in (Zone.PUBLIC, Zone.PRIVATE, Zone.LOOPBACK) if zone in self.zones), Zone.PUBLIC
        )


class GuardedResolver(AbstractResolver):
    """Resolves a hop's host to those of its addresses that the hop may use."""

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        results = await self._inner.resolve(host, port, family)
        hop_state = CURRENT_HOP.get()
        if hop_state is None or hop_state.proxy is not None:  # the name being resolved is the proxy's
            return results
        allowed = set(allowed_addresses(hop_state.hop, [entry["host"] for entry in results]))
        hop_state.zones.update(zone_of(address) for address in allowed)
        return [entry for entry in results if entry["host"] in allowed]

    async def close(self) -> None:
        await self._inner.close()


def open_session(
    *, resolver: AbstractResolver | None = None, response_timeout_s: float = 30.0
) -> aiohttp.ClientSession:
    """Open the session for downloads: no key, no cookies, no netrc, names resolved under guard.

    `response_timeout_s` bounds the wait for a connection and for the headers; a body has no total time.
    Must be called inside a running loop.
    """
    connector = aiohttp.TCPConnector(
        limit=0,
        use_dns_cache=False,  # a cached answer would skip the check that belongs to this hop
        force_close=True,  # and so would a connection that was opened under another hop's rules
        family=socket.AF_UNSPEC,
        resolver=GuardedResolver(resolver or ThreadedResolver()),
    )
    return make_session(
        connector=connector,
        timeout=aiohttp.ClientTimeout(
            total=None, connect=response_timeout_s, sock_connect=response_timeout_s, sock_read=None
        ),
        headers={"User-Agent": "veobatch", "Accept": "*/*", "Accept-Encoding": "identity"},
        read_bufsize=READ_BUFFER_BYTES,
    )
