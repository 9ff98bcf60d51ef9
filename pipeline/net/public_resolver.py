"""Keeps requests on the public internet: a manifest must not make this machine read its own network.

The check is on what a name resolves to, at the moment of connecting, so that neither a redirect nor a DNS
answer that changes its mind leads inside.
"""

from __future__ import annotations

import socket
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from aiohttp.abc import AbstractResolver
from aiohttp.resolver import ThreadedResolver

from pipeline.net.address_guard import is_public

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult


class PrivateAddressError(OSError):
    """The host is, or resolves to, an address that is not on the public internet."""


def reject_private_literal(host: str) -> None:
    """Raise `PrivateAddressError` when `host` is itself a private address, which no resolver would see."""
    try:
        public = is_public(host)
    except ValueError:
        return
    if not public:
        raise PrivateAddressError(f"{host} is a private address")


RESOLVING_PROXY_HOST: Final[ContextVar[bool]] = ContextVar("through_a_proxy", default=False)
"""Return whether the name that is looked up is that of a proxy, which the user chose: it may be anywhere."""


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
