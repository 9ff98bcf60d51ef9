"""What is closed while its task is being cancelled, as a second signal or a caller's time limit does it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio
import pytest

from pipeline.client import Api
from pipeline.results.live import BindAddress, ChangeFeed, LivePage
from pipeline.sandbox import Sandbox, SandboxOptions
from pipeline.storage.local import LocalStore
from tests.integration.client_calls import KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Served = Callable[[Path], AbstractAsyncContextManager[list[str]]]


@pytest.mark.parametrize("steps", [None, 0, 1, 2, 3])
async def test_no_session_of_the_client_stays_open(steps: int | None) -> None:
    """Cancelled by its scope, or by its task and so many steps later once more, as by a second Ctrl-C."""
    async with Sandbox(SandboxOptions()) as box:
        api, ready, scope = Api(box.url, KEY), anyio.Event(), anyio.CancelScope()

        async def work() -> None:
            with scope:
                async with api:
                    await api.get_status("a:b/c")
                    ready.set()
                    await anyio.sleep_forever()

        task = asyncio.create_task(work())
        await ready.wait()
        if steps is None:
            scope.cancel()
        else:
            task.cancel()
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task])
        sessions = api._create_session, api._read_session, api.keyless_session
        assert [session.closed for session in sessions] == [True, True, True]


@asynccontextmanager
async def sandbox_urls(folder: Path) -> AsyncIterator[list[str]]:
    async with Sandbox(SandboxOptions(journal=folder / "sandbox.jsonl")) as box:
        yield [box.url, box.cdn_url]


@asynccontextmanager
async def page_urls(folder: Path) -> AsyncIterator[list[str]]:
    store, place = LocalStore(folder), BindAddress("127.0.0.1", 0)
    async with LivePage(ChangeFeed([]), place, title="t", manifest="m.yaml", store=store) as page:
        yield [page.url]


@pytest.mark.parametrize("served", [sandbox_urls, page_urls])
async def test_no_server_keeps_a_connection_or_a_port(tmp_path: Path, served: Served) -> None:
    with anyio.CancelScope() as scope:
        async with served(tmp_path) as urls:
            places = [(url.hostname, url.port) for url in map(urlsplit, urls)]
            connections = [await asyncio.open_connection(*place) for place in places]
            for reader, writer in connections:
                writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert await reader.readline()  # it is answered, and kept for another request
            scope.cancel()
            await anyio.sleep_forever()
    async with asyncio.timeout(60):
        for reader, writer in connections:
            await reader.read()
            writer.close()
            await writer.wait_closed()
    for place in places:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*place)
