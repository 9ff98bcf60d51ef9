"""Which proxy a request goes through, by the variables that other tools read too. Pure: no sockets.

`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in either case. It must not know what is sent:
whether a secret may go through a proxy is its sender's decision. Nothing of `~/.netrc` and
nothing of the system's own settings is read, so that what happens can be seen in the environment.

Source: curl's manual, "Environment variables" and `--noproxy`.
"""

from __future__ import annotations

import ipaddress
import re
from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from yarl import URL

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_VARIABLES: Final = {
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
    "http": ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"),
}
_NO_PROXY_VARIABLES: Final = ("no_proxy", "NO_PROXY")
_NO_PROXY_ENTRY: Final = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<name>[^:]*))(?::(?P<port>\d+))?")

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy without its user, the variable that named it, and its `Proxy-Authorization` value."""

    url: URL
    source: str
    authorization: str = field(default="", repr=False)

    def tunnel_error(self, status: int, reason: str) -> str:
        """Say that the proxy opened no tunnel, and what may help."""
        message = f"{self} opened no tunnel: HTTP {status} {reason}".rstrip()
        if status == 407:
            return (
                f"{message}; write its user into the variable: {self.source}=http://user:password@host:port"
            )
        return message

    def __str__(self) -> str:
        return f"the proxy {self.url.origin()} of {self.source}"


def proxy_for(url: URL, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy that `environ` names for `url`, None when the request goes straight to its host.

    This machine is never asked for through a proxy. Raises `UsageError` for a proxy that cannot be used;
    the message shows no more of the variable than its name and its scheme.
    """
    host = (url.host or "").rstrip(".").lower()
    if not host or is_local_host(host):
        return None
    source = next((name for name in _VARIABLES.get(url.scheme, ()) if environ.get(name, "").strip()), "")
    if not source:
        return None
    no_proxy = next((environ[name] for name in _NO_PROXY_VARIABLES if environ.get(name, "").strip()), "")
    if bypasses_proxy(host, url.port, no_proxy):
        return None
    return _parse_proxy(environ[source].strip(), source)


def proxy_request_options(proxy: Proxy | None) -> dict[str, Any]:
    """Return the options of an aiohttp request that lead it through `proxy`.

    The user goes as a header that the proxy alone is sent, never in the URL, which errors show.
    """
    if proxy is None:
        return {}
    headers = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
    return {"proxy": proxy.url, "proxy_headers": headers}


def is_local_host(host: str) -> bool:
    """Return whether a host's name or address says by itself that it is this machine."""
    address = _parse_ip(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    unwrapped = getattr(address, "ipv4_mapped", None) or address
    return bool(unwrapped.is_loopback or unwrapped.is_unspecified)


def bypasses_proxy(host: str, port: int | None, no_proxy: str) -> bool:
    """Whether `NO_PROXY` names the host: `*`, a domain (and all below it), an address, a network.

    Entries are divided by commas or blanks; one with a port holds for that port only.
    """
    return any(_entry_matches(entry, host, port) for entry in re.split(r"[,\s]+", no_proxy.lower()) if entry)


def _entry_matches(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    address = _parse_ip(host)
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        network = None
    if network is not None:
        return address is not None and address in network
    match = _NO_PROXY_ENTRY.fullmatch(entry)
    if match is None or (match["port"] and int(match["port"]) != port):
        return False
    if match["six"] is not None or address is not None:
        return address is not None and _parse_ip(match["six"] or match["name"] or "") == address
    name = match["name"].removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _parse_proxy(text: str, source: str) -> Proxy:
    scheme, divider, _ = text.partition("://")
    if divider and scheme.lower() not in ("http", "https"):
        scheme_text = scheme if scheme.isalnum() else "?"
        raise UsageError(
            f"{source} names a {scheme_text}:// proxy; only http:// and https:// ones can be used. "
            "Name one of those in HTTPS_PROXY, or leave hosts out of it with NO_PROXY"
        )
    try:
        url = URL(text if divider else f"http://{text}")
        usable = bool(url.host and url.port) and not (
            url.query_string or url.fragment or re.search(r"\s", text)
        )
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            f"{source} cannot be used as a proxy: it should look like http://host:port or "
            "http://user:password@host:port, with %40 for @, %23 for # and the like in the password"
        )
    authorization = ""
    if url.user or url.password:
        authorization = "Basic " + b64encode(
            f"{url.user or ''}:{url.password or ''}".encode("utf-8", "surrogateescape")
        ).decode("ascii")
    return Proxy(url.origin(), source, authorization)


def _parse_ip(host: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
