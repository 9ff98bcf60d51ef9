"""What tests of several files stop and start again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.ports import free_port
from tests.small_clips import make_clips_small

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.ledger_servers import PostgresServer


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that the test may stop and start."""
    from tests.integration.ledger_servers import PostgresServer, remove_server  # needs an extra

    made = PostgresServer(free_port())
    made.initialise()
    made.start()
    yield made
    remove_server(made)


@pytest.fixture
def small_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small clips from sandboxes in this process, where nothing looks at their size."""
    make_clips_small(monkeypatch.setattr)
