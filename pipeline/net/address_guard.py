"""Which addresses may be asked for an image: a manifest must not make this machine read its own network.

The check is on what a name resolves to, at the moment of connecting, so that neither a redirect nor a DNS
answer that changes its mind leads inside.
"""

from __future__ import annotations

import ipaddress
import socket
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from aiohttp.abc import AbstractResolver
from aiohttp.resolver import ThreadedResolver

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64: Final = ipaddress.ip_network("64:ff9b:1::/48")


class PrivateAddressError(OSError):
    """The host is, or resolves to, an address that is not on the public internet."""


def is_public(address: str) -> bool:
    """Say whether the numeric `address` is one of the public internet, also as IPv6 wraps IPv4."""
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(str(embedded))
        if ip in _LOCAL_NAT64:
            return False
    return ip.is_global and not ip.is_multicast


def reject_private_literal(host: str) -> None:
    """Raise `PrivateAddressError` when `host` is itself a private address, which no resolver would see."""
    try:
        public = is_public(host.strip("[]"))
    except ValueError:
        return
    if not public:
        raise PrivateAddressError(f"{host} is a private address")


RESOLVING_PROXY_HOST: Final[ContextVar[bool]] = ContextVar("through_a_proxy", default=False)
"""Whether the name that is looked up is that of a proxy, which the user chose: it may be anywhere."""


class PublicResolver(AbstractResolver):
    """Resolves names, and refuses those that lead to any private address."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return what `host` resolves to; raises `PrivateAddressError`, or OSError for an unknown name."""
        results = await self._inner.resolve(host, port, family)
        for result in () if RESOLVING_PROXY_HOST.get() else results:
            if not is_public(result["host"]):
                raise PrivateAddressError(f"{host} leads to the private address {result['host']}")
        return results

    async def close(self) -> None:
        await self._inner.close()
