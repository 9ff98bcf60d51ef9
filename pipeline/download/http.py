"""Request a file's bytes, from an offset on, through redirects that are each checked.

Owns the sockets of downloads. The connector resolves names itself, so that the address that was checked
is the address that is connected to, whatever a second DNS answer says. Where a proxy resolves the name,
only the URL itself can be checked: its scheme, and a literal address in it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.resolver import ThreadedResolver

from pipeline.download import response_headers as facts
from pipeline.download.redirects import (
    MAX_REDIRECTS,
    ForbiddenUrl,
    Hop,
    allowed_addresses,
    first_hop,
    literal_zone,
    next_hop,
    redacted,
)
from pipeline.download.response_headers import Validators
from pipeline.errors import UsageError
from pipeline.net.address_guard import Zone, zone_of
from pipeline.net.proxy import Proxy, proxy_for, proxy_request_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from yarl import URL

READ_BUFFER_BYTES: Final = 256 * 1024
"""Half of what a connection may hold unread. aiohttp's 64 KiB stops and starts the socket all the time;
1 MiB is no faster and costs eight downloads 40 MB more."""

MAX_HEADER_BYTES: Final = 64 * 1024
"""The longest header line that is read; a Content-Security-Policy alone may exceed aiohttp's 8,190."""
MAX_HEADERS: Final = 1000

SEND_ERRORS: Final = (aiohttp.ClientError, OSError, ValueError, RuntimeError)
"""What aiohttp, yarl and the IDNA codec raise for a URL or a response that they cannot handle."""
BODY_ERRORS: Final = (*SEND_ERRORS, HttpProcessingError)
"""What reading a body raises, `RuntimeError("Connection closed.")` for broken chunks among them."""

_REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
_EXPIRED_STATUSES: Final = frozenset({401, 403, 404, 410})
_CURRENT_HOP: Final[ContextVar[HopState | None]] = ContextVar("hop", default=None)


class DownloadError(Exception):
    """This try did not work; another may. The message says what happened."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unreachable(DownloadError):
    """No response at all: refused, reset, no such name, a TLS error, or a timeout."""


class UrlExpired(DownloadError):
    """401, 403, 404 or 410: the URL is no longer valid (or not yet); a fresh one may be."""


class FileChanged(DownloadError):
    """The staged bytes and the server's file do not belong together: start over from the first byte."""


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


@dataclass(frozen=True, slots=True)
class OpenBody:
    """An open response: bytes from `start` on, of the file that `validators` describe.

    `length` counts the bytes to come, None when the server does not say. `declared_page` is True when
    the Content-Type is that of a page or an error document.
    """

    response: aiohttp.ClientResponse
    validators: Validators
    start: int
    length: int | None
    declared_page: bool

    def read_buffered(self) -> bytes:
        """Return what had arrived when the connection was cut and was not read yet.

        aiohttp raises the error before it hands out the bytes it still holds; without them a short
        transfer would never make progress.
        """
        content = self.response.content
        content.set_exception(None)  # type: ignore[arg-type]  # the only public way to the bytes behind it
        return content.read_nowait() if self.validators.resumable else b""


@dataclass(frozen=True, slots=True)
class AlreadyComplete:
    """There is nothing after the offset that was asked for: the file ends right there."""

    total_bytes: int


OpenResult = OpenBody | AlreadyComplete


class GuardedResolver(AbstractResolver):
    """Resolves a hop's host to those of its addresses that the hop may use."""

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        results = await self._inner.resolve(host, port, family)
        hop_state = _CURRENT_HOP.get()
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
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(
            total=None, connect=response_timeout_s, sock_connect=response_timeout_s, sock_read=None
        ),
        headers={"User-Agent": "veobatch", "Accept": "*/*", "Accept-Encoding": "identity"},
        read_bufsize=READ_BUFFER_BYTES,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        max_headers=MAX_HEADERS,
        trust_env=False,
    )


@asynccontextmanager
async def open_body(
    session: aiohttp.ClientSession,
    url: str,
    expected: Validators | None,
    offset: int,
    response_timeout_s: float,
) -> AsyncIterator[OpenResult]:
    """Request `url` from `offset` on (0: all of it), as long as it is still the file `expected`.

    Yields an `OpenBody` that starts at `offset`, or at 0 when the file has changed or the server ignores
    ranges; or `AlreadyComplete` when nothing follows the offset. Raises `UrlExpired`, `Unreachable`,
    another `DownloadError`, or `ForbiddenUrl` for an address that no download may go to.
    """
    hop_state = _new_hop_state(first_hop(url))
    for _ in range(MAX_REDIRECTS + 1):
        response = await _send_request(session, hop_state, expected, offset, response_timeout_s)
        try:
            if response.status not in _REDIRECT_STATUSES:
                yield _classify_response(response, hop_state.hop.url, expected, offset)
                return
            hop_state = _new_hop_state(
                next_hop(hop_state.hop.url, hop_state.zone, response.headers.get("Location", ""))
            )
        finally:
            response.close()
    raise ForbiddenUrl(f"more than {MAX_REDIRECTS} redirects, the last to {redacted(hop_state.hop.url)}")


