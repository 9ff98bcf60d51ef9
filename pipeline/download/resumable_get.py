"""Request a file's bytes, from an offset on, through redirects that are each checked."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from pipeline.client.connection import describe_network_error
from pipeline.download import response_headers as facts
from pipeline.download.guarded_session import CURRENT_HOP, READ_BUFFER_BYTES, HopState
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
from pipeline.net.address_guard import zone_of
from pipeline.net.proxy import proxy_for, proxy_request_options
from pipeline.net.retry_after import retry_after_s

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from yarl import URL

SEND_ERRORS: Final = (aiohttp.ClientError, OSError, ValueError, RuntimeError)
"""What aiohttp, yarl and the IDNA codec raise for a URL or a response that they cannot handle."""
BODY_ERRORS: Final = (*SEND_ERRORS, HttpProcessingError)
"""What reading a body raises, `RuntimeError("Connection closed.")` for broken chunks among them."""

_REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
_EXPIRED_STATUSES: Final = frozenset({401, 403, 404, 410})


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
    token = CURRENT_HOP.set(hop_state)
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
        raise Unreachable(f"{url.host}: {describe_network_error(error, hop_state.proxy)}") from error
    finally:
        CURRENT_HOP.reset(token)
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
        # Every byte had arrived before the cut: 416 for the offset right behind the last one means complete.
        if total == offset:
            return AlreadyComplete(offset)
        raise FileChanged("the file on the server is shorter than what was received of it")
    if status in _EXPIRED_STATUSES:
        raise UrlExpired(f"{redacted(url)} answered {status} {response.reason or ''}".rstrip())
    if status not in (200, 206):
        wait_s = retry_after_s(headers)
        raise DownloadError(
            f"{redacted(url)} answered {status} {response.reason or ''}".rstrip(), retry_after_s=wait_s
        )
    byte_range = facts.parse_byte_range(status, headers)
    compressed = facts.is_compressed(headers)
    # To append these would make a file of two halves that plays up to the seam.
    if byte_range is None or (status == 206 and (compressed or byte_range.start != offset)):
        raise FileChanged("the server sent another part of the file than the one asked for")
    validators = Validators(
        place=redacted(url),
        etag=headers.get("ETag", "").strip(),
        last_modified=headers.get("Last-Modified", "").strip(),
        total_bytes=None if compressed else byte_range.total,
        resumable=not compressed,
    )
    # Servers that ignore If-Range send a part of the new file; its ETag or date gives it away.
    if byte_range.start and expected is not None and not expected.matches(validators):
        raise FileChanged("the file on the server has changed between two parts")
    return OpenBody(
        response,
        validators,
        byte_range.start,
        None if compressed else byte_range.length,
        facts.declares_page(headers),
    )
