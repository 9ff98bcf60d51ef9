"""Carries out the faults of the CDN: one branch for each way in which a download can go wrong."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from aiohttp import web

from pipeline.sandbox.faults import broken_responses
from pipeline.sandbox.faults.altered_files import FILE_FAULTS
from pipeline.sandbox.faults.status_changes import bad_url
from pipeline.sandbox.file_response import etag_of, file_headers, parse_range, send_file

if TYPE_CHECKING:
    import asyncio

    from pipeline.sandbox.faults.injector import Fault


async def serve_faulty_download(
    request: web.Request, fault: Fault, data: bytes, shutdown: asyncio.Event
) -> web.StreamResponse:
    if fault.name in FILE_FAULTS:
        altered = FILE_FAULTS[fault.name](data)
        return await send_file(request, altered, etag_of(altered))
    response = _single_response(request, fault, data)
    if response is not None:
        return response
    match fault.name:
        case "cdn-cut" | "cdn-stall":
            return await _partial_response(request, fault, data, shutdown)
        case "cdn-trickle":
            return await send_file(request, data, etag_of(data), fault.number(200))
        case "cdn-wrong-length":
            return await _wrong_length_response(request, data, round(fault.number(1000)))
        case "cdn-changed":
            changed = data[:-8] + bytes(byte ^ 0x55 for byte in data[-8:])
            return await send_file(request, changed, etag_of(changed))
        case "cdn-corrupt":
            noise = bytes(byte ^ 0xA5 for byte in data[:4096])
            corrupt = (noise * (len(data) // max(1, len(noise)) + 1))[: len(data)]
            return await send_file(request, corrupt, etag_of(corrupt))
        case "cdn-redirect":
            return await _redirect_once(request, data)
        case "cdn-chunk-broken":
            return await _broken_chunks(request, data, fault.number(0.5))
    raise AssertionError(f"no handler for {fault.name}")


def _single_response(request: web.Request, fault: Fault, data: bytes) -> web.Response | None:
    match fault.name:
        case "cdn-error":
            return web.Response(status=round(fault.number(500)), text="<Error><Code>Trouble</Code></Error>")
        case "cdn-html":
            return broken_responses.html_page(200, "Just a moment...")
        case "cdn-empty":
            return web.Response(body=b"", content_type="video/mp4")
        case "cdn-reset":
            return broken_responses.reset_connection(request)
        case "cdn-no-range":
            return web.Response(body=data, content_type="video/mp4")
        case "cdn-gzip":
            packed = gzip.compress(data, compresslevel=1, mtime=0)
            headers = {
                "Content-Encoding": "gzip",
                "ETag": f'"{len(packed)}-gzip"',
                "Content-Type": "video/mp4",
            }
            return web.Response(body=packed, headers=headers)
        case "cdn-redirect-loop":
            return web.Response(status=302, headers={"Location": request.path_qs})
        case "cdn-redirect-bad":
            return web.Response(status=302, headers={"Location": _header_text(bad_url(fault.value))})
        case "cdn-odd-head" | "cdn-huge-header":
            whole = web.Response(body=data, content_type="video/mp4")
            return broken_responses.with_odd_head(request, whole, fault)
        case "cdn-redirect-private":
            target = fault.text("http://169.254.169.254/latest/meta-data/")
            return web.Response(status=302, headers={"Location": target})
    return None


async def _partial_response(
    request: web.Request, fault: Fault, data: bytes, shutdown: asyncio.Event
) -> web.StreamResponse:
    etag = etag_of(data)
    status, first, end = parse_range(request, len(data), etag)
    response = web.StreamResponse(status=status, headers=file_headers(status, first, end, len(data), etag))
    await response.prepare(request)
    await response.write(data[first : first + round((end - first) * fault.number(0.5))])
    if fault.name == "cdn-stall":
        await shutdown.wait()
    broken_responses.close_connection(request)
    return response


async def _wrong_length_response(request: web.Request, data: bytes, missing: int) -> web.StreamResponse:
    response = web.StreamResponse(headers=file_headers(200, 0, len(data) + missing, len(data), etag_of(data)))
    await response.prepare(request)
    await response.write(data)
    broken_responses.close_connection(request)
    return response


async def _broken_chunks(request: web.Request, data: bytes, share: float) -> web.StreamResponse:
    """Half the file in chunks, then a proxy's error page where the next chunk's length belongs."""
    response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(data[: round(len(data) * share)])
    page = broken_responses.HTML_PAGE.format("Bad Gateway").encode()
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n" + page)
    broken_responses.close_connection(request)
    return response


def _header_text(url: str) -> str:
    """The URL as a header can carry it: no control characters, no half a surrogate pair."""
    return "".join(letter for letter in url if letter.isprintable())


async def _redirect_once(request: web.Request, data: bytes) -> web.StreamResponse:
    if "hop" in request.query:
        return await send_file(request, data, etag_of(data))
    mark = "&hop=1" if request.query_string else "?hop=1"
    return web.Response(status=302, headers={"Location": request.path_qs + mark})
