"""How a file is served over HTTP: whole or in part, with an ETag, at a limited rate."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final

from aiohttp import web

CHUNK_BYTES: Final = 64 * 1024


def etag_of(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def parse_range(request: web.Request, size: int, etag: str) -> tuple[int, int, int]:
    """(status, first, end) of the requested bytes: 200 whole, 206 a part, 416 none.

    A range counts only if `If-Range` is absent or names this very file (RFC 9110, 13.1.5).
    """
    try:
        wanted = request.http_range
    except ValueError:
        return 200, 0, size
    if "Range" not in request.headers or request.headers.get("If-Range", etag) != etag:
        return 200, 0, size
    first, end = wanted.start or 0, wanted.stop if wanted.stop is not None else size
    if first < 0:
        first, end = max(0, size + first), size
    if first >= size:
        return 416, 0, 0
    return 206, first, min(end, size)


def file_headers(status: int, first: int, end: int, size: int, etag: str) -> dict[str, str]:
    headers = {"Content-Type": "video/mp4", "ETag": etag, "Accept-Ranges": "bytes"}
    headers["Content-Length"] = str(end - first)
    if status == 206:
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
    if status == 416:
        headers["Content-Range"] = f"bytes */{size}"
    return headers


async def send_file(
    request: web.Request, data: bytes, etag: str, bytes_per_s: float | None = None
) -> web.StreamResponse:
    """Answer with the file or the requested part of it, at `bytes_per_s` at most."""
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers={"ETag": etag})
    status, first, end = parse_range(request, len(data), etag)
    response = web.StreamResponse(status=status, headers=file_headers(status, first, end, len(data), etag))
    await response.prepare(request)
    if request.method != "HEAD":
        step = CHUNK_BYTES if bytes_per_s is None else max(1, min(CHUNK_BYTES, round(bytes_per_s / 20)))
        for start in range(first, end, step):
            part = data[start : min(start + step, end)]
            await response.write(part)
            if bytes_per_s is not None:
                await asyncio.sleep(len(part) / bytes_per_s)
    await response.write_eof()
    return response
