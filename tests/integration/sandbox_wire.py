"""A client on a bare socket: it sees what a library would tidy away, like cuts, resets and silence."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from pipeline.sandbox import Sandbox, SandboxOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

End = Literal["whole", "cut", "reset", "silent"]
KEY = {"Authorization": "Bearer some-key"}
CREATE = "/v2/video/generations"
GOOD: dict[str, Any] = {
    "model": "google/veo-3.1-i2v-fast",
    "prompt": "A cat yawns at the moon.",
    "image_url": "https://example.com/cat.jpg",
    "duration": 4,
    "resolution": "720p",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: how it ended, and as much of it as came. Header names are lower case."""

    end: End
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    url: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    patience_s: float = 20.0,
    heard: Callable[[], bool] = lambda: True,
) -> Answer:
    """One request on a connection of its own; an answer that does not end within `patience_s` is "silent".

    Patience begins once the request was `heard`.
    """
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {path or '/'} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines += [f"Content-Length: {len(body)}"] if body else []
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    received = bytearray()
    end: End | None = None
    while not heard():  # noqa: ASYNC110 - the box has no event for it
        await asyncio.sleep(0.001)
    try:
        async with asyncio.timeout(patience_s):
            while part := await reader.read(65536):
                received += part
    except TimeoutError:
        end = "silent"
    except ConnectionResetError:
        end = "reset"
    finally:
        writer.close()
    return _read(bytes(received), end, method)


def _read(received: bytes, end: End | None, method: str) -> Answer:
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return Answer(end or "cut")
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    announced = int(headers.get("content-length", len(body)))
    whole = method == "HEAD" or len(body) == announced
    return Answer(end or ("whole" if whole else "cut"), int(first.split()[1]), headers, body)


async def create(
    box: Sandbox,
    headers: Mapping[str, str] | None = None,
    patience_s: float = 20.0,
    heard: Callable[[], bool] = lambda: True,
    **fields: Any,
) -> Answer:
    """Create a short 720p clip; `fields` override its body, None takes a field out."""
    body = {name: value for name, value in {**GOOD, **fields}.items() if value is not None}
    sent = {**KEY, "Content-Type": "application/json", **(headers or {})}
    return await ask(box.url + CREATE, "POST", sent, json.dumps(body).encode(), patience_s, heard)


async def status(
    box: Sandbox,
    generation_id: object,
    patience_s: float = 20.0,
    heard: Callable[[], bool] = lambda: True,
) -> Answer:
    """Ask how a generation stands."""
    query = quote(str(generation_id), safe="")
    url = f"{box.url}{CREATE}?generation_id={query}"
    return await ask(url, headers=KEY, patience_s=patience_s, heard=heard)


async def video_url(box: Sandbox, **fields: Any) -> str:
    """Create a generation in a box that renders at once, and return its file's URL."""
    made = (await create(box, **fields)).json()
    url = (await status(box, made["id"])).json()["video"]["url"]
    assert isinstance(url, str)
    return url


def at_once(**options: Any) -> SandboxOptions:
    """Options of a box whose tiny clips are rendered at once."""
    return SandboxOptions(**{"durations": "fixed:0", "video": "small", "log_lag_s": 0.0, **options})
