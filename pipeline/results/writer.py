"""Keeps results.csv current while a run goes on, and writes CSV and report at its end.

Both are projections of the records: never a second source of truth, rewritten whole and atomically.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from pipeline import system
from pipeline.errors import StoreError
from pipeline.results import CSV_NAME, REPORT_NAME, csv, report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.events import Event
    from pipeline.ledger.totals import Totals
    from pipeline.model import Record
    from pipeline.storage import OutputStore

MIN_REWRITE_INTERVAL_S: Final = 1.0
REWRITE_COST_FACTOR: Final = 20.0
"""A rewrite may take a twentieth of the time, so that a huge batch does not spend its night on its CSV."""


class ResultsWriter:
    """An observer that notices changes, and the task that writes them."""

    def __init__(self, store: OutputStore, *, title: str, manifest: str, sandbox: bool = False) -> None:
        self._store = store
        self._sandbox = sandbox
        self._title = title
        self._manifest = manifest
        self._dirty = True

    def on_transition(self, before: Record, after: Record) -> None:
        self._dirty = True

    def on_event(self, event: Event) -> None:
        """Events do not change the CSV."""

    async def rewrite_on_change(self, records: Callable[[], Sequence[Record]]) -> None:
        """Rewrite the CSV after changes, until cancelled. A full disk is noticed where videos are saved."""
        while True:
            began = system.monotonic()
            if self._dirty:
                self._dirty = False
                await self._try_write_csv(records())
            await anyio.sleep(max(MIN_REWRITE_INTERVAL_S, REWRITE_COST_FACTOR * (system.monotonic() - began)))

    async def write_csv(self, records: Sequence[Record]) -> None:
        """Write the CSV. Raises `StoreError`: an output that does not take it takes no video either."""
        data = await anyio.to_thread.run_sync(partial(csv.csv_bytes, records, sandbox=self._sandbox))
        with anyio.CancelScope(shield=True):
            await self._store.write_bytes(CSV_NAME, data, durable=False)

    async def _try_write_csv(self, records: Sequence[Record]) -> bool:
        try:
            await self.write_csv(records)
        except StoreError:
            self._dirty = True
            return False
        return True

    async def finish(
        self, records: Sequence[Record], *, next_command: str = "", money: Totals | None = None
    ) -> bool:
        """Write CSV and report as they are now; return whether both are there. `money`: see `summarize`."""
        if not await self._try_write_csv(records):
            return False

        def render_page() -> bytes:
            return report.render(
                records,
                title=self._title,
                manifest=self._manifest,
                generated_at=system.wall(),
                next_command=next_command,
                sandbox=self._sandbox,
                money=money,
            ).encode()

        try:
            await self._store.write_bytes(
                REPORT_NAME, await anyio.to_thread.run_sync(render_page), durable=False
            )
        except StoreError:
            return False
        return True
