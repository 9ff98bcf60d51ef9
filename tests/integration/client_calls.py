"""What the tests of the client share: a key, one call on one wire, and answers that prove nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pipeline.client import Api, ApiKey, CreateResult, GenerationStatus, StatusError
from tests.integration.raw_server import RawServer, respond_with, response_head, send_and_close

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    ConnectionHandler = Callable[[asyncio.StreamWriter], Awaitable[None]]


SECRET = "sk-hush-0123456789"
KEY = ApiKey(SECRET, "AIML_API_KEY")
BODY = json.dumps({"model": "m", "prompt": "Ünïcode 🎬"}, ensure_ascii=False)
QUEUED_RESPONSE = {"id": "a:b/c", "status": "queued", "video": None, "error": None}
UNREADABLE_RESPONSES = {
    "an empty 200": send_and_close(response_head(200, {"Content-Length": "0"})),
    "a 200 without an id": respond_with(200, {"status": "queued"}),
    "a 200 of no JSON": respond_with(200, b"<html>"),
    "a 200 cut in its body": send_and_close(response_head(200, {"Content-Length": "500"}) + b'{"id": "g'),
    "a 200 reset in its body": send_and_close(
        response_head(200, {"Content-Length": "500"}) + b'{"id": "g', reset=True
    ),
    "a 200 of half characters": respond_with(200, b'{"id": "\xff"}'),
    "a close without a word": send_and_close(b""),
    "a reset without a word": send_and_close(b"", reset=True),
    "half a status line": send_and_close(b"HTTP/1.1 20"),
    "half a head": send_and_close(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "no HTTP": send_and_close(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "a head without an end": send_and_close(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000),
}


def text_of(result: object) -> str:
    """All that a verdict says, for a look through it."""
    return repr(result)


async def create(
    handler: ConnectionHandler, *, early: bool = False, timeout_s: float = 20.0
) -> tuple[CreateResult, RawServer]:
    async with (
        RawServer(handler, before_request=early) as wire,
        Api(wire.url + "/v2/", KEY, timeout_s=timeout_s) as api,
    ):
        return await api.create(BODY, "vb.x.1"), wire


async def get_status(
    handler: ConnectionHandler, generation_id: str = "g", *, timeout_s: float = 20.0
) -> tuple[GenerationStatus | StatusError, RawServer]:
    async with RawServer(handler) as wire, Api(wire.url, KEY, timeout_s=timeout_s) as api:
        return await api.get_status(generation_id), wire


def error_body(status: int, message: str) -> dict[str, Any]:
    return {"message": message, "path": "/v2", "requestId": "r", "statusCode": str(status), "timestamp": "t"}
