"""A body read past aiohttp's parser, on real sockets: with and without TLS, on either event loop."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from pipeline.download.body_sources import BLOCK_BYTES, DirectSource, open_source
from pipeline.download.guarded_session import open_session
from pipeline.download.resumable_get import OpenBody, open_body
from tests.integration.connect_proxy import make_certificate, server_tls_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SENT = bytes(range(251)) * (2 * BLOCK_BYTES // 251 + 100)


async def fetch(tls: ssl.SSLContext | None) -> bytes:
    """Serve `SENT`, most of it once the connection was taken over while aiohttp was reading from it."""
    taken_over = asyncio.Event()

    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(SENT)
        await response.prepare(request)
        await response.write(SENT[:1000])
        await taken_over.wait()
        await response.write(SENT[1000:])
        return response

    app = web.Application()
    app.router.add_get("/clip.mp4", respond)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}/clip.mp4"
    try:
        async with open_session() as session, open_body(session, url, None, 0, 60) as body:
            assert isinstance(body, OpenBody)
            received = await body.response.content.readany()
            source = open_source(body)
            assert isinstance(source, DirectSource)
            taken_over.set()
            while not source.ended:
                received += b"".join(await source.take(60))
            assert source.failure is None
    finally:
        await runner.cleanup()
    return received


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def uvloop_factory() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop_factory])
def test_every_byte_arrives_in_its_place(
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    encrypted: bool,
) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate))
    trusting.check_hostname = False
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
    tls = server_tls_context(certificate) if encrypted else None
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(fetch(tls)) == SENT
