"""What the tests of the client share: a key, one call on one wire, and answers that prove nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pipeline.client import Api, ApiKey, CreateVerdict, Look, LookTrouble
from tests.integration.wires import Wire, raw, says, sends

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    Act = Callable[[asyncio.StreamWriter], Awaitable[None]]


SECRET = "sk-hush-0123456789"
KEY = ApiKey(SECRET, "AIML_API_KEY")
BODY = json.dumps({"model": "m", "prompt": "Ünïcode 🎬"}, ensure_ascii=False)
GOOD = {"id": "a:b/c", "status": "queued", "video": None, "error": None}
UNKNOWNS = {
    "an empty 200": sends(raw(200, {"Content-Length": "0"})),
    "a 200 without an id": says(200, {"status": "queued"}),
    "a 200 of no JSON": says(200, b"<html>"),
    "a 200 cut in its body": sends(raw(200, {"Content-Length": "500"}) + b'{"id": "g'),
    "a 200 reset in its body": sends(raw(200, {"Content-Length": "500"}) + b'{"id": "g', reset=True),
    "a 200 of half characters": says(200, b'{"id": "\xff"}'),
    "a close without a word": sends(b""),
    "a reset without a word": sends(b"", reset=True),
    "half a status line": sends(b"HTTP/1.1 20"),
    "half a head": sends(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "no HTTP": sends(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "a head without an end": sends(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000),
}


def words_of(verdict: object) -> str:
    """All that a verdict says, for a look through it."""
    return repr(verdict)


async def create(act: Act, *, early: bool = False, timeout_s: float = 20.0) -> tuple[CreateVerdict, Wire]:
    async with Wire(act, early=early) as wire, Api(wire.url + "/v2/", KEY, timeout_s=timeout_s) as api:
        return await api.create(BODY, "vb.x.1"), wire


async def look(
    act: Act, generation_id: str = "g", *, timeout_s: float = 20.0
) -> tuple[Look | LookTrouble, Wire]:
    async with Wire(act) as wire, Api(wire.url, KEY, timeout_s=timeout_s) as api:
        return await api.look(generation_id), wire


def vendor(status: int, message: str) -> dict[str, Any]:
    return {"message": message, "path": "/v2", "requestId": "r", "statusCode": str(status), "timestamp": "t"}
