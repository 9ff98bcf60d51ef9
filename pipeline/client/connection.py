"""How far a request to the API got, and the way it takes: directly, or through a proxy's tunnel.

It must not know what is asked or answered. A connection counts as made once TLS with the API itself is set
up: whatever a proxy does before that proves that nothing of ours was sent.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from pipeline import clocks
from pipeline.client.json_values import excerpt
from pipeline.client.vendor_clock import JUMP_S
from pipeline.errors import UsageError
from pipeline.net.http_session import make_session
from pipeline.net.proxy import Proxy, proxy_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import SimpleNamespace


MAX_CONNECT_S: Final = 30.0
"""How long after a create is called for its first byte may leave.

Its intent is dated, and the waiting for a proof of absence must not begin before a sleep that it outlived.
"""

MAX_RESPONSE_BYTES: Final = 4 * 1024 * 1024

_RESERVED: Final = re.compile(r"[^A-Za-z0-9_.~-]")


def proxy_for_api(base_url: str, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy towards an API that is sent a key: only one that opens a tunnel for TLS.

    Raises `UsageError` where a proxy would read the key, which plain http does not hide.
    """
    proxy = proxy_for(URL(base_url), environ)
    if proxy is not None and URL(base_url).scheme != "https":
        raise UsageError(
            f"{proxy} could read the key on its way to {base_url}: "
            f"give a base URL with https://, or name {URL(base_url).host} in NO_PROXY to go there directly"
        )
    return proxy


@dataclass(slots=True)
class RequestTrace:
    """How far one create got on the wire; called at `called_clock` (monotonic), `called_at` (epoch)."""

    may_create: Callable[[], bool] | None = None
    called_clock: float = field(default_factory=clocks.monotonic)
    called_at: float = field(default_factory=clocks.wall)
    connected: bool = False
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    correlation_id: str = ""

    def is_too_old(self) -> bool:
        """Return whether it was called too long ago for its intent's date, as far as any clock tells.

        The monotonic one stands still in a sleep, and the other may have been set back in it.
        """
        waited_s = clocks.monotonic() - self.called_clock
        jump_s = clocks.wall() - self.called_at - waited_s
        return waited_s > MAX_CONNECT_S or abs(jump_s) > JUMP_S


async def on_connected(
    session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceConnectionCreateEndParams
) -> None:
    trace = context.trace_request_ctx
    if isinstance(trace, RequestTrace):
        if trace.may_create is not None and not trace.may_create():
            raise aiohttp.ClientConnectionError("it was kept back: the lease on its row is over")
        if trace.is_too_old():
            raise aiohttp.ClientConnectionError("it was kept back: this process stood still before it left")
        # The last moment at which nothing was sent: any failure from here on leaves a doubt.
        trace.connected = True


def describe_network_error(error: Exception, proxy: Proxy | None) -> str:
    """Say what happened on the network, and through which proxy."""
    if proxy is None:
        return _describe_error(error)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return proxy.tunnel_error(error.status, excerpt(error.message.encode("utf-8", "replace")))
    message = f"{_describe_error(error)} (through {proxy})"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"{message}; if it opens TLS by design, name its certificate in SSL_CERT_FILE"
    return message


def _describe_error(error: Exception) -> str:
    """Say what happened on the network, without addresses of objects or an empty string."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLError):
        return f"TLS: {error}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection in the middle of its answer"
    if isinstance(error, aiohttp.ClientResponseError):
        # aiohttp's parser reports a malformed answer as one of status 400, which no server sent.
        return f"an answer that is no valid HTTP: {excerpt(error.message.encode('utf-8', 'replace'))}"
    return excerpt(str(error).encode("utf-8", "replace")) if str(error) else type(error).__name__


def open_session(
    connector: aiohttp.TCPConnector,
    timeout: aiohttp.ClientTimeout,
    traces: list[aiohttp.TraceConfig] | None = None,
) -> aiohttp.ClientSession:
    """Return a session that keeps no cookies and takes long heads; `traces` follow its connections."""
    return make_session(connector=connector, timeout=timeout, trace_configs=traces)


async def read_bounded(response: aiohttp.ClientResponse, max_bytes: int | None = None) -> bytes:
    """Read a body of bounded size; raises `ValueError` when it is larger than any answer can be."""
    limit = MAX_RESPONSE_BYTES if max_bytes is None else max_bytes
    length = response.content_length
    # `Content-Length` is the compressed size: what it unpacks to is counted as it comes.
    if length is not None and length <= limit and "Content-Encoding" not in response.headers:
        return await response.read()
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise ValueError(f"an answer of more than {limit} bytes")
    return bytes(body)


def status_url(generations: URL, generation_id: str) -> URL:
    """Return where a generation's status is asked for; ids are opaque and may hold anything.

    It is made for each poll: of a hundred thousand generations, none is in a cache when its turn comes.
    """
    return URL.build(
        scheme=generations.scheme,
        authority=generations.raw_authority,
        path=generations.raw_path,
        query_string=f"generation_id={_RESERVED.sub(_escaped, generation_id)}",
        encoded=True,
    )


def _escaped(reserved: re.Match[str]) -> str:
    return quote(reserved[0].encode("utf-8", "replace"), safe="")
