"""Who may see the live page: the place it listens at, the token, and the hosts it answers to.

Pure decisions over a request's headers and query. A page bound to loopback trusts this machine, but not the
other sites in its browser: a name that is rebound to 127.0.0.1 is refused by its `Host`.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from pipeline.errors import UsageError

LOOPBACK_HOST: Final = "127.0.0.1"
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class BindAddress:
    """Where to listen; port 0 lets the system choose."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Return whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_bind(text: str) -> BindAddress:
    """Read `[HOST:]PORT`, an IPv6 host in brackets; loopback when no host is given.

    Raises `UsageError` for anything else.
    """
    host, _, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not port.isdecimal() or int(port) > 65535 or (":" in host and not _is_ip_address(host)):
        raise UsageError(f"--serve takes [HOST:]PORT, not {text!r}")
    return BindAddress(host or LOOPBACK_HOST, int(port))


def is_allowed_host(bind: BindAddress, host: str) -> bool:
    """Return whether a request's `Host` header is one this server goes by."""
    if not bind.is_loopback:
        return True
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name is not None and (name in _LOOPBACK_NAMES or name == bind.host)


def token_matches(token: str, *candidates: str | None) -> bool:
    """Return whether one of `said` is `token`, in a time that does not tell how much of it was right."""
    return any(word is not None and hmac.compare_digest(word.encode(), token.encode()) for word in candidates)


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
