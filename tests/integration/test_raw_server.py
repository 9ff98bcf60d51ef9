"""What the tests' own servers owe the tests that come after them."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from tests.integration.raw_server import RawServer, never_respond
from tests.integration.vendor_double.http_server import HttpServer


async def _close_during_connect(turns: int, *, double: bool) -> None:
    server = (
        HttpServer(lambda exchange: never_respond(exchange.writer)) if double else RawServer(never_respond)
    )
    await (server.open() if isinstance(server, HttpServer) else server.__aenter__())
    with socket.create_connection(("127.0.0.1", server.port)):
        for _ in range(turns):
            await asyncio.sleep(0)
        await (server.close() if isinstance(server, HttpServer) else server.__aexit__(None, None, None))


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("turns", range(6))
def test_connection_during_server_close_is_closed(turns: int, double: bool) -> None:
    """Else the warning of its socket would be another test's."""
    asyncio.run(_close_during_connect(turns, double=double), debug=True)
    gc.collect()
