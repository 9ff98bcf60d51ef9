"""Clips and posters over HTTP, from wherever the output is: whole, or the range that a player asks for.

Whoever watches gets no address of the store and no signature: the bytes come through this server, in blocks
that are asked for one by one, so that a player that is paused holds no connection to the store and a slow
disk holds up nobody else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from aiohttp import hdrs, web

from pipeline.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.storage import OutputStore
    from pipeline.storage.base import FileStamp

MEDIA_FOLDERS: Final = frozenset({"videos", "posters"})
_CONTENT_TYPES: Final = {".mp4": "video/mp4", ".jpg": "image/jpeg"}
_BLOCK_BYTES: Final = 1024 * 1024
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class _Stamped(NamedTuple):
    path: str
    stamp: FileStamp


class _Span(NamedTuple):
    """The bytes to send, the end not included, and whether that is a part of the file."""

    start: int
    end: int
    is_part: bool


def media_type(folder: str, path: str) -> str | None:
    """Return the content type of a file of the gallery; None for whatever else may be beside it."""
    parts = path.split("/")
    if folder not in MEDIA_FOLDERS or "\0" in path or any(not part or part.startswith(".") for part in parts):
        return None
    return _CONTENT_TYPES.get(path[-4:])


async def serve_media(
    request: web.Request, store: OutputStore, folder: str, path: str, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Answer GET and HEAD for a file of the gallery. `headers` go on every answer.

    Raises 404 for what is not there, 416 for a range beyond the end, 503 when the store does not answer.
    """
    content_type = media_type(folder, path)
    try:
        stamp = await store.stamp(f"{folder}/{path}") if content_type else None
    except StoreError:
        raise web.HTTPServiceUnavailable(text="The files cannot be reached.\n") from None
    if stamp is None:
        raise web.HTTPNotFound(text="No such file.\n")
    span = _wanted(request, stamp)
    response = web.StreamResponse(status=206 if span.is_part else 200, headers=headers)
    response.headers.update({"Accept-Ranges": "bytes", "ETag": _etag(stamp)})
    response.content_type, response.content_length = content_type or "", span.end - span.start
    if span.is_part:
        response.headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{stamp.size_bytes}"
    await response.prepare(request)
    if request.method != hdrs.METH_HEAD:
        await _send(request, response, store, _Stamped(f"{folder}/{path}", stamp), span)
    return response


async def _send(
    request: web.Request, response: web.StreamResponse, store: OutputStore, stamped: _Stamped, span: _Span
) -> None:
    try:
        for start in range(span.start, span.end, _BLOCK_BYTES):
            end = min(span.end, start + _BLOCK_BYTES)
            await response.write(await store.read_range(stamped.path, stamped.stamp, start, end))
    except (StoreError, ConnectionResetError):
        # Gone, replaced or out of reach half-way: the player must not take what it has for the whole.
        if request.transport is not None:
            request.transport.abort()


def _wanted(request: web.Request, stamp: FileStamp) -> _Span:
    """Return what a request asks for: one range, or the whole file where it asks for none that we know."""
    size = stamp.size_bytes
    match = _RANGE.fullmatch(request.headers.get(hdrs.RANGE, ""))
    same = request.headers.get(hdrs.IF_RANGE, _etag(stamp)) == _etag(stamp)
    if match is None or not any(match.groups()) or not same:
        return _Span(0, size, is_part=False)
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= end:
        raise web.HTTPRequestRangeNotSatisfiable(headers={hdrs.CONTENT_RANGE: f"bytes */{size}"})
    return _Span(start, end, is_part=True)


def _etag(stamp: FileStamp) -> str:
    return f'"{stamp.etag.strip(chr(34)) or stamp.mtime_ns}-{stamp.size_bytes}"'
