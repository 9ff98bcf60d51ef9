"""What the tests' own servers owe the tests that come after them."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from tests.integration.vendor_double.wire import Server
from tests.integration.wires import Wire, hangs


async def _closed_while_someone_comes(turns: int, *, double: bool) -> None:
    server = Server(lambda exchange: hangs(exchange.writer)) if double else Wire(hangs)
    await (server.open() if isinstance(server, Server) else server.__aenter__())
    with socket.create_connection(("127.0.0.1", server.port)):
        for _ in range(turns):
            await asyncio.sleep(0)
        await (server.close() if isinstance(server, Server) else server.__aexit__(None, None, None))


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("turns", range(6))
def test_whoever_comes_as_a_server_closes_is_let_go(turns: int, double: bool) -> None:
    """Else the warning of its socket would be another test's."""
    asyncio.run(_closed_while_someone_comes(turns, double=double), debug=True)
    gc.collect()
