"""What tests of several files stop and start again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.ledger_servers import PostgresServer, remove_server
from tests.integration.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that the test may stop and start."""
    made = PostgresServer(free_port())
    made.initialise()
    made.start()
    yield made
    remove_server(made)
