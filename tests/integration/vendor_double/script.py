"""What a job is made to live through: answers that are no answers, in the order in which they come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.integration.vendor_double.http_server import Exchange

Reply = Callable[[Exchange], Awaitable[None]]
RUNNING_STATUSES = ("waiting", "active", "queued", "generating", "processing", "pending")
GATEWAY_PAGE = b"<html><head><title>Bad Gateway</title></head><body>nginx</body></html>"


def json_reply(status: int, value: Any, **headers: str) -> Reply:
    async def reply(exchange: Exchange) -> None:
        await exchange.send_json(status, value, {n.replace("_", "-"): v for n, v in headers.items()})

    return reply


def error_reply(status: int, message: str, **headers: str) -> Reply:
    """An error in the vendor's own shape."""

    async def reply(exchange: Exchange) -> None:
        await exchange.send_json(
            status,
            error_body(status, message, exchange.request.path),
            {name.replace("_", "-"): value for name, value in headers.items()},
        )

    return reply


def error_body(status: int, message: str, path: str = "/v2/video/generations") -> dict[str, Any]:
    return {
        "message": message,
        "path": path,
        "requestId": "6f1d5e0c",
        "statusCode": str(status),
        "timestamp": "2026-08-01T00:00:00.000Z",
    }


def raw(status: int, body: bytes, kind: str = "text/html") -> Reply:
    async def reply(exchange: Exchange) -> None:
        await exchange.send(status, body, {"Content-Type": kind})

    return reply


async def reset_connection(exchange: Exchange) -> None:
    """Not a byte of an answer."""
    exchange.reset()


async def close_connection(exchange: Exchange) -> None:
    """A connection closed in good order instead of an answer."""
    exchange.close()


def cut_in_body(status: int, body: bytes, share: float = 0.5) -> Reply:
    """The head and a part of the body, then nothing more."""

    async def reply(exchange: Exchange) -> None:
        await exchange.send(
            status,
            body[: int(len(body) * share)],
            {"Content-Type": "application/json"},
            content_length=len(body),
        )
        exchange.close()

    return reply


async def cut_in_head(exchange: Exchange) -> None:
    exchange.writer.write(b"HTTP/1.1 200 OK\r\nContent-Ty")
    await exchange.writer.drain()
    exchange.close()


def hang_for(seconds: float) -> Reply:
    async def reply(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        exchange.reset()

    return reply


@dataclass(frozen=True, slots=True)
class ScriptedCreate:
    """One create that goes wrong: whether it was accepted all the same, and what the client sees."""

    accept: bool
    reply: Reply | None = None


LOST_CREATES = {
    "accepted then cut": ScriptedCreate(accept=True, reply=reset_connection),
    "502 accepted": ScriptedCreate(accept=True, reply=raw(502, GATEWAY_PAGE)),
    "502": ScriptedCreate(accept=False, reply=raw(502, GATEWAY_PAGE)),
    "504 accepted": ScriptedCreate(accept=True, reply=raw(504, b"")),
    "504": ScriptedCreate(accept=False, reply=raw(504, b"")),
    "unreadable": ScriptedCreate(accept=True, reply=raw(200, b'{"id": "81\xff\xfe', "application/json")),
    "cut unaccepted": ScriptedCreate(accept=False, reply=close_connection),
}
"""The ways in which the answer of a create is lost."""


@dataclass(slots=True)
class JobScript:
    """The life of a job; lists are used up from their beginning, then all goes well.

    `final_answer` replaces what a finished generation answers (without id). `status_replies` come before the
    first honest answer to a poll; with them the generation finishes when they are used up.
    """

    creates: list[ScriptedCreate] = field(default_factory=list)
    status_replies: list[Reply] = field(default_factory=list)
    cdn: list[Reply] = field(default_factory=list)
    final_answer: dict[str, Any] | None = None
    render_s: float | None = None
    id: str | int | None = None
    id_name: str = "id"
    accepted_status: int = 200
    running_statuses: tuple[str, ...] = RUNNING_STATUSES
    video: bytes | None = None
    in_log: bool = True
    log_late_s: float = 0.0
