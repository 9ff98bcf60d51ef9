"""Answers that are broken: resets, cuts, silence, and pages from a gateway."""

from __future__ import annotations

import socket
import struct
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from aiohttp import web

from pipeline.sandbox.call import require_call
from pipeline.sandbox.responses import status_phrase

if TYPE_CHECKING:
    import asyncio

    from pipeline.sandbox.faults.injector import Fault

HTML_PAGE: Final = (
    "<!doctype html><html><head><title>{0}</title></head><body><h1>{0}</h1><hr>gateway</body></html>"
)
GARBAGE: Final = b'\x1f\x8b{"id": "tru\xff\xfe\x00ncated'


def html_page(status: int, title: str) -> web.Response:
    return web.Response(status=status, text=HTML_PAGE.format(title), content_type="text/html")


def gateway_page(status: int) -> web.Response:
    return html_page(status, status_phrase(status))


def garbage_response() -> web.Response:
    return web.Response(body=GARBAGE, content_type="application/json")


def reset_connection(request: web.BaseRequest) -> web.Response:
    """End the connection with RST; the returned response is never sent."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=500)


async def cut_response(request: web.BaseRequest, response: web.Response) -> web.StreamResponse:
    """Announce all of `response`, send half of its body, and close."""
    body = bytes(response.body) if isinstance(response.body, bytes | bytearray) else b""
    partial = web.StreamResponse(status=response.status, headers=response.headers)
    partial.headers["Content-Length"] = str(len(body))
    await partial.prepare(request)
    await partial.write(body[: len(body) // 2])
    close_connection(request)
    return partial


def close_connection(request: web.BaseRequest) -> None:
    """Close the connection properly, whatever was announced."""
    if request.transport is not None:
        request.transport.close()


async def hang(shutdown: asyncio.Event) -> web.Response:
    """Do not answer until the sandbox stops or the client disconnects, which cancels the handler."""
    await shutdown.wait()
    return web.Response(status=503)


def with_odd_head(request: web.BaseRequest, response: web.Response, fault: Fault) -> web.Response:
    """`response` with a head that parsers refuse, for the faults that end in `odd-head` and `huge-header`."""
    if fault.name.endswith("huge-header"):
        return _add_huge_header(response, fault)
    return _send_odd_head(request, response, fault)


def _add_huge_header(response: web.Response, fault: Fault) -> web.Response:
    """Add one header of `value` (12,000) bytes; many clients refuse one of more than 8,190."""
    sources = "https://cdn.example.com "
    size = round(fault.number(12_000))
    policy = "default-src " + sources * (size // len(sources) + 1)
    response.headers["Content-Security-Policy"] = policy[:size].rstrip()
    return response


ODD_HEADS: Final = ("many-headers", "double-length", "space-before-colon", "bytes-after", "bare-newlines")


def _send_odd_head(request: web.BaseRequest, response: web.Response, fault: Fault) -> web.Response:
    """Send `response` with one of `ODD_HEADS`, written past the library, which would refuse most of them.

    The returned response is never sent.
    """
    kind = fault.text(ODD_HEADS[0])
    body = bytes(response.body) if isinstance(response.body, bytes | bytearray) else b""
    headers = {**response.headers, "Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"{name}: {value}" for name, value in headers.items()]
    match kind:
        case "many-headers":
            lines += [f"X-Trace-{number}: {number}" for number in range(300)]
        case "double-length":
            lines.append(f"Content-Length: {len(body)}")
        case "space-before-colon":
            lines.append("X-Odd : yes")
    newline = "\n" if kind == "bare-newlines" else "\r\n"
    head = newline.join([f"HTTP/1.1 {response.status} {status_phrase(response.status)}", *lines, "", ""])
    if request.transport is not None:
        request.transport.write(head.encode() + body + (b"\r\n\r\n" if kind == "bytes-after" else b""))
    close_connection(request)
    return web.Response(status=500)


def retry_after_headers(fault: Fault) -> dict[str, str]:
    """The header for the fault's `value`: seconds, a date, or "date:SECONDS" from the vendor's now."""
    match fault.value:
        case None:
            return {}
        case str(text) if text.startswith("date:"):
            return {"Retry-After": formatdate(require_call().vendor_time + float(text[5:]), usegmt=True)}
        case str(text):
            return {"Retry-After": text}
        case seconds:
            return {"Retry-After": f"{seconds:g}"}
