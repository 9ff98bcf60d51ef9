"""A client on a bare socket: it sees what a library hides, like cuts, resets and silence."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from pipeline.sandbox import Sandbox, SandboxOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ResponseEnding = Literal["whole", "cut", "reset", "silent"]
AUTH_HEADERS = {"Authorization": "Bearer some-key"}
GENERATIONS_PATH = "/v2/video/generations"
VALID_BODY: dict[str, Any] = {
    "model": "google/veo-3.1-i2v-fast",
    "prompt": "A cat yawns at the moon.",
    "image_url": "https://example.com/cat.jpg",
    "duration": 4,
    "resolution": "720p",
}


@dataclass(frozen=True, slots=True)
class RawResponse:
    """What came back: how it ended, and as much of it as came. Header names are lower case."""

    ending: ResponseEnding
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


async def send_request(
    url: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    timeout_s: float = 20.0,
    request_received: Callable[[], bool] = lambda: True,
) -> RawResponse:
    """One request on a connection of its own; an answer that does not end within `timeout_s` is "silent".

    The timeout begins once `request_received` says so.
    """
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {path or '/'} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines += [f"Content-Length: {len(body)}"] if body else []
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    received = bytearray()
    end: ResponseEnding | None = None
    while not request_received():  # noqa: ASYNC110 - the sandbox has no event for it
        await asyncio.sleep(0.001)
    try:
        async with asyncio.timeout(timeout_s):
            while part := await reader.read(65536):
                received += part
    except TimeoutError:
        end = "silent"
    except ConnectionResetError:
        end = "reset"
    finally:
        writer.close()
    return _parse_response(bytes(received), end, method)


def _parse_response(received: bytes, end: ResponseEnding | None, method: str) -> RawResponse:
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return RawResponse(end or "cut")
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    announced = int(headers.get("content-length", len(body)))
    whole = method == "HEAD" or len(body) == announced
    return RawResponse(end or ("whole" if whole else "cut"), int(first.split()[1]), headers, body)


async def create(
    sandbox: Sandbox,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 20.0,
    request_received: Callable[[], bool] = lambda: True,
    **fields: Any,
) -> RawResponse:
    """Create a short 720p clip; `fields` override its body, None takes a field out."""
    body = {name: value for name, value in {**VALID_BODY, **fields}.items() if value is not None}
    sent = {**AUTH_HEADERS, "Content-Type": "application/json", **(headers or {})}
    return await send_request(
        sandbox.url + GENERATIONS_PATH, "POST", sent, json.dumps(body).encode(), timeout_s, request_received
    )


async def get_status(
    sandbox: Sandbox,
    generation_id: object,
    timeout_s: float = 20.0,
    request_received: Callable[[], bool] = lambda: True,
) -> RawResponse:
    """Ask for a generation's status."""
    query = quote(str(generation_id), safe="")
    url = f"{sandbox.url}{GENERATIONS_PATH}?generation_id={query}"
    return await send_request(
        url, headers=AUTH_HEADERS, timeout_s=timeout_s, request_received=request_received
    )


async def video_url(sandbox: Sandbox, **fields: Any) -> str:
    """Create a generation in a sandbox that renders at once, and return the URL of its file."""
    made = (await create(sandbox, **fields)).json()
    url = (await get_status(sandbox, made["id"])).json()["video"]["url"]
    assert isinstance(url, str)
    return url


def instant_render_options(**options: Any) -> SandboxOptions:
    """Options of a sandbox whose tiny clips are rendered at once."""
    return SandboxOptions(**{"durations": "fixed:0", "video": "small", "log_lag_s": 0.0, **options})
