"""Opening the ledger for a process of the cluster, whose driver has opened it a moment before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import anyio

from pipeline.errors import LedgerTrouble
from pipeline.events import Event, Level, Topic
from pipeline.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pipeline.cluster.messages import ClusterJob

PATIENCE_S: Final = 600.0
"""How long whoever starts waits for the database."""

PAUSE_S: Final = 1.0


async def open_ledger(
    job: ClusterJob,
    who: str,
    *,
    on_pause: Callable[[str], None],
    say: Callable[[Event], Awaitable[None]],
) -> Ledger:
    """Open the batch's ledger, waiting for a database that is away; `say` is told who waits, and why.

    Raises `LedgerTrouble` when it is still away after `PATIENCE_S`.
    """
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await Ledger.open(job.ledger, batch=job.batch, on_pause=on_pause)
        except LedgerTrouble as trouble:
            if time.monotonic() > until:
                raise
            await say(Event(Topic.WAITING, f"{who}: {trouble}: waiting", Level.WARNING))
        await anyio.sleep(PAUSE_S)
