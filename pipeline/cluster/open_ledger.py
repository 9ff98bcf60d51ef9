"""Opening the ledger for a process of the cluster, whose driver has opened it a moment before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from pipeline import clocks
from pipeline.errors import LedgerError
from pipeline.events import Event, Level, Topic
from pipeline.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pipeline.cluster.messages import ClusterConfig

OPEN_TIMEOUT_S: Final = 600.0
"""How long a process that starts waits for the database."""

RETRY_INTERVAL_S: Final = 1.0


async def open_ledger(
    config: ClusterConfig,
    caller: str,
    *,
    on_pause: Callable[[str], None],
    report_event: Callable[[Event], Awaitable[None]],
) -> Ledger:
    """Open the batch's ledger, waiting for a database that is away; `report_event` gets who waits, and why.

    Raises `LedgerError` when it is still away after `OPEN_TIMEOUT_S`.
    """
    deadline = clocks.monotonic() + OPEN_TIMEOUT_S
    while True:
        try:
            return await Ledger.open(config.ledger, batch=config.batch, on_pause=on_pause)
        except LedgerError as error:
            if clocks.monotonic() > deadline:
                raise
            await report_event(Event(Topic.WAITING, f"{caller}: {error}: waiting", Level.WARNING))
        await anyio.sleep(RETRY_INTERVAL_S)