def _new_hop_state(hop: Hop) -> HopState:
    zone = literal_zone(hop.url)
    try:
        proxy = proxy_for(hop.url, os.environ)
    except UsageError as error:
        raise Unreachable(f"{hop.url.host}: {error}") from error
    return HopState(hop, set() if zone is None else {zone}, proxy)


async def _send_request(
    session: aiohttp.ClientSession,
    hop_state: HopState,
    expected: Validators | None,
    offset: int,
    response_timeout_s: float,
) -> aiohttp.ClientResponse:
    url = hop_state.hop.url
    token = _CURRENT_HOP.set(hop_state)
    try:
        async with asyncio.timeout(response_timeout_s):
            response = await session.get(
                url,
                headers=_request_headers(expected, offset),
                allow_redirects=False,
                read_bufsize=READ_BUFFER_BYTES,
                **proxy_request_options(hop_state.proxy),
            )
    except TimeoutError as error:
        via = "" if hop_state.proxy is None else f" (through {hop_state.proxy})"
        raise Unreachable(f"{url.host} did not respond within {response_timeout_s:g} s{via}") from error
    except SEND_ERRORS as error:
        raise Unreachable(f"{url.host}: {_describe_error(error, hop_state.proxy)}") from error
    finally:
        _CURRENT_HOP.reset(token)
    try:
        _check_peer(hop_state, response)
    except ForbiddenUrl:
        response.close()
        raise
    return response


def _check_peer(hop_state: HopState, response: aiohttp.ClientResponse) -> None:
    """Check the connected address too, for sessions whose resolver is not guarded."""
    if hop_state.proxy is not None:
        return
    connection = response.connection
    if connection is not None and connection.transport is not None:
        peer = connection.transport.get_extra_info("peername")
        hop_state.zones.update(zone_of(address) for address in allowed_addresses(hop_state.hop, [peer[0]]))


def _request_headers(expected: Validators | None, offset: int) -> dict[str, str]:
    """The headers of one request: uncompressed, from `offset` on, and only of the expected file."""
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if expected is not None and expected.if_range:
            headers["If-Range"] = expected.if_range
    return headers


def _classify_response(
    response: aiohttp.ClientResponse, url: URL, expected: Validators | None, offset: int
) -> OpenResult:
    status, headers = response.status, response.headers
    if status == 416 and offset:
        total = facts.unsatisfied_total(headers)
        if total == offset:
            return AlreadyComplete(offset)
        raise FileChanged("the file on the server is shorter than what was received of it")
    if status in _EXPIRED_STATUSES:
        raise UrlExpired(f"{redacted(url)} answered {status} {response.reason or ''}".rstrip())
    if status not in (200, 206):
        wait_s = _retry_after_s(headers.get("Retry-After"))
        raise DownloadError(
            f"{redacted(url)} answered {status} {response.reason or ''}".rstrip(), retry_after_s=wait_s
        )
    byte_range = facts.parse_byte_range(status, headers)
    compressed = facts.is_compressed(headers)
    if byte_range is None or (status == 206 and (compressed or byte_range.start != offset)):
        raise FileChanged("the server sent another part of the file than the one asked for")
    validators = Validators(
        place=redacted(url),
        etag=headers.get("ETag", "").strip(),
        last_modified=headers.get("Last-Modified", "").strip(),
        total_bytes=None if compressed else byte_range.total,
        resumable=not compressed,
    )
    if byte_range.start and expected is not None and not expected.matches(validators):
        raise FileChanged("the file on the server has changed between two parts")
    return OpenBody(
        response,
        validators,
        byte_range.start,
        None if compressed else byte_range.length,
        facts.declares_page(headers),
    )


def _retry_after_s(text: str | None) -> float | None:
    return float(text) if text is not None and text.strip().isascii() and text.strip().isdigit() else None


def _describe_error(error: BaseException, proxy: Proxy | None) -> str:
    if isinstance(error, aiohttp.ClientHttpProxyError) and proxy is not None:
        return proxy.tunnel_error(
            error.status, error.message
        )  # aiohttp's message holds the URL with its signature
    text = str(error).strip()
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return message if proxy is None else f"{message} (through {proxy})"
