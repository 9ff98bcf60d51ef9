"""Owns the answers that are no answers: resets, cuts, silence, and pages from a gateway."""

from __future__ import annotations

import socket
import struct
import time
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import web

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
    """The page of a gateway in front of the vendor."""
    return html_page(status, HTTPStatus(status).phrase)


def garbage_response() -> web.Response:
    return web.Response(body=GARBAGE, content_type="application/json")


def reset_connection(request: web.BaseRequest) -> web.Response:
    """End the connection with RST; the answer that is returned goes nowhere."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=500)


async def cut_response(request: web.BaseRequest, response: web.Response) -> web.StreamResponse:
    """Announce `whole`, send half of its body, and close."""
    body = bytes(response.body) if isinstance(response.body, bytes | bytearray) else b""
    partial = web.StreamResponse(status=response.status, headers=response.headers)
    partial.headers["Content-Length"] = str(len(body))
    await partial.prepare(request)
    await partial.write(body[: len(body) // 2])
    close_connection(request)
    return partial


def close_connection(request: web.BaseRequest) -> None:
    """End the connection in order, whatever was announced."""
    if request.transport is not None:
        request.transport.close()


async def hang(shutdown: asyncio.Event) -> web.Response:
    """Say nothing until the sandbox closes or the client goes (which cancels its handler)."""
    await shutdown.wait()
    return web.Response(status=503)


def retry_after_headers(fault: Fault) -> dict[str, str]:
    """The header that the fault's `value` asks for: seconds, a date, or "date:SECONDS" from now."""
    match fault.value:
        case None:
            return {}
        case str(text) if text.startswith("date:"):
            return {"Retry-After": formatdate(time.time() + float(text[5:]), usegmt=True)}
        case str(text):
            return {"Retry-After": text}
        case seconds:
            return {"Retry-After": f"{seconds:g}"}
